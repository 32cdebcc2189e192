//! Rules about single tokens: where `unsafe` and clocks may be, and no ignored tests.

use super::Finding;
use super::source::{Source, Token};

/// The doors to the kernel; of the benchmarks the floor, which is nothing but one, and a look at the heap; of the tests
/// what watches a thread from outside of it.
const UNSAFE_DIRS: &[&str] = &[
    "probe-core/src/ring/",
    "probe-core/src/sys/",
    "probe-ebpf/",
    "benches/peers/src/bin/floor.rs",
    "benches/peers/src/heap.rs",
    "tests/support/watched.rs",
];
/// The one file of the product that reads a clock.
const CLOCK_FILE: &str = "probe-core/src/sys/clock.rs";
/// Types whose `now()` reads a clock.
const CLOCK_TYPES: &[&str] = &["Instant", "SystemTime", "Timestamp", "Zoned"];

pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let message = match token.text.as_str() {
            "unsafe" if !UNSAFE_DIRS.iter().any(|dir| source.path.starts_with(dir)) => {
                "`unsafe` outside the doors to the kernel: it belongs into probe-core/src/ring or sys"
            }
            "now" if calls_clock(&source.tokens, at) && !may_read_clock(source, token.line) => {
                "clock read outside probe-core/src/sys/clock.rs: take the time as an argument"
            }
            "clock_gettime" if !may_read_clock(source, token.line) => {
                "clock read outside probe-core/src/sys/clock.rs: take the time as an argument"
            }
            "ignore" if is_attribute(&source.tokens, at) => {
                "ignored test: make it pass, or remove it and say why in the commit"
            }
            _ => continue,
        };
        findings.push(Finding { path: source.path.clone(), line: token.line, message: message.to_owned() });
    }
    findings
}

/// `Instant::now` and its kin, `now` being at `at`.
fn calls_clock(tokens: &[Token], at: usize) -> bool {
    at >= 3
        && tokens[at - 1].text == ":"
        && tokens[at - 2].text == ":"
        && CLOCK_TYPES.contains(&tokens[at - 3].text.as_str())
}

fn may_read_clock(source: &Source, line: usize) -> bool {
    let measures = ["xtask/", "benches/"].iter().any(|dir| source.path.starts_with(dir));
    source.path == CLOCK_FILE || measures || source.is_test(line)
}

/// `#[name]` or `#[name = …]`, the name being at `at`.
fn is_attribute(tokens: &[Token], at: usize) -> bool {
    at >= 2 && tokens[at - 1].text == "[" && tokens[at - 2].text == "#"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected`: line and a part of the message of each finding.
    fn check_file(path: &str, text: &str, expected: &[(usize, &str)]) {
        let found = check(&Source::parse(path, text.to_owned()).unwrap());
        assert_eq!(found.len(), expected.len(), "{path}: {found:?}");
        for (finding, (line, part)) in found.iter().zip(expected) {
            assert_eq!(finding.line, *line, "{finding}");
            assert!(finding.message.contains(part), "{finding}");
        }
    }

    #[test]
    fn unsafe_has_two_rooms() {
        let text = "fn f() {\n    unsafe { g() }\n}";
        check_file("probe-core/src/sys/spawn.rs", text, &[]);
        check_file("probe-core/src/ring/mod.rs", text, &[]);
        check_file("src/agent.rs", text, &[(2, "unsafe")]);
        check_file("tests/article.rs", text, &[(2, "unsafe")]);
        check_file(
            "src/agent.rs",
            "//! unsafe\nconst A: &str = \"unsafe\"; // unsafe\n#[expect(unsafe_code)]\nfn f() {}",
            &[],
        );
    }

    #[test]
    fn clocks_have_one_file() {
        let text = "fn f() {\n    std::time::Instant::now();\n}";
        check_file("probe-core/src/sys/clock.rs", text, &[]);
        check_file("probe-core/src/engine/mod.rs", text, &[(2, "clock")]);
        check_file("src/cli/demo.rs", "fn f() { SystemTime::now(); }", &[(1, "clock")]);
        check_file(
            "src/cli/demo.rs",
            "fn f() { rustix::time::clock_gettime(x); clock::now(); }",
            &[(1, "clock")],
        );
        check_file("tests/support/mod.rs", text, &[]);
        check_file("probe-core/tests/simulation.rs", text, &[]);
        check_file(
            "probe-core/src/engine/mod.rs",
            "#[cfg(test)]\nmod tests {\n fn f() { Instant::now(); }\n}",
            &[],
        );
    }

    #[test]
    fn no_test_is_ignored() {
        check_file("tests/article.rs", "#[test]\n#[ignore]\nfn f() {}", &[(2, "ignored")]);
        check_file("tests/article.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", &[(2, "ignored")]);
        check_file("tests/article.rs", "fn f(ignore: u8) -> [u8; 1] { [ignore] }", &[]);
    }
}
