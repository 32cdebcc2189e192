//! Sizes: a file or a function that is longer than the house rule says why.

use super::Finding;
use super::source::{Function, Source};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// In the header of the file (`//!`), or in a comment just above the function (`//`).
const REASON: &str = "Reason for length:";

pub fn check(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut findings = Vec::new();
    if lines.len() > FILE_LINES_MAX && !header_has_reason(&lines) {
        findings.push(Finding {
            path: source.path.clone(),
            line: 0,
            message: format!(
                "{} lines, more than {FILE_LINES_MAX}: split it, or write `//! {REASON} …` into its header",
                lines.len()
            ),
        });
    }
    for function in &source.functions {
        let long = function.lines.end() - function.lines.start() + 1;
        if long > FUNCTION_LINES_MAX && !function_has_reason(&lines, function) {
            findings.push(Finding {
                path: source.path.clone(),
                line: *function.lines.start(),
                message: format!(
                    "`{}` has {long} lines, more than {FUNCTION_LINES_MAX}: split it, or write `// {REASON} …` above it",
                    function.name
                ),
            });
        }
    }
    findings
}

fn header_has_reason(lines: &[&str]) -> bool {
    lines.iter().take_while(|line| line.starts_with("//!")).any(|line| line.contains(REASON))
}

/// Looks through the comments and attributes that touch the function from above.
fn function_has_reason(lines: &[&str], function: &Function) -> bool {
    let above = function.lines.start() - 1;
    lines[..above]
        .iter()
        .rev()
        .map(|line| line.trim())
        .take_while(|line| line.starts_with("//") || line.starts_with('#') || line.ends_with(']'))
        .any(|line| line.starts_with("//") && line.contains(REASON))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, expected: &[usize]) {
        let source = Source::parse("src/x.rs", text.to_owned()).unwrap();
        let lines: Vec<usize> = check(&source).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected);
    }

    fn function(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    #[test]
    fn functions_of_70_lines_pass_and_71_need_a_reason() {
        check_text(&function(70), &[]);
        check_text(&function(71), &[1]);
        check_text(&format!("// Reason for length: one table.\n/// Doc.\n#[inline]\n{}", function(71)), &[]);
        check_text(&format!("// Reason for length: of another.\nconst A: u8 = 1;\n{}", function(71)), &[3]);
        check_text(&format!("struct S;\nimpl S {{\n{}}}", function(71)), &[3]);
    }

    #[test]
    fn files_of_600_lines_pass_and_601_need_a_reason() {
        check_text(&"//\n".repeat(600), &[]);
        check_text(&"//\n".repeat(601), &[0]);
        check_text(
            &format!("//! A table.\n//! Reason for length: one case a line.\n{}", "//\n".repeat(600)),
            &[],
        );
    }
}
