//! What belongs to one test function: the lines above it, its body, and the tables and helpers that it names.

use std::ops::RangeInclusive;

use super::source::{Source, Token};

/// A piece of a file that has a name: a function, a constant or a static.
struct Item<'a> {
    name: &'a str,
    /// Of its tokens.
    tokens: RangeInclusive<usize>,
}

/// The texts in which a case of `function` may be named; None: the file has no such function.
///
/// These are the function with the comments and attributes that touch it, the items of its own file that it names, and
/// those of another file that it names through the file's module (`table::CASES`). A function of its own file counts where
/// no other one names it: a helper of all tests would name every case for each of them. What these name in turn does not
/// count.
pub fn texts(source: &Source, function: &str, sources: &[Source]) -> Option<Vec<String>> {
    let items = items(&source.tokens);
    let meant: Vec<&Item<'_>> =
        items.iter().filter(|item| item.name == function && is_function(source, item)).collect();
    if meant.is_empty() {
        return None;
    }
    let mut texts: Vec<String> = meant.iter().map(|item| text(source, item)).collect();
    for item in meant {
        let body = &source.tokens[item.tokens.clone()];
        let others = items.iter().filter(|other| other.name != function && names(body, other.name));
        let others =
            others.filter(|other| !is_function(source, other) || has_one_user(source, &items, other));
        texts.extend(others.map(|other| text(source, other)));
        texts.extend(elsewhere(body, source, sources));
    }
    Some(texts)
}

/// Whether one function of the file names it, and no more.
fn has_one_user(source: &Source, items: &[Item<'_>], helper: &Item<'_>) -> bool {
    let names_it = |item: &&Item<'_>| {
        let is_other = is_function(source, item) && item.name != helper.name;
        is_other && names(&source.tokens[item.tokens.clone()], helper.name)
    };
    items.iter().filter(names_it).count() == 1
}

fn names(tokens: &[Token], name: &str) -> bool {
    tokens.iter().any(|token| token.text == name)
}

/// Items of other files in `body`, named as `module::ITEM`.
fn elsewhere(body: &[Token], source: &Source, sources: &[Source]) -> Vec<String> {
    let mut texts = Vec::new();
    for path in body.windows(4) {
        let [module, first, second, name] = path else { continue };
        if (first.text.as_str(), second.text.as_str()) != (":", ":") {
            continue;
        }
        for file in sources.iter().filter(|file| is_module_beside(source, file, &module.text)) {
            let found = items(&file.tokens).into_iter().filter(|item| item.name == name.text);
            texts.extend(found.map(|item| text(file, &item)));
        }
    }
    texts
}

/// Whether `file` is `module.rs` or `module/mod.rs`, in the folder of `source` or in the one that `source` gives its name.
fn is_module_beside(source: &Source, file: &Source, module: &str) -> bool {
    let (dir, name) = source.path.rsplit_once('/').unwrap_or((".", &source.path));
    let own = format!("{dir}/{}", name.trim_end_matches(".rs"));
    [dir, &own]
        .iter()
        .any(|dir| file.path == format!("{dir}/{module}.rs") || file.path == format!("{dir}/{module}/mod.rs"))
}

fn is_function(source: &Source, item: &Item<'_>) -> bool {
    source.tokens[*item.tokens.start()].text == "fn"
}

/// Every item, those inside of macros and of other items too.
fn items(tokens: &[Token]) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let [word, name] = pair else { continue };
        let end = match word.text.as_str() {
            "fn" => end_of_body(tokens, at),
            "const" | "static" if name.text != "fn" => end_of_statement(tokens, at),
            _ => None,
        };
        if let Some(end) = end {
            items.push(Item { name: &name.text, tokens: at..=end });
        }
    }
    items
}

/// The bracket that closes the body; None for a declaration, which ends with a semicolon.
fn end_of_body(tokens: &[Token], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            ";" if depth == 0 => return None,
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 && token.text == "}" {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn end_of_statement(tokens: &[Token], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            ";" if depth == 0 => return Some(at),
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// The lines of an item and the comments and attributes that touch it from above.
fn text(source: &Source, item: &Item<'_>) -> String {
    let lines: Vec<&str> = source.text.lines().collect();
    let first = source.tokens[*item.tokens.start()].line - 1;
    let last = source.tokens[*item.tokens.end()].line;
    // An attribute over several lines ends with a bracket; the code of another item, with `}` or `;`.
    let touches = |line: &&&str| {
        let line = line.trim();
        line.starts_with("//") || !(line.is_empty() || line.ends_with(['}', ';', '{']))
    };
    let above = lines[..first].iter().rev().take_while(touches).count();
    lines[first - above..last].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
// A-01
const OTHER: &[&str] = &[\"A-02\"];
static TABLE: &[&str] = &[\"A-03\", \"x;\"];

/// A-04
#[test]
fn works() {
    // A-05
    for id in TABLE { helper(id, table::CASES, [0; 2]); }
}

fn helper(id: &str) { deeper(\"A-06\"); both(); }
fn deeper(id: &str) { \"A-07\"; both(); }
fn both() { \"A-12\"; }

both! {
    // A-08
    fn inside() {}
}
";

    fn found(function: &str) -> Option<Vec<String>> {
        let table = "pub const CASES: &[&str] = &[\"A-09\"];\npub const LOST: &str = \"A-10\";\n";
        let far = "pub const CASES: &str = \"A-11\";\n";
        let sources = [("tests/a.rs", FILE), ("tests/a/table.rs", table), ("tests/b/table.rs", far)]
            .map(|(path, text)| Source::parse(path, text.to_owned()).unwrap());
        let texts = texts(&sources[0], function, &sources)?.join("\n");
        let ids = (1..=12).map(|number| format!("A-{number:02}"));
        Some(ids.filter(|id| texts.contains(id)).collect())
    }

    #[test]
    fn a_test_has_what_touches_it_and_what_it_names() {
        assert_eq!(found("works").unwrap(), ["A-03", "A-04", "A-05", "A-06", "A-09"]);
        assert_eq!(found("deeper").unwrap(), ["A-07"]);
        assert_eq!(found("inside").unwrap(), ["A-08"]);
    }

    #[test]
    fn what_is_no_function_has_no_texts() {
        assert_eq!(found("TABLE"), None);
        assert_eq!(found("work"), None);
    }
}
