//! Reads an HTTP/1.1 answer in place (RFC 9112), with the verdicts and error texts of Go's client, which
//! kubelet uses. Nothing is allocated for an answer that is neither a redirect nor broken.

use std::fmt;

use crate::model::limits::PROBE_OUTPUT_MAX_BYTES;

use super::body::{Body, BodyProgress};

/// Header lines that are parsed without allocating; answers with more of them are parsed with a table on
/// the heap.
const HEADERS_INLINE: usize = 64;
/// A header line has at least four bytes (`a:` and the line end), so no head has more lines than this.
const HEADERS_MAX: usize = crate::model::limits::SLOT_BUFFER_BYTES / 4;

/// Reads one answer from pieces of bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    stage: Stage,
    /// Bytes of the head that were searched for its end already.
    searched: usize,
}

/// What the bytes so far say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More bytes are needed. The first `used` of those shown will not be looked at again.
    More { used: usize },
    /// A final status line and its headers are in; the body follows from byte `used` on.
    Head { used: usize, head: Head },
    /// The answer is complete, or as much of its body as counts.
    Done(Ending),
}

/// The part of an answer that decides the verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    pub status: u16,
    /// Value of Location, looked at for 3xx only.
    pub location: Option<Box<str>>,
    /// Whether the connection may serve another request after this answer (RFC 9112, 9.3): HTTP/1.1, no
    /// `Connection: close`, and a body that ends by itself.
    pub keeps_connection: bool,
}

/// How an answer ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Everything that the server announced is in; only its FIN may follow.
    Complete,
    /// 10,240 bytes of the body are in; the rest is not read (kubelet-semantics 4.4).
    LimitReached,
}

/// Why an answer cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerError {
    /// The connection ended before the first byte.
    #[error("EOF")]
    Empty,
    /// The head is broken: the run fails.
    #[error("net/http: HTTP/1.x transport connection broken: {0}")]
    Head(HeadError),
    /// The body is broken: the run could not be judged (kubelet-semantics 4.4).
    #[error("{0}")]
    Body(&'static str),
}

impl AnswerError {
    /// The connection ended in the middle of something; `in_body` says of what.
    pub fn torn(in_body: bool) -> AnswerError {
        if in_body { AnswerError::Body("unexpected EOF") } else { AnswerError::Head(HeadError::Eof) }
    }
}

/// What is wrong with a head.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    #[error("malformed HTTP response {0}")]
    Response(Quoted),
    #[error("malformed HTTP version {0}")]
    Version(Quoted),
    #[error("malformed HTTP status code {0}")]
    StatusCode(Quoted),
    #[error("malformed MIME header line: {0}")]
    HeaderLine(Box<str>),
    #[error("unsupported transfer encoding: {0}")]
    TransferEncoding(Quoted),
    #[error("bad Content-Length {0}")]
    ContentLength(Quoted),
    #[error("http: message cannot contain multiple Content-Length headers; got {0}")]
    ContentLengths(Box<str>),
    #[error("unexpected EOF")]
    Eof,
    /// Go's limit is 10 MiB, ours is the slot's buffer.
    #[error("net/http: server response headers exceeded {0} bytes; aborted")]
    TooLong(usize),
}

/// A piece of an answer in double quotes, what cannot be printed escaped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quoted(Box<str>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// No complete line yet.
    StatusLine,
    /// The status line is well formed; its end and the headers are awaited.
    Headers,
    Body(Body),
}

impl Answer {
    /// An answer of which nothing has come.
    pub const fn new() -> Answer {
        Answer { stage: Stage::StatusLine, searched: 0 }
    }

    /// Whether the head is in and the body is being read.
    pub fn in_body(&self) -> bool {
        matches!(self.stage, Stage::Body(_))
    }

    /// Goes on with `data`: all bytes that have come and were not used. Body bytes that count are appended to
    /// `keep`, if given. `room` is how many more bytes the caller could hold behind `data`.
    ///
    /// # Errors
    /// The answer is not HTTP, or its head has no place in the caller's buffer.
    pub fn read(
        &mut self,
        data: &[u8],
        room: usize,
        keep: Option<&mut Vec<u8>>,
    ) -> Result<Progress, AnswerError> {
        if let Stage::Body(body) = &mut self.stage {
            return match body.read(data, keep).map_err(AnswerError::Body)? {
                BodyProgress::More => Ok(Progress::More { used: data.len() }),
                BodyProgress::Done(ending) => Ok(Progress::Done(ending)),
            };
        }
        self.read_head(data, room).map_err(AnswerError::Head)
    }

