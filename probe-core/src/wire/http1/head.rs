//! Heads of answers, as Go's client reads them: status line, header fields, and what they say of the body.

use super::body::Body;
use super::lines::{self, Field, Next};
use super::quote::{quote, quote_all};

/// The part of an answer that decides the verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    pub status: u16,
    /// Value of Location as it came, looked at for 3xx only.
    pub location: Option<Box<[u8]>>,
    /// Whether the connection may serve another request after this answer (RFC 9112, 9.3): HTTP/1.1, no
    /// `Connection: close`, and a body that ends by itself.
    pub keeps_connection: bool,
}

/// What is wrong with a head. Texts in them are quoted already.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    #[error("malformed HTTP response {0}")]
    Response(Box<str>),
    #[error("malformed HTTP version {0}")]
    Version(Box<str>),
    #[error("malformed HTTP status code {0}")]
    StatusCode(Box<str>),
    #[error("malformed MIME header initial line: {0}")]
    InitialLine(Box<str>),
    #[error("message too large")]
    InitialLineTooLong,
    #[error("malformed MIME header: missing colon: {0}")]
    NoColon(Box<str>),
    #[error("malformed MIME header line: {0}")]
    HeaderLine(Box<str>),
    #[error("too many transfer encodings: {0}")]
    TransferEncodings(Box<str>),
    #[error("unsupported transfer encoding: {0}")]
    TransferEncoding(Box<str>),
    #[error("http: message cannot contain multiple Content-Length headers; got {0}")]
    ContentLengths(Box<str>),
    #[error("invalid empty Content-Length \"\"")]
    NoContentLength,
    #[error("bad Content-Length {0}")]
    ContentLength(Box<str>),
    #[error("bad trailer key {0}")]
    TrailerKey(Box<str>),
    #[error("unexpected EOF")]
    Eof,
    /// Go's limit is 10 MiB, ours is the slot's buffer.
    #[error("net/http: server response headers exceeded {0} bytes; aborted")]
    TooLong(usize),
}

/// A head of which a part has been read. It stands at the beginning of the caller's bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Partial {
    /// Where the line begins that is to be read next.
    at: usize,
    /// Up to here that line has no end.
    searched: usize,
    status: Option<Status>,
    fields: Fields,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Status {
    code: u16,
    /// HTTP's major and minor version.
    version: (u8, u8),
    /// The version says it: it is below 1.0.
    is_last: bool,
    /// Where the fields begin.
    end: usize,
}

/// The fields that matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Fields {
    location: Option<Field>,
    content_length: Option<Field>,
    content_lengths: u16,
    transfer_encoding: Option<Field>,
    transfer_encodings: u16,
    has_trailer: bool,
    has_upgrade: bool,
    says_close: bool,
    says_upgrade: bool,
}

/// A head that is in.
pub struct Read {
    /// Length with its empty line.
    pub len: usize,
    pub head: Head,
    /// None for an interim answer (1xx): the final one follows.
    pub body: Option<Body>,
}

impl Partial {
    /// Goes on with `data`, which begins with the head. `is_over`: the peer has closed, no more bytes come. None: more are
    /// needed.
    pub fn read(&mut self, data: &[u8], is_over: bool) -> Result<Option<Read>, HeadError> {
        let status = match self.status {
            Some(status) => status,
            None => {
                let Some((line, end)) = lines::line(data, 0, self.searched, is_over) else {
                    self.searched = data.len();
                    return if is_over { Err(HeadError::Eof) } else { Ok(None) };
                };
                let status = status(line, end)?;
                self.status = Some(status);
                self.at = end;
                status
            }
        };
        loop {
            match lines::next(data, self.at, self.searched, self.at == status.end, is_over)? {
                Next::Field { field, used } => {
                    self.fields.note(data, field);
                    self.at = used;
                }
                Next::End { used } => return self.describe(data, status, used).map(Some),
                Next::More => {
                    self.searched = self.at.max(if self.is_line_open(data) { data.len() } else { 0 });
                    return Ok(None);
                }
            }
        }
    }

    /// Whether the line at hand has no end yet: then its bytes need not be searched again.
    fn is_line_open(&self, data: &[u8]) -> bool {
        !data[self.searched.max(self.at)..].contains(&b'\n')
    }

    /// Everything that a whole head says, and Go's objections to it, in its order.
    fn describe(&self, data: &[u8], status: Status, len: usize) -> Result<Read, HeadError> {
        let fields = &self.fields;
        let is_1_1 = status.version >= (1, 1);
        let is_chunked = is_1_1 && fields.is_chunked(data, status.end)?;
        let length = fields.length(data, status.end)?;
        if is_chunked && fields.has_trailer {
            check_trailer(data, status.end)?;
        }
        let code = status.code;
        let is_interim = (100..200).contains(&code) && code != 101;
        let has_body = !matches!(code, 100..200 | 204 | 304);
        let body = match (has_body, is_chunked, length) {
            // What the connection is for now is not HTTP; it is read to its end all the same.
            (false, ..) if code == 101 && fields.has_upgrade && fields.says_upgrade => Body::until_close(),
            (false, ..) => Body::none(),
            (true, true, _) => Body::chunked(),
            (true, false, Some(length)) => Body::of_length(length),
            (true, false, None) => Body::until_close(),
        };
        let location = fields.location.filter(|_| (300..400).contains(&code)).map(|field| field.value(data));
        let location = location.filter(|value| !value.is_empty());
        let location = location.map(|value| value[..].into());
        let keeps_connection =
            is_1_1 && !status.is_last && !fields.says_close && code != 101 && !body.is_until_close();
        let head = Head { status: code, location, keeps_connection };
        Ok(Read { len, head, body: (!is_interim).then_some(body) })
    }
}

