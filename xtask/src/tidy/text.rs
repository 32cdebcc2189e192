//! Rules for every file: no path of somebody's machine, no big binary.

use super::Finding;

const BINARY_MAX_BYTES: usize = 1024 * 1024;
/// So much of a file decides whether it is binary, as git does it.
const BINARY_SNIFF_BYTES: usize = 8_000;
/// First parts of paths that exist only on one machine. Written apart, so that this file passes.
const MACHINE_DIRS: &[&str] = &[concat!("/", "root/"), concat!("/", "work/"), concat!("/", "home/")];

/// A binary of more than 1 MiB: it belongs into a fixture that a command makes.
pub fn large_binary(path: &str, bytes: &[u8]) -> Option<Finding> {
    let is_binary = bytes.iter().take(BINARY_SNIFF_BYTES).any(|byte| *byte == 0);
    (is_binary && bytes.len() > BINARY_MAX_BYTES).then(|| Finding {
        path: path.to_owned(),
        line: 0,
        message: format!("binary of {} bytes: at most {BINARY_MAX_BYTES} may be committed", bytes.len()),
    })
}

/// Absolute paths into a home directory or a workplace.
pub fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        for dir in MACHINE_DIRS {
            let is_absolute = |at: usize| {
                let before = content[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && !"._-/})>$".contains(c))
            };
            if content.match_indices(dir).any(|(at, _)| is_absolute(at)) {
                findings.push(Finding {
                    path: path.to_owned(),
                    line,
                    message: format!("path of one machine (`{dir}…`): use a relative path or a variable"),
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_are_found_and_others_pass() {
        let check = |text: &str, count: usize| assert_eq!(machine_paths("x", text).len(), count, "{text}");
        for dir in MACHINE_DIRS {
            check(&format!("a = \"{dir}me\""), 1);
            check(&format!("{dir}me"), 1);
            check(&format!("some{dir}me, $HOME{dir}x, ./x{dir}, http://host{dir}x"), 0);
        }
    }

    #[test]
    fn only_big_binaries_are_found() {
        let check = |bytes: &[u8], found: bool| assert_eq!(large_binary("x", bytes).is_some(), found);
        check(&vec![0; BINARY_MAX_BYTES + 1], true);
        check(&vec![0; BINARY_MAX_BYTES], false);
        check(&vec![b'a'; BINARY_MAX_BYTES + 1], false);
    }
}