    /// The server has closed; `data` as for [`Answer::read`], which has seen it already.
    ///
    /// # Errors
    /// The answer is not complete.
    pub fn end(&self, data: &[u8]) -> Result<Ending, AnswerError> {
        match &self.stage {
            Stage::Body(body) => body.end().map_err(AnswerError::Body),
            Stage::StatusLine if data.is_empty() => Err(AnswerError::Empty),
            Stage::StatusLine | Stage::Headers => Err(AnswerError::Head(HeadError::Eof)),
        }
    }

    fn read_head(&mut self, data: &[u8], room: usize) -> Result<Progress, HeadError> {
        let mut start = 0;
        loop {
            let rest = &data[start..];
            if self.stage == Stage::StatusLine
                && let Some(offset) = rest[self.searched..].iter().position(|byte| *byte == b'\n')
            {
                check_status_line(&rest[..self.searched + offset])?;
                self.stage = Stage::Headers;
            }
            let Some(len) = head_end(rest, self.searched) else {
                // The last three bytes may be the beginning of the end.
                self.searched = rest.len().saturating_sub(3);
                if room == 0 && start == 0 {
                    return Err(HeadError::TooLong(data.len()));
                }
                return Ok(Progress::More { used: start });
            };
            let parsed = parse_head(&rest[..len])?;
            self.searched = 0;
            start += len;
            if let Some((head, body)) = parsed {
                self.stage = Stage::Body(body);
                return Ok(Progress::Head { used: start, head });
            }
            // An interim answer (1xx): the final one follows.
            self.stage = Stage::StatusLine;
        }
    }
}

impl Default for Answer {
    fn default() -> Answer {
        Answer::new()
    }
}

impl Quoted {
    fn new(bytes: &[u8]) -> Quoted {
        let text = String::from_utf8_lossy(bytes);
        Quoted(format!("\"{}\"", text.escape_debug()).replace("\\'", "'").into())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Length of the head including its empty line, looking from byte `from` on.
fn head_end(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(offset) = data[at..].iter().position(|byte| *byte == b'\n') {
        at += offset + 1;
        match &data[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Go's checks of the status line, in its order and words.
fn check_status_line(line: &[u8]) -> Result<(), HeadError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(space) = line.iter().position(|byte| *byte == b' ') else {
        return Err(HeadError::Response(Quoted::new(line)));
    };
    let (version, rest) = line.split_at(space);
    let rest = rest.trim_ascii_start();
    let code = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
    if code.len() != 3 || !code.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::StatusCode(Quoted::new(code)));
    }
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => Ok(()),
        _ => Err(HeadError::Version(Quoted::new(version))),
    }
}

/// Reads a whole head; None for an interim answer.
fn parse_head(head: &[u8]) -> Result<Option<(Head, Body)>, HeadError> {
    let mut inline = [httparse::EMPTY_HEADER; HEADERS_INLINE];
    match parse_with(head, &mut inline) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut table = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
            parse_with(head, &mut table).map_err(|_| bad_header_line(head))?
        }
        Err(_) => return Err(bad_header_line(head)),
        Ok(parsed) => parsed,
    }
    .transpose()
}

type Parsed = Option<Result<(Head, Body), HeadError>>;

fn parse_with<'b>(head: &'b [u8], headers: &mut [httparse::Header<'b>]) -> Result<Parsed, httparse::Error> {
    let mut response = httparse::Response::new(headers);
    let mut config = httparse::ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true);
    if config.parse_response(&mut response, head)?.is_partial() {
        return Err(httparse::Error::HeaderName);
    }
    let status = response.code.unwrap_or_default();
    if (100..200).contains(&status) && status != 101 {
        return Ok(None);
    }
    let is_1_1 = response.version == Some(1);
    Ok(Some(describe(status, is_1_1, response.headers)))
}

