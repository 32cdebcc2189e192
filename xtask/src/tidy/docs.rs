//! The documents that people find their way with name only files that exist.

use super::Finding;

const CHECKED: &[&str] = &["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"];
/// A name in a document may be short for one in these folders.
const BASES: &[&str] = &["", "probe-core/src/", "src/"];
/// Words with these endings are file names, wherever they stand.
const EXTENSIONS: &[&str] = &[".rs", ".md", ".yaml", ".yml", ".toml", ".sh", ".js", ".json", ".svg"];
/// Made on the machine, never committed.
const GENERATED: &[&str] = &["target/", ".fixtures/"];

pub fn is_checked(path: &str) -> bool {
    CHECKED.contains(&path) || (path.starts_with("docs/") && path.ends_with(".md"))
}

/// Every path that the document names, in backticks, in a code block or as a link, and that is not there.
pub fn named_paths(path: &str, text: &str, files: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_block = false;
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let words: Vec<&str> = if in_block { content.split_whitespace().collect() } else { marked(content) };
        for word in words {
            let word =
                word.trim_matches(|c: char| ",;:.()\"'`".contains(c) && c != '.').trim_end_matches('.');
            if names_path(word, files) && !exists(path, word, files) {
                findings.push(Finding {
                    path: path.to_owned(),
                    line,
                    message: format!("names `{word}`, which does not exist"),
                });
            }
        }
    }
    findings
}

/// Words in backticks, and targets of links.
fn marked(line: &str) -> Vec<&str> {
    let mut found: Vec<&str> = line.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect();
    found.extend(line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()));
    found
}

/// Whether the word is meant as a path of this repository rather than a URL, a placeholder or prose.
fn names_path(word: &str, files: &[String]) -> bool {
    let is_plain = !word.is_empty()
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !word.starts_with(['/', '-'])
        && !word.contains("..")
        && !GENERATED.iter().any(|dir| word.starts_with(dir));
    let has_known_ending =
        EXTENSIONS.iter().any(|ending| word.len() > ending.len() && word.ends_with(ending));
    let in_known_folder = word.split_once('/').is_some_and(|(first, _)| {
        BASES.iter().any(|base| files.iter().any(|file| file.starts_with(&format!("{base}{first}/"))))
    });
    is_plain && (has_known_ending || in_known_folder)
}

fn exists(document: &str, word: &str, files: &[String]) -> bool {
    let beside = document.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("{dir}/"));
    BASES.iter().copied().chain([beside.as_str()]).any(|base| {
        let full = format!("{base}{}", word.trim_end_matches('/'));
        let folder = format!("{full}/");
        files.iter().any(|file| *file == full || file.starts_with(&folder))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, missing: &[&str]) {
        let files =
            ["README.md", "src/main.rs", "probe-core/src/sys/clock.rs", "docs/a.md", "examples/wedge.yaml"]
                .map(str::to_owned);
        let found: Vec<String> =
            named_paths("README.md", text, &files).into_iter().map(|finding| finding.message).collect();
        let expected: Vec<String> =
            missing.iter().map(|word| format!("names `{word}`, which does not exist")).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn existing_paths_pass() {
        check("See `src/main.rs`, `sys/clock.rs`, `sys/`, `probe-core/src/sys` and [a](docs/a.md#top).", &[]);
        check("```\ncargo run -- run examples/wedge.yaml\n```", &[]);
    }

    #[test]
    fn missing_paths_are_named() {
        check("See `src/gone.rs`.", &["src/gone.rs"]);
        check("See [b](docs/b.md).", &["docs/b.md"]);
        check("In `sys/gone`.", &["sys/gone"]);
        check("```\nrun examples/gone.yaml\n```", &["examples/gone.yaml"]);
    }

    #[test]
    fn what_is_no_path_is_left_alone() {
        check(
            "`application/json`, `GET /ready`, `https://x.dev/a.md`, `<state>/pods/x.log`, `target/doc`",
            &[],
        );
        check("Prose about src/gone.rs without marks, and/or more.", &[]);
    }
}
