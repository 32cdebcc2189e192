//! Arrows inside probe-core point inwards (design section 4): a module may only name those of its row.

use super::Finding;
use super::source::{Source, Token};

const CRATE_DIR: &str = "probe-core/src/";

/// Who may know whom. Test code is free: a test may build what the module under test never sees.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("decide", &["model", "wire"]),
    ("spec", &["model", "decide", "wire"]),
    ("ring", &["model"]),
    ("sys", &["model"]),
    ("engine", &["ring", "decide", "wire", "model"]),
    ("executor", &["decide", "wire", "model"]),
    ("sensor", &["sys", "ring", "model"]),
];

/// Every mention of a sibling module that the table does not allow, `use` line or not.
pub fn check(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with(CRATE_DIR) {
        return Vec::new();
    }
    let own_path = source.module_path(0);
    let Some(own) = own_path.first() else { return Vec::new() };
    let finding = |line, message| Finding { path: source.path.clone(), line, message };
    let Some((_, allowed)) = MAY_USE.iter().find(|(module, _)| module == own) else {
        let message = format!("module `{own}` has no row in the table of xtask/src/tidy/arrows.rs");
        return vec![finding(0, message)];
    };
    let mut findings = Vec::new();
    for (used, line) in mentions(source) {
        let known = MAY_USE.iter().any(|(module, _)| *module == used);
        if known && used != *own && !allowed.contains(&used.as_str()) && !source.is_test(line) {
            let row = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            findings.push(finding(
                line,
                format!("arrow the wrong way: `{own}` must not know `{used}` (it may use {row})"),
            ));
        }
    }
    findings
}

/// Top-level modules named by `crate::x`, `crate::{x, y}`, or a chain of `super::` that climbs to the root.
fn mentions(source: &Source) -> Vec<(String, usize)> {
    let tokens = &source.tokens;
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        let mut climbed = 0;
        while is(tokens, at, "super") && is_path_separator(tokens, at + 1) {
            climbed += 1;
            at += 3;
        }
        let from_root = if climbed > 0 {
            climbed >= source.module_path(tokens[start].line).len()
        } else if is(tokens, at, "crate") && is_path_separator(tokens, at + 1) {
            at += 3;
            true
        } else {
            at += 1;
            false
        };
        if from_root {
            found.extend(first_segments(tokens, at));
        }
    }
    found
}

/// The name at `at`, or, in a group, the first name of each of its members.
fn first_segments(tokens: &[Token], at: usize) -> Vec<(String, usize)> {
    if !is(tokens, at, "{") {
        return tokens.get(at).map(|t| (t.text.clone(), t.line)).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut expecting = false;
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => {
                depth += 1;
                expecting = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            "," if depth == 1 => expecting = true,
            name if expecting => {
                found.push((name.to_owned(), token.line));
                expecting = false;
            }
            _ => {}
        }
    }
    found
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn is_path_separator(tokens: &[Token], at: usize) -> bool {
    is(tokens, at, ":") && is(tokens, at + 1, ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected`: line and forbidden module of each finding.
    fn check_file(path: &str, text: &str, expected: &[(usize, &str)]) {
        let source = Source::parse(path, text.to_owned()).unwrap();
        let found = check(&source);
        assert_eq!(found.len(), expected.len(), "{path}: {found:?}");
        for (finding, (line, used)) in found.iter().zip(expected) {
            assert_eq!(finding.line, *line, "{finding}");
            assert!(finding.message.contains(&format!("`{used}`")), "{finding}");
        }
    }

    #[test]
    fn arrows_inwards_pass() {
        check_file(
            "probe-core/src/engine/mod.rs",
            "use crate::ring::Ring;\nuse crate::{decide, model::id};",
            &[],
        );
        check_file(
            "probe-core/src/model/pod.rs",
            "use super::id::PodUid;\nuse crate::model::time::Mono;",
            &[],
        );
        check_file("probe-core/src/lib.rs", "pub mod engine;\npub use crate::engine::Shard;", &[]);
        check_file("src/agent.rs", "use crate::engine::x;", &[]);
    }

    #[test]
    fn arrows_outwards_are_found() {
        check_file("probe-core/src/model/pod.rs", "use crate::decide::x;", &[(1, "decide")]);
        check_file(
            "probe-core/src/executor/mod.rs",
            "use crate::{\n    model::id,\n    ring::{Ring, Sqe},\n};",
            &[(3, "ring")],
        );
        check_file("probe-core/src/wire.rs", "fn f() {\n    crate::sys::clock::now();\n}", &[(2, "sys")]);
        check_file("probe-core/src/sensor/pidfd.rs", "use super::super::engine::Shard;", &[(1, "engine")]);
        check_file("probe-core/src/sensor/mod.rs", "use super::engine::Shard;", &[(1, "engine")]);
    }

    #[test]
    fn macro_bodies_count_and_text_does_not() {
        check_file(
            "probe-core/src/model/x.rs",
            "fn f() {\n    assert!(crate::ring::ok());\n}",
            &[(2, "ring")],
        );
        check_file(
            "probe-core/src/model/x.rs",
            "//! [`crate::ring`]\n// crate::ring::x\nconst A: &str = \"crate::ring::x\";",
            &[],
        );
    }

    #[test]
    fn tests_may_build_anything() {
        check_file(
            "probe-core/src/decide/x.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::sys::clock;\n}",
            &[],
        );
    }

    #[test]
    fn inline_modules_add_a_level() {
        check_file(
            "probe-core/src/wire/mod.rs",
            "mod inner {\n    use super::super::model::id;\n    use super::super::sys::x;\n}",
            &[(3, "sys")],
        );
    }

    #[test]
    fn a_new_module_needs_a_row() {
        check_file("probe-core/src/novel.rs", "", &[(0, "novel")]);
    }
}
