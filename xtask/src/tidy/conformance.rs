//! docs/conformance.md keeps its word: every case once, each named test there and naming its case, and nothing called
//! not applicable that could be run.

use std::collections::BTreeSet;

use super::Finding;
use super::scope;
use super::source::Source;
use crate::conformance::document::{self, Check, Row, TestName};

pub const PATH: &str = document::PATH;

/// All cases of the table that the document follows. The table is not part of the repository, so a case that got lost
/// here would be missed by nobody else.
const CASES: usize = 299;
/// Rows of the tables of the semantics, which the document lists behind the cases.
const ROWS: usize = 31;
const ROW: &str = "ROW-";

/// What defib has nothing of: ephemeral containers; sandboxes and images, as long as only the process runtime exists;
/// the insides of kubelet's Go. Everything else can be run, so it is tested or open.
const MAY_BE_NOT_APPLICABLE: &[(&str, std::ops::RangeInclusive<u32>)] = &[
    ("ACT", 2..=2),
    ("ACT", 7..=9),
    ("ACT", 13..=15),
    ("ACT", 25..=25),
    ("ACT", 43..=44),
    ("ACT", 50..=54),
    ("EXEC", 7..=10),
    ("MGR", 24..=27),
    ("PRB", 11..=11),
    ("ROW-17", 6..=8),
    ("ROW-17", 12..=12),
    ("ROW-17", 14..=15),
    ("ST", 7..=7),
];

/// Findings of the document `text`, judged by the repository's Rust files.
pub fn check(text: &str, sources: &[Source]) -> Vec<Finding> {
    let finding = |line, message| Finding { path: PATH.to_owned(), line, message };
    let rows = match document::rows(text) {
        Ok(rows) => rows,
        Err(error) => return vec![finding(0, error.to_string())],
    };
    let mut findings: Vec<Finding> = rows
        .iter()
        .filter_map(|row| problem(row, sources).map(|message| finding(row.line, message)))
        .collect();
    let mut seen = BTreeSet::new();
    for row in &rows {
        if !seen.insert(&row.id) {
            findings.push(finding(row.line, format!("{} is here twice", row.id)));
        }
    }
    let (listed, cases): (Vec<&String>, Vec<&String>) =
        seen.iter().copied().partition(|id| id.starts_with(ROW));
    for (what, found, expected) in [("cases", cases.len(), CASES), ("rows of tables", listed.len(), ROWS)] {
        if found != expected {
            let text = format!("has {found} {what}, not {expected}: some were lost or invented");
            findings.push(finding(0, text));
        }
    }
    findings
}

fn problem(row: &Row, sources: &[Source]) -> Option<String> {
    match &row.check {
        Check::Open(_) => None,
        Check::NotApplicable(_) => (!may_be_not_applicable(&row.id)).then(|| {
            format!("{} can be run here: name its test, or say `open: ` and what is missing", row.id)
        }),
        Check::Test(test) => {
            let TestName { file, function } = test;
            let Some(source) = sources.iter().find(|source| source.path == *file) else {
                return Some(format!("{}: there is no {file}", row.id));
            };
            let Some(texts) = scope::texts(source, function, sources) else {
                return Some(format!("{}: {file} has no function `{function}`", row.id));
            };
            (!texts.iter().any(|text| document::names(text, &row.id))).then(|| {
                format!(
                    "{}: `{function}` of {file} does not name the case: write its id in full into the function, above \
                     it, or into a table that it uses",
                    row.id
                )
            })
        }
    }
}

fn may_be_not_applicable(id: &str) -> bool {
    let group = document::group(id);
    let number = id.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
    let allowed =
        |number| MAY_BE_NOT_APPLICABLE.iter().any(|(of, range)| *of == group && range.contains(&number));
    number.is_some_and(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[&str]) -> Vec<String> {
        let text = "// BO-02\n\n// ACT-01, BO-011\n#[test]\nfn works() {}\n";
        let sources = [Source::parse("tests/a.rs", text.to_owned()).unwrap()];
        let mut text = rows.join("\n");
        // The number of cases has a test of its own.
        for n in 0..CASES - rows.len() {
            text.push_str(&format!("\n| FILL-{n:03} | x | - | open: x |"));
        }
        for n in 0..ROWS {
            text.push_str(&format!("\n| {ROW}1-{n:02} | x | - | open: x |"));
        }
        check(&text, &sources)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.message))
            .collect()
    }

    #[test]
    fn a_test_is_there_and_names_its_case() {
        assert_eq!(found(&["| ACT-01 | x | `tests/a.rs::works` | |"]), Vec::<String>::new());
        for (row, message) in [
            ("| ACT-01 | x | tests/b.rs::works | |", "1: ACT-01: there is no tests/b.rs"),
            ("| ACT-01 | x | tests/a.rs::work | |", "1: ACT-01: tests/a.rs has no function `work`"),
            (
                "| BO-01 | x | tests/a.rs::works | |",
                "1: BO-01: `works` of tests/a.rs does not name the case: write its id in full into the function, above \
                 it, or into a table that it uses",
            ),
            (
                "| BO-02 | x | tests/a.rs::works | |",
                "1: BO-02: `works` of tests/a.rs does not name the case: write its id in full into the function, above \
                 it, or into a table that it uses",
            ),
        ] {
            assert_eq!(found(&[row]), [message], "{row}");
        }
    }

    #[test]
    fn only_some_cases_are_not_applicable() {
        for (id, allowed) in [
            ("ACT-02", true),
            ("ACT-03", false),
            ("ACT-54", true),
            ("ACTX-02", false),
            ("MGR-23", false),
            ("MGR-26", true),
            ("ST-07", true),
            ("E2E-C-07", false),
        ] {
            assert_eq!(found(&[&format!("| {id} | x | - | n/a: x |")]).is_empty(), allowed, "{id}");
        }
    }

    #[test]
    fn every_case_is_here_once() {
        let twice = found(&["| ACT-01 | x | - | open: x |", "| ACT-01 | x | - | open: x |"]);
        assert_eq!(
            twice,
            ["2: ACT-01 is here twice", "0: has 298 cases, not 299: some were lost or invented"]
        );
        assert_eq!(found(&["| ACT-01 | x | - | |"]).len(), 1, "a row that says nothing");
    }
}
