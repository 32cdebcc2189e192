//! Standard output, and what the client verbs share.

use std::io::{self, Write};

use jiff::Timestamp;
use probe_core::sys::clock;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};
use thiserror::Error;

use super::args::ClientArgs;
use crate::client::{Client, ClientError};
use crate::paths;

/// Nobody reads standard output any more: the verb ends, quietly.
#[derive(Debug, Error)]
#[error("standard output is closed")]
pub struct Closed;

/// Writes and flushes, so that a reader sees every line when it is made.
///
/// # Errors
/// [`Closed`], or what else the system says.
pub fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        result => Ok(result?),
    }
}

/// JSON as kubectl indents it, with a line break at the end.
pub fn json(value: &Value) -> anyhow::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    ")))?;
    text.push(b'\n');
    Ok(without_controls(String::from_utf8(text)?))
}

/// The serializer escapes what JSON says must be. DEL and the controls above ASCII, which terminals obey too, can stand
/// only inside of strings, where an escape means the same.
fn without_controls(text: String) -> String {
    if !text.contains(|c| matches!(c, '\x7f'..='\u{9f}')) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\x7f'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// YAML, with a line break at the end.
pub fn yaml(value: &Value) -> anyhow::Result<String> {
    // A long text stays one line, for grep.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let mut text = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut text, value, options)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// A client of the agent that these arguments name.
///
/// # Errors
/// The default socket's directory is not the user's own.
pub fn client(args: &ClientArgs) -> anyhow::Result<Client> {
    Ok(Client::new(paths::socket_to_call(args.socket.as_deref())?))
}

/// The time that ages are counted from.
pub fn now() -> Timestamp {
    Timestamp::from_nanosecond(i128::from(clock::wall().as_ns())).unwrap_or_default()
}

/// The agent's refusals of several requests: each is printed, the rest goes on.
#[derive(Debug, Default)]
pub struct Refusals {
    count: usize,
}

impl Refusals {
    /// The answer, or None after its refusal was printed.
    ///
    /// # Errors
    /// Everything that is not the agent's own answer ends the verb.
    pub fn take<T>(&mut self, answer: Result<T, ClientError>) -> anyhow::Result<Option<T>> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(ClientError::Refused(status)) => {
                eprintln!("{status}");
                self.count += 1;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The verb's exit code.
    pub fn exit_code(&self) -> u8 {
        if self.count == 0 { super::exit::OK } else { super::exit::FAILED }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_speaks_to_the_terminal() {
        let value = json!({"a": "\x1b[2J\r\x07\x7f\u{9b}31m \u{e4}"});
        for text in [json(&value).unwrap(), yaml(&value).unwrap()] {
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
            let back: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(back, value, "{text}");
        }
    }

    #[test]
    fn forms() {
        let value = json!({"b": ["1", "true", 1], "a": {"c": null, "d": {}}});
        let expected = "{\n    \"a\": {\n        \"c\": null,\n        \"d\": {}\n    },\n    \"b\": [\n        \"1\",\n        \"true\",\n        1\n    ]\n}\n";
        assert_eq!(json(&value).unwrap(), expected);
        let text = yaml(&value).unwrap();
        assert!(text.starts_with("a:\n  c: null\n  d: {}\nb:\n"), "{text}");
        let long = "word ".repeat(100) + "end";
        assert_eq!(yaml(&json!({"a": long, "b": "1\n2\n"})).unwrap(), format!("a: {long}\nb: |\n  1\n  2\n"));
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value);
    }
}
