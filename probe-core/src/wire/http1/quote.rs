//! Go's `%q`: text in double quotes as its errors have it.

use std::fmt::Write as _;

/// `bytes` in double quotes; what cannot be printed, and what is no UTF-8, is escaped as Go's strconv.Quote does.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut out, c));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// A list of texts as Go's `%q` has it: `["a" "b"]`.
pub fn quote_all<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> String {
    let all: Vec<String> = all.into_iter().map(quote).collect();
    format!("[{}]", all.join(" "))
}

fn push(out: &mut String, c: char) {
    let code = u32::from(c);
    let short = match c {
        '"' | '\\' => Some(c),
        '\x07' => Some('a'),
        '\x08' => Some('b'),
        '\x0c' => Some('f'),
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        '\x0b' => Some('v'),
        _ => None,
    };
    let _ = match (short, code) {
        (Some(short), _) => write!(out, "\\{short}"),
        (None, _) if is_printable(c) => write!(out, "{c}"),
        (None, ..0x80) => write!(out, "\\x{code:02x}"),
        (None, ..0x1_0000) => write!(out, "\\u{code:04x}"),
        (None, _) => write!(out, "\\U{code:08x}"),
    };
}

/// Whether Go prints it: letters, marks, numbers, punctuation, symbols and the plain space. The standard library
/// knows them too: behind another character its escapes leave all of them alone.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    let mut bytes = [b'a', 0, 0, 0, 0];
    let len = c.encode_utf8(&mut bytes[1..]).len();
    let text = std::str::from_utf8(&bytes[..=len]).unwrap_or_default();
    text.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_quoted_as_go_quotes_them() {
        let cases: [(&[u8], &str); 9] = [
            (b"plain text", "\"plain text\""),
            (b"", "\"\""),
            (b"a\"b\\c'", "\"a\\\"b\\\\c'\""),
            (b"\x07\x08\x0c\n\r\t\x0b", "\"\\a\\b\\f\\n\\r\\t\\v\""),
            (b"\0\x01\x1b\x7f", "\"\\x00\\x01\\x1b\\x7f\""),
            (b"\xff\xc3(\xe2\x82", "\"\\xff\\xc3(\\xe2\\x82\""),
            ("\u{e4}\u{65e5}\u{301}\u{20ac}".as_bytes(), "\"\u{e4}\u{65e5}\u{301}\u{20ac}\""),
            ("\u{a0}\u{ad}\u{85}\u{200b}\u{feff}".as_bytes(), "\"\\u00a0\\u00ad\\u0085\\u200b\\ufeff\""),
            ("\u{e0001}".as_bytes(), "\"\\U000e0001\""),
        ];
        for (bytes, expected) in cases {
            assert_eq!(quote(bytes), expected);
        }
        assert_eq!(quote_all([b"a".as_slice(), b"\""]), "[\"a\" \"\\\"\"]");
    }
}
