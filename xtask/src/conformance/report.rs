//! What became of each case: a table by group for people, JSON rows for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::document::group;

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Passed,
    Failed,
    NotApplicable,
    Open,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Case {
    pub id: String,
    pub result: Verdict,
    /// As the document has it; empty without one.
    pub test: String,
    /// Empty for a case that passed.
    pub reason: String,
}

#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub not_applicable: usize,
    pub open: usize,
}

impl Counts {
    pub fn of(cases: &[Case]) -> Counts {
        let mut counts = Counts::default();
        cases.iter().for_each(|case| counts.add(case.result));
        counts
    }

    /// Nothing failed and nothing is open.
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.open == 0
    }

    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::NotApplicable => self.not_applicable += 1,
            Verdict::Open => self.open += 1,
        }
    }
}

/// Counts by group and in total, then every case that failed or is open, with its reason.
pub fn table(cases: &[Case]) -> String {
    let mut groups: BTreeMap<&str, Counts> = BTreeMap::new();
    for case in cases {
        groups.entry(group(&case.id)).or_default().add(case.result);
    }
    let mut text =
        format!("{:<8} {:>8} {:>8} {:>16} {:>8}\n", "group", "passed", "failed", "not applicable", "open");
    for (group, counts) in groups.into_iter().chain([("total", Counts::of(cases))]) {
        let Counts { passed, failed, not_applicable, open } = counts;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{group:<8} {passed:>8} {failed:>8} {not_applicable:>16} {open:>8}");
    }
    for (verdict, word) in [(Verdict::Open, "open"), (Verdict::Failed, "FAILED")] {
        for case in cases.iter().filter(|case| case.result == verdict) {
            let _ = writeln!(text, "{word} {}: {}", case.id, case.reason);
        }
    }
    text
}

/// An array with an object for each case.
pub fn json(cases: &[Case]) -> Result<String> {
    Ok(serde_json::to_string_pretty(cases)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(id: &str, result: Verdict, reason: &str) -> Case {
        Case { id: id.to_owned(), result, test: String::new(), reason: reason.to_owned() }
    }

    #[test]
    fn groups_are_counted_and_the_rest_is_named() {
        let cases = [
            case("E2E-C-01", Verdict::Open, "no test"),
            case("E2E-C-02", Verdict::Passed, ""),
            case("BO-01", Verdict::Failed, "x failed"),
            case("ACT-50", Verdict::NotApplicable, "no such thing"),
        ];
        let expected = "\
group      passed   failed   not applicable     open
ACT             0        0                1        0
BO              0        1                0        0
E2E-C           1        0                0        1
total           1        1                1        1
open E2E-C-01: no test
FAILED BO-01: x failed
";
        assert_eq!(table(&cases), expected);
        assert!(!Counts::of(&cases).is_clean());
        assert!(!Counts::of(&cases[..1]).is_clean() && Counts::of(&cases[3..]).is_clean());
    }

    #[test]
    fn rows_for_programs() {
        let rows = json(&[case("ACT-50", Verdict::NotApplicable, "r")]).unwrap();
        let expected = r#"[{"id":"ACT-50","result":"not-applicable","test":"","reason":"r"}]"#;
        let value = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&rows), value(expected));
    }
}