/// The status line in Go's order of checks. `end` is where the next line begins.
fn status(line: &[u8], end: usize) -> Result<Status, HeadError> {
    let Some(space) = line.iter().position(|byte| *byte == b' ') else {
        return Err(HeadError::Response(quote(line).into()));
    };
    let (version, rest) = line.split_at(space);
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let code = rest[spaces..].split(|byte| *byte == b' ').next().unwrap_or_default();
    // Go reads an integer with its sign, of three characters all the same.
    let digits = code.strip_prefix(b"+").unwrap_or(code);
    let is_number = code.len() == 3 && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    // Minus zero is a number that is not negative.
    let number = if code == b"-00" { Some(0) } else { number };
    let Some(code) = number else { return Err(HeadError::StatusCode(quote(code).into())) };
    let version = match version {
        b"HTTP/1.1" => (1, 1),
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] => {
            (major - b'0', minor - b'0')
        }
        _ => return Err(HeadError::Version(quote(version).into())),
    };
    let is_last = version.0 < 1;
    // Go takes 0.0 for a version that was not given, but only once it has decided about the connection.
    let version = if version == (0, 0) { (1, 1) } else { version };
    Ok(Status { code, version, is_last, end })
}

impl Fields {
    fn note(&mut self, data: &[u8], field: Field) {
        let name = field.name(data);
        // Most fields are none of these: the length tells.
        match name.len() {
            7 if field.is(data, "Trailer") => self.has_trailer = true,
            7 if field.is(data, "Upgrade") => self.has_upgrade |= !field.value(data).is_empty(),
            8 if field.is(data, "Location") => self.location = self.location.or(Some(field)),
            10 if field.is(data, "Connection") => self.note_connection(&field.value(data)),
            14 if field.is(data, "Content-Length") => {
                self.content_length = self.content_length.or(Some(field));
                self.content_lengths += 1;
            }
            17 if field.is(data, "Transfer-Encoding") => {
                self.transfer_encoding = self.transfer_encoding.or(Some(field));
                self.transfer_encodings += 1;
            }
            _ => {}
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',').map(lines::trimmed) {
            self.says_close |= token.eq_ignore_ascii_case(b"close");
            self.says_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
    }

    /// One coding, and that one: everything else is how requests are smuggled.
    fn is_chunked(&self, data: &[u8], start: usize) -> Result<bool, HeadError> {
        let Some(field) = self.transfer_encoding else { return Ok(false) };
        if self.transfer_encodings > 1 {
            let values = values(data, start, "Transfer-Encoding");
            return Err(HeadError::TransferEncodings(quote_all(values.iter().map(Vec::as_slice)).into()));
        }
        let value = field.value(data);
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(true);
        }
        Err(HeadError::TransferEncoding(quote(&value).into()))
    }

    /// The length that is announced, also where it does not count.
    fn length(&self, data: &[u8], start: usize) -> Result<Option<u64>, HeadError> {
        let Some(field) = self.content_length else { return Ok(None) };
        if self.content_lengths > 1 {
            let values = values(data, start, "Content-Length");
            let mut trimmed = values.iter().map(|value| lines::trimmed(value));
            let first = trimmed.next();
            if trimmed.any(|other| Some(other) != first) {
                return Err(HeadError::ContentLengths(quote_all(values.iter().map(Vec::as_slice)).into()));
            }
        }
        match field.simple_value(data) {
            Some(value) => length(value),
            None => length(lines::trimmed(&field.value(data))),
        }
    }
}

/// 63 bits, digits only.
fn length(value: &[u8]) -> Result<Option<u64>, HeadError> {
    if value.is_empty() {
        return Err(HeadError::NoContentLength);
    }
    let is_number = value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    match number.filter(|number| i64::try_from(*number).is_ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(HeadError::ContentLength(quote(value).into())),
    }
}

/// Every value of a name, for an error text.
fn values(data: &[u8], start: usize, name: &str) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut at = start;
    // They were read once without an error.
    while let Ok(Next::Field { field, used }) = lines::next(data, at, 0, at == start, true) {
        if field.is(data, name) {
            all.push(field.value(data));
        }
        at = used;
    }
    all
}

/// A trailer may not announce what frames the body.
fn check_trailer(data: &[u8], start: usize) -> Result<(), HeadError> {
    const FORBIDDEN: [&str; 3] = ["Transfer-Encoding", "Trailer", "Content-Length"];
    for value in values(data, start, "Trailer") {
        for key in value.split(|byte| *byte == b',').map(lines::trimmed) {
            if let Some(name) = FORBIDDEN.iter().find(|name| key.eq_ignore_ascii_case(name.as_bytes())) {
                return Err(HeadError::TrailerKey(quote(name.as_bytes()).into()));
            }
        }
    }
    Ok(())
}
