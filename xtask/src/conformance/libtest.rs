//! What Rust's test harness prints, read back.

use std::collections::BTreeMap;

/// From good to bad.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    Passed,
    Ignored,
    Failed,
}

/// Names that `--list` printed.
pub fn listed(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Results of one binary by name: each binary is run by itself, so that a name of another one never stands here. A test
/// that ended the whole process has none. Where a name comes more than once, the worst of its results counts: what a
/// failed test printed is shown again behind the results, and may look like one.
pub fn results(output: &str) -> BTreeMap<String, Outcome> {
    let mut results = BTreeMap::new();
    for (name, outcome) in output.lines().filter_map(result) {
        let worst = results.entry(name).or_insert(outcome);
        *worst = outcome.max(*worst);
    }
    results
}

/// `test NAME ... ok`, `FAILED`, or `ignored` with a reason; with ` - should panic` after the name of such a test.
fn result(line: &str) -> Option<(String, Outcome)> {
    let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match word.split([' ', ',']).next()? {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Ignored,
        _ => return None,
    };
    let name = name.split_once(" - ").map_or(name, |(name, _)| name);
    Some((name.to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_summaries_are_not() {
        let output = "a::b: test\nc: test\nd: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(listed(output), ["a::b", "c"]);
    }

    #[test]
    fn the_worst_result_of_a_name_counts() {
        for (output, expected) in [
            ("test a ... FAILED\ntest a ... ok\n", Outcome::Failed),
            ("test a ... ok\ntest a ... FAILED\n", Outcome::Failed),
            ("test a ... ignored\ntest a ... ok\n", Outcome::Ignored),
            ("test a ... FAILED\ntest a ... ignored\n", Outcome::Failed),
            ("test a ... ok\ntest a ... ok\n", Outcome::Passed),
        ] {
            assert_eq!(results(output), [("a".to_owned(), expected)].into(), "{output}");
        }
    }

    #[test]
    fn results_are_read_in_every_form() {
        let output = "\nrunning 5 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored, no kernel\n\
                      test e - should panic ... ok\ntest f has been running for over 60 seconds\n\
                      test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured\n";
        let expected = [
            ("a::b", Outcome::Passed),
            ("c", Outcome::Failed),
            ("d", Outcome::Ignored),
            ("e", Outcome::Passed),
        ];
        let expected = expected.map(|(name, outcome)| (name.to_owned(), outcome));
        assert_eq!(results(output), expected.into_iter().collect());
    }
}
