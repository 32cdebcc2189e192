//! Reads an HTTP/1.1 answer in place (RFC 9112), with the verdicts and error texts of Go's client, which
//! kubelet uses. Nothing is allocated for an answer that is neither a redirect nor broken.

use std::borrow::Cow;

use super::body::{Body, BodyProgress};
use super::head::{Head, HeadError, Partial};

/// Reads one answer from pieces of bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    stage: Stage,
    /// An interim answer has come.
    has_begun: bool,
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
    Body(Cow<'static, str>),
}

impl AnswerError {
    /// The connection ended in the middle of something; `in_body` says of what.
    pub fn torn(in_body: bool) -> AnswerError {
        if in_body { AnswerError::Body(EOF.into()) } else { AnswerError::Head(HeadError::Eof) }
    }

    /// Nothing is wrong but that the connection ended: what ended it is the better text.
    pub fn is_torn(&self) -> bool {
        match self {
            AnswerError::Empty => true,
            AnswerError::Head(error) => *error == HeadError::Eof,
            AnswerError::Body(text) => *text == EOF,
        }
    }
}

pub(super) const EOF: &str = "unexpected EOF";

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Head(Partial),
    Body(Body),
}

impl Answer {
    /// An answer of which nothing has come.
    pub fn new() -> Answer {
        Answer { stage: Stage::Head(Partial::default()), has_begun: false }
    }

    /// Whether the head is in and the body is being read.
    pub fn in_body(&self) -> bool {
        matches!(self.stage, Stage::Body(_))
    }

    /// Whether an interim answer has come, and the head of the final one is awaited.
    pub fn is_between_heads(&self) -> bool {
        self.has_begun && !self.in_body()
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
        let mut start = 0;
        loop {
            let partial = match &mut self.stage {
                Stage::Head(partial) => partial,
                Stage::Body(body) => {
                    return match body.read(data, keep).map_err(AnswerError::Body)? {
                        BodyProgress::More => Ok(Progress::More { used: data.len() }),
                        BodyProgress::Done(ending) => Ok(Progress::Done(ending)),
                    };
                }
            };
            let Some(read) = partial.read(&data[start..], false).map_err(AnswerError::Head)? else {
                if room == 0 && start == 0 {
                    return Err(AnswerError::Head(HeadError::TooLong(data.len())));
                }
                return Ok(Progress::More { used: start });
            };
            start += read.len;
            self.has_begun = true;
            let Some(body) = read.body else {
                self.stage = Stage::Head(Partial::default());
                continue;
            };
            self.stage = Stage::Body(body);
            return Ok(Progress::Head { used: start, head: read.head });
        }
    }

    /// The server has closed; `data` as for [`Answer::read`], which has seen it already.
    ///
    /// # Errors
    /// The answer is not complete.
    pub fn end(&self, data: &[u8]) -> Result<Ending, AnswerError> {
        match &self.stage {
            Stage::Body(body) => body.end().map_err(AnswerError::Body),
            Stage::Head(_) if data.is_empty() && !self.has_begun => Err(AnswerError::Empty),
            // The last line needs no end; a head cannot be complete without its empty line.
            Stage::Head(partial) => match partial.clone().read(data, true) {
                Ok(_) => Err(AnswerError::torn(false)),
                Err(error) => Err(AnswerError::Head(error)),
            },
        }
    }
}

