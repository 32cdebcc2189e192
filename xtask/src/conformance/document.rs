//! docs/conformance.md as rows, and the ids of any other case table.

use anyhow::{Result, bail};

/// The document, relative to the root.
pub const PATH: &str = "docs/conformance.md";
/// Notes of rows without a test start with one of these.
const NOT_APPLICABLE: &str = "n/a: ";
const OPEN: &str = "open: ";
const NO_TEST: &str = "-";

/// One case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Counted from 1.
    pub line: usize,
    pub id: String,
    pub check: Check,
}

/// What proves the case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    Test(TestName),
    /// With the reason.
    NotApplicable(String),
    /// With what is missing.
    Open(String),
}

/// A test function by the file it is written in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TestName {
    pub file: String,
    pub function: String,
}

impl std::fmt::Display for TestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}", self.file, self.function)
    }
}

/// Every row of the document whose first cell is an id. A row that says neither what runs it nor why nothing does is
/// an error.
pub fn rows(text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let Some(cells) = cells(content).filter(|cells| is_id(cells[0])) else { continue };
        let [id, _what, test, note] = cells[..] else {
            bail!("{PATH}:{line}: a case has four cells: id, what, test, note");
        };
        let Some(check) = check(test, note) else {
            bail!(
                "{PATH}:{line}: {id} needs a test as `path/to/file.rs::function`, \
                 or `{NO_TEST}` and a note that starts with `{NOT_APPLICABLE}` or `{OPEN}`"
            );
        };
        rows.push(Row { line, id: id.to_owned(), check });
    }
    Ok(rows)
}

/// The ids of a case table: first cells of markdown rows.
pub fn case_ids(text: &str) -> Vec<String> {
    text.lines().filter_map(cells).map(|cells| cells[0]).filter(|id| is_id(id)).map(str::to_owned).collect()
}

/// The id without its number.
pub fn group(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(group, _)| group)
}

/// Whether `text` has the id as a word: `ACT-1` is not in `ACT-11`, nor in `XACT-1`.
pub fn names(text: &str, id: &str) -> bool {
    text.match_indices(id).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + id.len()..].chars().next();
        !before.is_some_and(|c| c.is_ascii_alphanumeric()) && !after.is_some_and(|c| c.is_ascii_digit())
    })
}

fn check(test: &str, note: &str) -> Option<Check> {
    if test == NO_TEST {
        let reason =
            |prefix| note.strip_prefix(prefix).filter(|reason| !reason.is_empty()).map(str::to_owned);
        return reason(NOT_APPLICABLE).map(Check::NotApplicable).or_else(|| reason(OPEN).map(Check::Open));
    }
    let (file, function) = test.trim_matches('`').split_once("::")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (file.ends_with(".rs") && !function.is_empty() && function.chars().all(is_name))
        .then(|| Check::Test(TestName { file: file.to_owned(), function: function.to_owned() }))
}

/// Cells of a table row, trimmed. A bar inside of a cell is written `\|`.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = Vec::new();
    let mut start = 0;
    for (at, _) in inside.match_indices('|') {
        if !inside[..at].ends_with('\\') {
            cells.push(inside[start..at].trim());
            start = at + 1;
        }
    }
    cells.push(inside[start..].trim());
    Some(cells)
}

/// Capital letters, parts with `-` between them, and a number at the end: `E2E-C-01`.
fn is_id(cell: &str) -> bool {
    let Some((group, number)) = cell.rsplit_once('-') else { return false };
    number.len() >= 2
        && number.chars().all(|c| c.is_ascii_digit())
        && group.starts_with(|c: char| c.is_ascii_uppercase())
        && group.split('-').all(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(line: &str) -> Check {
        let rows =
            rows(&format!("# Title\n\n| id | what | test | note |\n|---|---|---|---|\n{line}\n")).unwrap();
        assert_eq!((rows.len(), rows[0].line), (1, 5), "{line}");
        rows.into_iter().next().unwrap().check
    }

    #[test]
    fn rows_have_a_test_or_a_reason() {
        let test = TestName { file: "tests/a.rs".into(), function: "b_1".into() };
        assert_eq!(only("| ACT-01 | nothing | `tests/a.rs::b_1` | |"), Check::Test(test.clone()));
        assert_eq!(only("| ACT-01 | a \\| b | tests/a.rs::b_1 | half of it |"), Check::Test(test));
        assert_eq!(only("| E2E-C-01 | x | - | n/a: no pod |"), Check::NotApplicable("no pod".into()));
        assert_eq!(only("| E2E-C-01 | x | - | open: no test |"), Check::Open("no test".into()));
    }

    #[test]
    fn rows_that_say_nothing_are_refused() {
        for line in [
            "| ACT-01 | x | - | |",
            "| ACT-01 | x | - | n/a: |",
            "| ACT-01 | x | - | later |",
            "| ACT-01 | x | tests/a.rs | |",
            "| ACT-01 | x | tests/a.rs::b() | |",
            "| ACT-01 | x | tests::b | |",
            "| ACT-01 | x | tests/a.rs::b |",
        ] {
            assert!(rows(line).is_err(), "{line}");
        }
    }

    #[test]
    fn other_rows_and_prose_are_no_cases() {
        let text = "| id | setup |\n|---|---|\n| E2E-C-01 | a |\n| HTTPX-01 | b | c |\nACT-01 is prose\n| ACT | |\n\
                    | act-01 | |\n| HTTPS | x |\n| ACT-1x | |\n";
        assert_eq!(case_ids(text), ["E2E-C-01", "HTTPX-01"]);
        assert_eq!((group("E2E-C-01"), group("BO-10")), ("E2E-C", "BO"));
    }

    #[test]
    fn an_id_is_a_word() {
        for (text, found) in [
            ("(\"ACT-01\", x)", true),
            ("ACT-01, ACT-011", true),
            ("ACT-011", false),
            ("XACT-01", false),
            ("act_01", false),
        ] {
            assert_eq!(names(text, "ACT-01"), found, "{text}");
        }
    }
}
