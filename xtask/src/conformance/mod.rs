//! `cargo xtask conformance`: runs the test of every case of docs/conformance.md, and says what passed, what failed,
//! what does not apply and what nobody tests yet.

pub mod document;
mod libtest;
mod place;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::repo::Repo;
use document::{Check, Row, TestName};
use libtest::Outcome;
use place::{Binary, Place};
use report::{Case, Counts, Verdict};

#[derive(Args, Default)]
pub struct ConformanceArgs {
    /// Write the results as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A case table in markdown: each of its ids must be in the document
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Only the end-to-end groups E2E-*, with upstream's delays, periods, back-off and watches in full length: the better
    /// part of an hour
    #[arg(long)]
    real_time: bool,
}

/// Ids of end-to-end cases begin so.
const END_TO_END: &str = "E2E-";
/// Read by the end-to-end tests' support package.
const REAL_TIME: &str = "DEFIB_TEST_REAL_TIME";

/// Runs everything, prints the table; a case that failed or is open is an error.
pub fn run(repo: &Repo, args: &ConformanceArgs) -> Result<()> {
    let mut rows = document::rows(&read(&repo.path(document::PATH))?)?;
    let wanted = match &args.cases {
        Some(path) => wanted_cases(path)?,
        None => Vec::new(),
    };
    // Before rows are left out: those are not missing.
    let missing = missing(&rows, &wanted);
    if args.real_time {
        rows.retain(|row| row.id.starts_with(END_TO_END));
    }
    let verdicts = run_tests(repo, &rows, args.real_time)?;
    let mut cases: Vec<Case> = rows.iter().map(|row| judged(row, &verdicts)).collect();
    cases.extend(missing);
    print!("{}", report::table(&cases));
    if let Some(path) = &args.json {
        fs::write(path, report::json(&cases)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let counts = Counts::of(&cases);
    if !counts.is_clean() {
        bail!("conformance: {} cases failed, {} are open", counts.failed, counts.open);
    }
    Ok(())
}

/// The ids of another table. One without any is the wrong file: it would find nothing missing.
fn wanted_cases(path: &Path) -> Result<Vec<String>> {
    let ids = document::case_ids(&read(path)?);
    if ids.is_empty() {
        bail!(
            "{} has no case: --cases wants a markdown table whose rows begin with an id, such as `| E2E-C-01 | …`",
            path.display()
        );
    }
    Ok(ids)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What became of a test: nothing to say, or why it did not pass.
type Verdicts = BTreeMap<TestName, std::result::Result<(), String>>;

/// Each binary is built and run once, with exactly the tests that are named.
fn run_tests(repo: &Repo, rows: &[Row], real_time: bool) -> Result<Verdicts> {
    let files = repo.files()?;
    let mut verdicts = Verdicts::new();
    let mut binaries: BTreeMap<Binary, Vec<(TestName, Place)>> = BTreeMap::new();
    let named: BTreeSet<&TestName> = rows.iter().filter_map(named_test).collect();
    for test in named {
        match Place::of(&test.file, &files) {
            Some(place) => {
                binaries.entry(place.binary.clone()).or_default().push((test.clone(), place));
            }
            None => drop(verdicts.insert(test.clone(), Err("no test binary has this file".to_owned()))),
        }
    }
    for (binary, tests) in &binaries {
        println!("conformance: {} tests of {}", tests.len(), binary.cargo_args().join(" "));
        let Some(list) = harness(repo, binary, &["--list"], real_time).map(Ended::if_success)? else {
            let reason = || Err(format!("`cargo test {}` does not build", binary.cargo_args().join(" ")));
            verdicts.extend(tests.iter().map(|(test, _)| (test.clone(), reason())));
            continue;
        };
        let all = libtest::listed(&list);
        let names: Vec<&str> =
            tests.iter().flat_map(|(test, place)| place.tests_of(&test.function, &all)).collect();
        // Without a name the harness would run everything.
        let output = if names.is_empty() {
            String::new()
        } else {
            harness(repo, binary, &[&["--exact"], &names[..]].concat(), real_time)?.output
        };
        let results = libtest::results(&output);
        for (test, place) in tests {
            verdicts.insert(test.clone(), verdict(&place.tests_of(&test.function, &all), &results));
        }
        if results.values().any(|outcome| *outcome == Outcome::Failed) || results.len() < names.len() {
            println!("{output}");
        }
    }
    Ok(verdicts)
}

fn named_test(row: &Row) -> Option<&TestName> {
    match &row.check {
        Check::Test(test) => Some(test),
        Check::NotApplicable(_) | Check::Open(_) => None,
    }
}

/// What a test binary printed, and whether it was content.
struct Ended {
    is_success: bool,
    output: String,
}

impl Ended {
    fn if_success(self) -> Option<String> {
        self.is_success.then_some(self.output)
    }
}

fn harness(repo: &Repo, binary: &Binary, args: &[&str], real_time: bool) -> Result<Ended> {
    let mut command = repo.cargo();
    if real_time {
        command.env(REAL_TIME, "1");
    }
    command.args(["test", "--quiet"]).args(binary.cargo_args()).arg("--");
    // What --quiet means to Cargo, it must not mean to the harness: dots have no names.
    command.args(["--format", "pretty", "--color", "never"]).args(args).stderr(Stdio::inherit());
    let done = command.output().context("cannot start cargo test")?;
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    Ok(Ended { is_success: done.status.success(), output })
}

/// One function may be several tests; all have to pass.
fn verdict(names: &[&str], results: &BTreeMap<String, Outcome>) -> std::result::Result<(), String> {
    if names.is_empty() {
        return Err("there is no such test".to_owned());
    }
    for name in names {
        match results.get(*name) {
            Some(Outcome::Passed) => {}
            Some(Outcome::Failed) => return Err(format!("{name} failed")),
            Some(Outcome::Ignored) => return Err(format!("{name} is ignored")),
            None => return Err(format!("{name} has no result: its process ended early")),
        }
    }
    Ok(())
}

fn judged(row: &Row, verdicts: &Verdicts) -> Case {
    let case = |result, test: String, reason: &str| Case {
        id: row.id.clone(),
        result,
        test,
        reason: reason.to_owned(),
    };
    match &row.check {
        Check::NotApplicable(reason) => case(Verdict::NotApplicable, String::new(), reason),
        Check::Open(reason) => case(Verdict::Open, String::new(), reason),
        Check::Test(test) => match verdicts.get(test) {
            Some(Ok(())) => case(Verdict::Passed, test.to_string(), ""),
            Some(Err(reason)) => case(Verdict::Failed, test.to_string(), reason),
            None => case(Verdict::Failed, test.to_string(), "it was not run"),
        },
    }
}

/// Ids of another table that the document does not have.
fn missing(rows: &[Row], wanted: &[String]) -> Vec<Case> {
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    wanted
        .iter()
        .filter(|id| !known.contains(id.as_str()))
        .map(|id| Case {
            id: id.clone(),
            result: Verdict::Failed,
            test: String::new(),
            reason: format!("{} does not have this case", document::PATH),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_of_a_function_has_to_pass() {
        let results = [("a", Outcome::Passed), ("b", Outcome::Failed), ("c", Outcome::Ignored)];
        let results = results.map(|(name, outcome)| (name.to_owned(), outcome)).into();
        let check = |names: &[&str], expected: std::result::Result<(), &str>| {
            assert_eq!(verdict(names, &results), expected.map_err(str::to_owned), "{names:?}");
        };
        check(&["a"], Ok(()));
        check(&["a", "b"], Err("b failed"));
        check(&["c"], Err("c is ignored"));
        check(&["a", "d"], Err("d has no result: its process ended early"));
        check(&[], Err("there is no such test"));
    }

    #[test]
    fn a_table_without_cases_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cases.md");
        let ids = |text: &str| {
            fs::write(&file, text).unwrap();
            wanted_cases(&file).map_err(|error| error.to_string())
        };
        let found = [ids("| A-01 | x |\n"), ids(""), ids("| id | x |\n|---|---|\n")];
        assert_eq!(found[0], Ok(vec!["A-01".to_owned()]));
        for refused in &found[1..] {
            assert!(
                refused.as_ref().is_err_and(|error| error.contains("has no case: --cases wants")),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn rows_become_cases() {
        let text = "| A-01 | x | t/a.rs::good | |\n| A-02 | x | t/a.rs::bad | |\n| A-03 | x | t/a.rs::lost | |\n\
                    | A-04 | x | - | n/a: why |\n| A-05 | x | - | open: not yet |\n";
        let rows = document::rows(text).unwrap();
        let test = |function: &str| TestName { file: "t/a.rs".to_owned(), function: function.to_owned() };
        let verdicts = [(test("good"), Ok(())), (test("bad"), Err("bad failed".to_owned()))].into();
        let found: Vec<(Verdict, String)> =
            rows.iter().map(|row| judged(row, &verdicts)).map(|case| (case.result, case.reason)).collect();
        let expected = [
            (Verdict::Passed, ""),
            (Verdict::Failed, "bad failed"),
            (Verdict::Failed, "it was not run"),
            (Verdict::NotApplicable, "why"),
            (Verdict::Open, "not yet"),
        ];
        assert_eq!(found, expected.map(|(verdict, reason)| (verdict, reason.to_owned())));
        let missing = missing(&rows, &["A-01".to_owned(), "B-01".to_owned()]);
        assert_eq!((missing.len(), &*missing[0].id, missing[0].result), (1, "B-01", Verdict::Failed));
    }
}
