//! Lines of a head or a trailer, one at a time and in place, as Go's net/textproto reads them.
//!
//! A line ends with LF, and one CR before it does not count. What the peer leaves without an end when it closes is a
//! line as well. A line that begins with a space goes on with the one before it.

use super::head::HeadError;
use super::quote::quote;

/// Of an initial line that begins with a space; a longer one is not quoted.
const INITIAL_LINE_MAX_BYTES: usize = 80;

/// Of Go's reader: a line that fills it is not waited for.
const BUFFER_BYTES: usize = 4_096;

/// A header field in the bytes that it was found in: the first line, and the lines that go on with it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Field {
    start: usize,
    name_end: usize,
    end: usize,
}

/// What comes next.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// A field; the next one begins at `used`.
    Field { field: Field, used: usize },
    /// The empty line that ends the fields; `used` is behind it.
    End { used: usize },
    /// More bytes are needed.
    More,
}

/// The line from `start` on, without its end, and where the next one begins; None: its end has not come. `searched` says
/// up to where there is no end.
pub fn line(data: &[u8], start: usize, searched: usize, is_over: bool) -> Option<(&[u8], usize)> {
    let from = searched.max(start);
    match data.get(from..)?.iter().position(|byte| *byte == b'\n') {
        Some(offset) => {
            let line = &data[start..from + offset];
            Some((line.strip_suffix(b"\r").unwrap_or(line), from + offset + 1))
        }
        None if is_over && start < data.len() => Some((&data[start..], data.len())),
        None => None,
    }
}

/// The field that begins at `start`, or the end of the fields. `is_first`: no field came before. `is_over`: the peer
/// has closed, nothing follows.
///
/// # Errors
/// The line is no field, or the peer has closed before the end of the fields.
pub fn next(
    data: &[u8],
    start: usize,
    searched: usize,
    is_first: bool,
    is_over: bool,
) -> Result<Next, HeadError> {
    if is_first && data.get(start).copied().is_some_and(is_space) {
        return match line(data, start, searched, is_over) {
            Some((line, _)) if line.len() <= INITIAL_LINE_MAX_BYTES => {
                Err(HeadError::InitialLine(quote(line).into()))
            }
            None if data.len() - start < BUFFER_BYTES => Ok(Next::More),
            Some(_) | None => Err(HeadError::InitialLineTooLong),
        };
    }
    let Some((first, mut used)) = line(data, start, searched, is_over) else {
        return if is_over { Err(HeadError::Eof) } else { Ok(Next::More) };
    };
    if first.is_empty() {
        return Ok(Next::End { used });
    }
    let Some(colon) = first.iter().position(|byte| *byte == b':') else {
        return Err(HeadError::NoColon(quote(first).into()));
    };
    let mut end = start + first.len();
    loop {
        let spaces = data[used..].iter().take_while(|byte| is_space(**byte)).count();
        if used + spaces == data.len() && !is_over {
            return Ok(Next::More);
        }
        if spaces == 0 {
            break;
        }
        let Some((more, after)) = line(data, used + spaces, 0, is_over) else {
            return if is_over { Err(HeadError::Eof) } else { Ok(Next::More) };
        };
        end = used + spaces + more.len();
        used = after;
    }
    let field = Field { start, name_end: start + colon, end };
    field.check(data)?;
    Ok(Next::Field { field, used })
}

impl Field {
    fn check(self, data: &[u8]) -> Result<(), HeadError> {
        let name = self.name(data);
        // A space in a name is allowed; such a name is none of those that matter.
        let is_name = !name.is_empty() && name.iter().all(|byte| is_token(*byte) || *byte == b' ');
        let is_good = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
        // The ends of lines within a folded field are no part of its value.
        let is_value = if self.is_folded(data) {
            self.value(data).iter().copied().all(is_good)
        } else {
            data[self.name_end + 1..self.end].iter().copied().all(is_good)
        };
        if is_name && is_value {
            return Ok(());
        }
        let mut text = self.text(data);
        if is_name && !name.contains(&b' ') {
            canonicalise(&mut text);
        }
        Err(HeadError::HeaderLine(quote(&text).into()))
    }

    pub fn name(self, data: &[u8]) -> &[u8] {
        &data[self.start..self.name_end]
    }

    pub fn is(self, data: &[u8], name: &str) -> bool {
        self.name(data).eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value where it is one line, without spaces around it.
    pub fn simple_value(self, data: &[u8]) -> Option<&[u8]> {
        (!self.is_folded(data)).then(|| trimmed(&data[self.name_end + 1..self.end]))
    }

    /// The value, its lines joined with spaces.
    pub fn value(self, data: &[u8]) -> Vec<u8> {
        let text = self.text(data);
        let after = text.iter().position(|byte| *byte == b':').map_or(0, |colon| colon + 1);
        let spaces = text[after..].iter().take_while(|byte| is_space(**byte)).count();
        text[after + spaces..].to_vec()
    }

    /// Name and value, the lines joined with spaces.
    fn text(self, data: &[u8]) -> Vec<u8> {
        let mut lines = data[self.start..self.end].split(|byte| *byte == b'\n').peekable();
        let mut text = Vec::new();
        while let Some(line) = lines.next() {
            let is_last = lines.peek().is_none();
            let line = if is_last { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
            text.extend_from_slice(trimmed(line));
            if !is_last {
                text.push(b' ');
            }
        }
        text
    }

    fn is_folded(self, data: &[u8]) -> bool {
        data[self.name_end..self.end].contains(&b'\n')
    }
}

/// The name as Go has it by the time it looks at the value: `content-length: x` becomes `Content-Length: x`.
fn canonicalise(text: &mut [u8]) {
    let mut starts_word = true;
    for byte in text.iter_mut().take_while(|byte| **byte != b':') {
        *byte = if starts_word { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
        starts_word = *byte == b'-';
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without spaces and tabs around.
pub fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