fn describe(status: u16, is_1_1: bool, headers: &[httparse::Header<'_>]) -> Result<(Head, Body), HeadError> {
    let has_no_body = matches!(status, 101 | 204 | 304);
    let body = if has_no_body { Body::none() } else { framing(headers)? };
    let location = if (300..400).contains(&status) { first(headers, "Location") } else { None };
    let location = location.map(|value| String::from_utf8_lossy(value.trim_ascii()).into());
    let says_close = values(headers, "Connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
    let keeps_connection = is_1_1 && !says_close && status != 101 && !body.is_until_close();
    Ok((Head { status, location, keeps_connection }, body))
}

/// How the body ends (RFC 9112, 6.3): chunked, by length, or with the connection.
fn framing(headers: &[httparse::Header<'_>]) -> Result<Body, HeadError> {
    if let Some(encoding) = first(headers, "Transfer-Encoding") {
        let encoding = encoding.trim_ascii();
        if !encoding.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::TransferEncoding(Quoted::new(encoding)));
        }
        return Ok(Body::chunked());
    }
    let mut lengths = values(headers, "Content-Length").map(<[u8]>::trim_ascii);
    let Some(length) = lengths.next() else { return Ok(Body::until_close()) };
    if lengths.any(|other| other != length) {
        let all: Vec<String> = values(headers, "Content-Length")
            .map(|value| format!("\"{}\"", String::from_utf8_lossy(value.trim_ascii()).escape_debug()))
            .collect();
        return Err(HeadError::ContentLengths(format!("[{}]", all.join(" ")).into()));
    }
    let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(length).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    match number {
        Some(number) => Ok(Body::of_length(number)),
        None => Err(HeadError::ContentLength(Quoted::new(length))),
    }
}

fn values<'a>(headers: &'a [httparse::Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn first<'a>(headers: &'a [httparse::Header<'_>], name: &'a str) -> Option<&'a [u8]> {
    values(headers, name).next()
}

/// The first header line that is none, for the error text.
fn bad_header_line(head: &[u8]) -> HeadError {
    let is_bad = |line: &&[u8]| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        name.len() == line.len() || name.is_empty() || !name.iter().all(is_token)
    };
    let lines =
        head.split(|byte| *byte == b'\n').skip(1).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut lines = lines.filter(|line| !line.is_empty());
    let bad = lines.clone().find(is_bad).or_else(|| lines.next()).unwrap_or_default();
    HeadError::HeaderLine(String::from_utf8_lossy(&bad[..bad.len().min(PROBE_OUTPUT_MAX_BYTES)]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `wire` in pieces of `step` bytes and then its end, as a caller with a 16 KiB buffer does; says
    /// status, kept body and how it ended.
    fn run(wire: &[u8], step: usize) -> (Option<u16>, Vec<u8>, Result<Ending, AnswerError>) {
        let mut answer = Answer::new();
        let (mut buffer, mut kept, mut status) = (Vec::new(), Vec::new(), None);
        for piece in wire.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                let room = crate::model::limits::SLOT_BUFFER_BYTES - buffer.len();
                match answer.read(&buffer, room, Some(&mut kept)) {
                    Ok(Progress::More { used }) => {
                        buffer.drain(..used);
                        break;
                    }
                    Ok(Progress::Head { used, head }) => {
                        buffer.drain(..used);
                        status = Some(head.status);
                    }
                    Ok(Progress::Done(ending)) => return (status, kept, Ok(ending)),
                    Err(error) => return (status, kept, Err(error)),
                }
            }
        }
        let end = answer.end(&buffer);
        (status, kept, end)
    }

    #[track_caller]
    fn check(wire: &[u8], status: u16, body: &[u8]) {
        for step in [1, 2, 7, wire.len()] {
            let (got_status, got_body, end) = run(wire, step);
            assert_eq!((got_status, end), (Some(status), Ok(Ending::Complete)), "in steps of {step}");
            assert_eq!(got_body, body, "in steps of {step}");
        }
    }

    #[track_caller]
    fn check_error(wire: &[u8], text: &str) {
        for step in [1, 5, wire.len().max(1)] {
            let (_, _, end) = run(wire, step);
            assert_eq!(end.map_err(|error| error.to_string()), Err(text.to_owned()), "in steps of {step}");
        }
    }

    #[test]
    fn answers_are_read_whatever_the_pieces() {
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello");
        check(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b"");
        check(b"HTTP/1.0 200 OK\n\nuntil close", 200, b"until close");
        check(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"");
        check(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 101, b"");
        check(
            b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            503,
            b"abcde",
        );
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", 200, b"");
        check(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x");
        check(b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 1\r\n\r\nx", 200, b"x");
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 200, b"x");
        check(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 999, b"");
    }

    #[test]
    fn many_headers_are_read() {
        let mut wire = b"HTTP/1.1 200 OK\r\n".to_vec();
        (0..1_000).for_each(|n| wire.extend_from_slice(format!("X-{n}: v\r\n").as_bytes()));
        wire.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        check(&wire, 200, b"");
    }

    #[test]
    fn broken_heads_have_gos_words() {
        let broken = "net/http: HTTP/1.x transport connection broken: ";
        check_error(b"", "EOF");
        check_error(b"HTTP/1.1 200 OK\r\nContent-", &format!("{broken}unexpected EOF"));
        check_error(b"HTT", &format!("{broken}unexpected EOF"));
        check_error(b"garbage\r\n", &format!("{broken}malformed HTTP response \"garbage\""));
        check_error(b"HTTP/1.1 x OK\r\n", &format!("{broken}malformed HTTP status code \"x\""));
        check_error(b"HTTP/1.1 -1 OK\r\n", &format!("{broken}malformed HTTP status code \"-1\""));
        check_error(b"HTTP/1.1 20 OK\r\n", &format!("{broken}malformed HTTP status code \"20\""));
        check_error(b"SSH/2.0 200 OK\r\n", &format!("{broken}malformed HTTP version \"SSH/2.0\""));
        check_error(
            b"\x16\x03\x01\r\n",
            &format!("{broken}malformed HTTP response \"\\u{{16}}\\u{{3}}\\u{{1}}\""),
        );
        check_error(
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            &format!("{broken}malformed MIME header line: no colon"),
        );
        check_error(
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            &format!("{broken}bad Content-Length \"x\""),
        );
        check_error(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            &format!("{broken}unsupported transfer encoding: \"gzip\""),
        );
        check_error(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            &format!(
                "{broken}http: message cannot contain multiple Content-Length headers; got [\"1\" \"2\"]"
            ),
        );
    }

    #[test]
    fn an_endless_head_ends_with_the_buffer() {
        let wire = [b"HTTP/1.1 200 OK\r\n".as_slice(), b"X-A: b\r\n".repeat(4_000).as_slice()].concat();
        for step in [1, 1_024, 16_384] {
            let (_, _, end) = run(&wire, step);
            let text = end.unwrap_err().to_string();
            assert!(text.ends_with("server response headers exceeded 16384 bytes; aborted"), "{text}");
        }
    }

    #[test]
    fn bodies_that_break_cannot_be_judged() {
        check_error(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "unexpected EOF");
        check_error(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", "unexpected EOF");
        check_error(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "invalid byte in chunk length",
        );
        check_error(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            "malformed chunked encoding",
        );
        check_error(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
            "http chunk length too large",
        );
    }

    #[test]
    fn the_body_counts_up_to_its_limit() {
        for (id, len, ending) in [
            ("HTTP-33", PROBE_OUTPUT_MAX_BYTES - 1, Ending::Complete),
            ("HTTPX-10", PROBE_OUTPUT_MAX_BYTES, Ending::LimitReached),
            ("HTTP-32", PROBE_OUTPUT_MAX_BYTES + 1, Ending::LimitReached),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
            let by_length = [head.as_bytes(), &vec![b'a'; len]].concat();
            let to_close = [b"HTTP/1.1 200 OK\r\n\r\n", vec![b'a'; len].as_slice()].concat();
            for wire in [by_length, to_close] {
                let (_, body, end) = run(&wire, 1_000);
                assert_eq!((body.len(), end), (len.min(PROBE_OUTPUT_MAX_BYTES), Ok(ending)), "{id}");
            }
        }
    }

    #[test]
    fn location_is_found_in_redirects_only() {
        for (status, location) in [(302, Some("/new")), (200, None)] {
            let wire = format!("HTTP/1.1 {status} X\r\nLOCATION:  /new \r\nContent-Length: 0\r\n\r\n");
            let progress = Answer::new().read(wire.as_bytes(), 1, None).unwrap();
            let head = Head { status, location: location.map(Box::from), keeps_connection: true };
            assert_eq!(progress, Progress::Head { used: wire.len(), head });
        }
    }

    #[test]
    fn connections_that_may_be_kept() {
        for (wire, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("HTTP/1.1 204 No\r\nConnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nconnection: x, Close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", false),
            ("HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\n", false),
        ] {
            let progress = Answer::new().read(wire.as_bytes(), 1, None).unwrap();
            let Progress::Head { head, .. } = progress else { panic!("{wire}: {progress:?}") };
            assert_eq!(head.keeps_connection, keeps, "{wire}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_end_the_same(wire: Vec<u8>, step in 1_usize..9) {
            let seeded = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &wire].concat();
            for wire in [wire, seeded] {
                proptest::prop_assert_eq!(run(&wire, step), run(&wire, wire.len().max(1)));
            }
        }
    }
}