impl Default for Answer {
    fn default() -> Answer {
        Answer::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::PROBE_OUTPUT_MAX_BYTES;

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
        for step in [1, 5, wire.len().clamp(1, 8_000)] {
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
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\nX-T: x\r\n\r\n", 200, b"");
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
        let check = |wire: &[u8], text: &str| {
            check_error(wire, &format!("net/http: HTTP/1.x transport connection broken: {text}"));
        };
        check_error(b"", "EOF");
        check(b"HTTP/1.1 100 Continue\r\n\r\n", "unexpected EOF");
        check(b"HTTP/1.1 200 OK\r\n", "unexpected EOF");
        check(b"HTTP/1.1 200 OK\r\nX-A: b\r\n", "unexpected EOF");
        check(b"HTT", "malformed HTTP response \"HTT\"");
        check(b"garbage\r\n", "malformed HTTP response \"garbage\"");
        check(b"\r\nHTTP/1.1 200 OK\r\n", "malformed HTTP response \"\"");
        check(b"\x16\x03\x01\r\n", "malformed HTTP response \"\\x16\\x03\\x01\"");
        check(b"HTTP/1.1 x OK\r\n", "malformed HTTP status code \"x\"");
        check(b"HTTP/1.1 -10 OK\r\n", "malformed HTTP status code \"-10\"");
        check(b"HTTP/1.1 20 OK\r\n", "malformed HTTP status code \"20\"");
        check(b"SSH/2.0 200 OK\r\n", "malformed HTTP version \"SSH/2.0\"");
        check(b"HTTP/1.10 200 OK\r\n", "malformed HTTP version \"HTTP/1.10\"");
        let in_head = |lines: &str, text: &str| {
            check(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n").as_bytes(), text);
        };
        in_head("no colon", "malformed MIME header: missing colon: \"no colon\"");
        in_head(" X: a", "malformed MIME header initial line: \" X: a\"");
        in_head(&format!(" {}", "x".repeat(80)), "message too large");
        let longest = "x".repeat(79);
        in_head(&format!(" {longest}"), &format!("malformed MIME header initial line: \" {longest}\""));
        in_head(": a", "malformed MIME header line: \": a\"");
        in_head("X(A): b", "malformed MIME header line: \"X(A): b\"");
        in_head("X: a\0b", "malformed MIME header line: \"X: a\\x00b\"");
        in_head("X: a\rb", "malformed MIME header line: \"X: a\\rb\"");
        in_head("X(A): b \r\n \t c\r\n d", "malformed MIME header line: \"X(A): b c d\"");
        in_head("Content-Length: x", "bad Content-Length \"x\"");
        in_head("Content-Length: +5", "bad Content-Length \"+5\"");
        in_head("Content-Length: 9223372036854775808", "bad Content-Length \"9223372036854775808\"");
        in_head("Content-Length:", "invalid empty Content-Length \"\"");
        in_head("Content-Length: 5\r\n 6", "bad Content-Length \"5 6\"");
        in_head("Transfer-Encoding: gzip", "unsupported transfer encoding: \"gzip\"");
        in_head(
            "Transfer-Encoding: chunked\r\ntransfer-encoding:chunked",
            "too many transfer encodings: [\"chunked\" \"chunked\"]",
        );
        in_head("Transfer-Encoding: chunked\r\nContent-Length: x", "bad Content-Length \"x\"");
        in_head(
            "Trailer: a, content-length\r\nTransfer-Encoding: chunked",
            "bad trailer key \"Content-Length\"",
        );
        in_head(
            "Content-Length: 1\r\nContent-Length: 2",
            "http: message cannot contain multiple Content-Length headers; got [\"1\" \"2\"]",
        );
    }

    #[test]
    fn odd_heads_that_go_takes() {
        let ok = |head: &str, status, body: &[u8]| {
            check(format!("{head}Content-Length: 1\r\n\r\nx").as_bytes(), status, body);
        };
        ok("HTTP/1.1 +20 OK\r\n", 20, b"x");
        ok("HTTP/2.0 200\r\n", 200, b"x");
        ok("HTTP/1.1   200 a  b\0\r\n", 200, b"x");
        ok("HTTP/1.1 200 OK\nX-A: \u{fc}\n", 200, b"x");
        ok("HTTP/1.1 200 OK\r\nX-A :b\r\nX A: b\r\n", 200, b"x");
        ok("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n", 200, b"x");
        ok("HTTP/1.1 200 OK\r\nX-A: b\r\n \r\n\tc\r\n", 200, b"x");
        ok("HTTP/1.1 200 OK\r\nTrailer: Content-Length\r\n", 200, b"x");
        check(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: x\r\nContent-Length: 1\r\n\r\nx", 200, b"x");
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
        let chunks = |wire: &str, text: &str| {
            check_error(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{wire}").as_bytes(),
                text,
            );
        };
        for torn in ["", "5", "5\r", "5\r\n", "5\r\nhe", "5\r\nhello", "5\r\nhello\r", "5\r\nhelloX", "xyz"] {
            chunks(torn, "unexpected EOF");
        }
        chunks("xyz\r\n", "invalid byte in chunk length");
        chunks(" 5\r\n", "invalid byte in chunk length");
        chunks("5 ;x\r\n", "invalid byte in chunk length");
        chunks("\r\n", "empty hex number for chunk length");
        chunks(";x\r\n", "empty hex number for chunk length");
        chunks("1\r\nabc", "malformed chunked encoding");
        chunks("1\r\na\n0", "malformed chunked encoding");
        chunks("x\n", "chunked line ends with bare LF");
        chunks("5;\r;\r\n", "invalid CR in chunked line");
        chunks("11111111111111111\r\n", "http chunk length too large");
        chunks(&"0".repeat(5_000), "header line too long");
        chunks(
            &format!("1;{}\r\na\r\n", "x".repeat(1_000)).repeat(17),
            "chunked encoding contains too much non-data",
        );
        chunks("0\r\n", "http: unexpected EOF reading trailer");
        chunks("0\r\n\r", "http: unexpected EOF reading trailer");
        chunks("0\r\nX-T: a\r\n", "http: suspiciously long trailer after chunked body");
        chunks("0\r\n\n\n", "http: suspiciously long trailer after chunked body");
        chunks(
            &format!("0\r\n{}", "X: a\r\n".repeat(700)),
            "http: suspiciously long trailer after chunked body",
        );
        chunks("0\r\nX-T a\r\n\r\n", "malformed MIME header: missing colon: \"X-T a\"");
        check(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \t\r\nhello\r\n00;a b\r\nX: y\r\n\r\n",
            200,
            b"hello",
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
            let head = Head {
                status,
                location: location.map(|text: &str| text.as_bytes().into()),
                keeps_connection: true,
            };
            assert_eq!(progress, Progress::Head { used: wire.len(), head });
        }
        let wire = b"HTTP/1.1 302 X\r\nLocation: /\xfc\r\n\r\n";
        let Progress::Head { head, .. } = Answer::new().read(wire, 1, None).unwrap() else {
            panic!("a head")
        };
        assert_eq!(head.location.as_deref(), Some(b"/\xfc".as_slice()), "as it came");
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
            ("HTTP/0.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", false),
            ("HTTP/0.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
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
