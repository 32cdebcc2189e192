//! Text of workloads on its way to somebody's terminal.

use std::borrow::Cow;

/// `text` with everything that a terminal would obey made visible, line breaks and tabs apart. ESC and CR come out as
/// kubectl writes them (CVE-2021-25743), the other controls of ASCII in the same way, those above it as escapes.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\r' => out.push_str("\\r"),
            '\x7f' => out.push_str("^?"),
            c if is_obeyed(c) && c.is_ascii() => {
                // `^[` stands for ESC, which is 0x1b.
                out.push('^');
                out.push(char::from(c as u8 ^ 0x40));
            }
            c if is_obeyed(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// As [`visible`], on one line.
pub fn visible_line(text: &str) -> String {
    visible(text).replace('\n', "\\n").replace('\t', "\\t")
}

fn is_obeyed(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_obey() {
        let cases = [
            ("plain \u{e4} \u{1f600}\n\tnext", "plain \u{e4} \u{1f600}\n\tnext"),
            ("\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
            ("a\rb\x07\0\x7f", "a\\rb^G^@^?"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
        ];
        for (text, expected) in cases {
            assert_eq!(visible(text), expected);
        }
        let every: String = (0..=0x100).filter_map(char::from_u32).collect();
        assert!(!visible_line(&every).chars().any(char::is_control));
        assert_eq!(visible_line("a\nb\tc"), "a\\nb\\tc");
        assert!(matches!(visible("as it is"), Cow::Borrowed(_)));
    }
}
