//! Any bytes as the answer to an HTTP probe, fed the way the engine feeds them: into a buffer of a slot's size, as many
//! as there is room for, with what was used dropped in between.
//!
//! An input is one byte of choices, two bytes that decide the pieces, and the bytes of the wire.

use probe_core::decide::target::{Follow, follow};
use probe_core::model::limits::{HTTP_REQUESTS_MAX, PROBE_OUTPUT_MAX_BYTES, SLOT_BUFFER_BYTES};
use probe_core::model::probe::{Host, HttpTarget};
use probe_core::wire::http1::{self, Answer, AnswerError, Ending, Head, Progress};
use probe_core::wire::{headers, url};

/// A byte that cannot be printed becomes six (`\u{1f}`), and no error text says more than a whole buffer.
const ERROR_TEXT_MAX_BYTES: usize = 8 * SLOT_BUFFER_BYTES;
/// Longest piece that the pieces of a seed have.
const PIECE_MAX: usize = 512;
/// Longest wire that is also fed byte by byte: longer ones would take the fuzzer's time.
const SINGLE_MAX_BYTES: usize = 4_096;
/// What follows the wire: the server's FIN, or nothing yet.
const ENDS: u8 = 1;

/// How the bytes come.
#[derive(Copy, Clone, Debug)]
enum Pieces {
    /// As many at a time as there is room for.
    Whole,
    Single,
    Seeded(u16),
}

/// Whose body bytes are kept.
#[derive(Copy, Clone, PartialEq, Debug)]
enum Keep {
    Always,
    Never,
    /// The engine's rule: those of a 3xx answer.
    Redirects,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
struct Read {
    heads: Vec<Head>,
    kept: Vec<u8>,
    /// None: more bytes are awaited.
    end: Option<Result<Ending, AnswerError>>,
}

/// Reads one input; panics when something that must hold does not.
pub fn check(input: &[u8]) {
    let [choices, seed_high, seed_low, wire @ ..] = input else { return };
    let ends = choices & ENDS != 0;
    let seed = u16::from_be_bytes([*seed_high, *seed_low]);
    let expected = feed(wire, ends, Pieces::Whole, Keep::Always);
    for (pieces, keep) in [
        (
            if wire.len() <= SINGLE_MAX_BYTES { Pieces::Single } else { Pieces::Seeded(seed ^ 1) },
            Keep::Always,
        ),
        (Pieces::Seeded(seed), Keep::Always),
        (Pieces::Whole, Keep::Never),
        (Pieces::Seeded(!seed), Keep::Redirects),
    ] {
        let read = feed(wire, ends, pieces, keep);
        assert_eq!((&read.heads, &read.end), (&expected.heads, &expected.end), "{pieces:?}, {keep:?}");
        let keeps = match keep {
            Keep::Always => true,
            Keep::Never => false,
            Keep::Redirects => read.heads.last().is_some_and(|head| is_redirect(head.status)),
        };
        let kept = if keeps { expected.kept.as_slice() } else { &[] };
        assert_eq!(read.kept, kept, "{pieces:?}, {keep:?}");
    }
    if let Some(location) = expected.heads.last().and_then(|head| head.location.as_deref()) {
        follow_on(location);
    }
}

fn is_redirect(status: u16) -> bool {
    (300..400).contains(&status)
}

/// As `engine::http` does it, without a ring.
fn feed(wire: &[u8], ends: bool, pieces: Pieces, keep: Keep) -> Read {
    let mut answer = Answer::new();
    let mut read = Read { heads: Vec::new(), kept: Vec::new(), end: None };
    let mut buffer: Vec<u8> = Vec::with_capacity(SLOT_BUFFER_BYTES);
    let mut left = wire;
    let mut random = match pieces {
        Pieces::Seeded(seed) => u32::from(seed) | 1 << 16,
        Pieces::Whole | Pieces::Single => 0,
    };
    while !left.is_empty() {
        let wanted = match pieces {
            Pieces::Whole => usize::MAX,
            Pieces::Single => 1,
            Pieces::Seeded(_) => next_piece(&mut random),
        };
        let room = SLOT_BUFFER_BYTES - buffer.len();
        assert!(room > 0, "a receive without room would read as the end");
        let (piece, rest) = left.split_at(left.len().min(wanted).min(room));
        buffer.extend_from_slice(piece);
        left = rest;
        read.end = take(&mut answer, &mut buffer, keep, &mut read);
        if read.end.is_some() {
            break;
        }
    }
    if ends && read.end.is_none() {
        read.end = Some(answer.end(&buffer));
    }
    if let Some(Err(error)) = &read.end {
        assert!(error.to_string().len() <= ERROR_TEXT_MAX_BYTES, "the text of an error has no bound");
    }
    assert!(read.kept.len() <= PROBE_OUTPUT_MAX_BYTES, "{} bytes are kept", read.kept.len());
    assert!(read.heads.len() <= 1, "more than one final head");
    read
}

/// Everything that can be read of the buffer. None: more is needed.
fn take(
    answer: &mut Answer,
    buffer: &mut Vec<u8>,
    keep: Keep,
    read: &mut Read,
) -> Option<Result<Ending, AnswerError>> {
    loop {
        let keeps = match keep {
            Keep::Always => true,
            Keep::Never => false,
            Keep::Redirects => read.heads.last().is_some_and(|head| is_redirect(head.status)),
        };
        let room = SLOT_BUFFER_BYTES - buffer.len();
        match answer.read(buffer, room, keeps.then_some(&mut read.kept)) {
            Ok(Progress::More { used }) => {
                buffer.drain(..used);
                return None;
            }
            Ok(Progress::Head { used, head }) => {
                assert!(head.status < 1_000, "status {}", head.status);
                assert!(head.location.is_none() || is_redirect(head.status));
                assert!(answer.in_body());
                buffer.drain(..used);
                read.heads.push(head);
            }
            Ok(Progress::Done(ending)) => return Some(Ok(ending)),
            Err(error) => return Some(Err(error)),
        }
    }
}

/// From 1 to `PIECE_MAX`, most of them short (xorshift).
fn next_piece(random: &mut u32) -> usize {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    let longest = PIECE_MAX >> (*random >> 16 & 7);
    1 + (*random as usize) % longest
}

/// Follows a redirect that leads to the same place again and again, as far as a run goes.
fn follow_on(location: &[u8]) {
    let first = target("10.0.0.1", 8080, "/a/b?x=y");
    let mut current = first.clone();
    for requests in 1..HTTP_REQUESTS_MAX {
        match follow(&first, &current, 302, location, requests) {
            Follow::Next(next) => {
                check_request(&next);
                current = *next;
            }
            Follow::NotFollowed => return,
            Follow::Failed(text) => {
                let bound = ERROR_TEXT_MAX_BYTES + 4 * current.url.len();
                assert!(text.len() <= bound, "the text of an error has no bound");
                return;
            }
        }
    }
}

/// The headers that a probe without headers of its own sends, redirected or not.
const KNOWN: [&str; 5] = ["Accept", "Connection", "Host", "Referer", "User-Agent"];

/// A server cannot add lines to our requests, nor send us elsewhere.
fn check_request(target: &HttpTarget) {
    assert_eq!(target.host, Host::Ip([10, 0, 0, 1].into()), "another host");
    let request = &target.request[..];
    let head = request.strip_suffix(b"\r\n\r\n").expect("ends with an empty line");
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').collect();
    let mut names: Vec<Box<str>> = http1::headers_of(request).into_iter().map(|(name, _)| name).collect();
    assert_eq!(lines.len(), names.len() + 1, "a line that is no header");
    names.sort_unstable();
    assert!(names.is_sorted_by(|a, b| a < b), "a header twice: {names:?}");
    assert!(names.iter().all(|name| KNOWN.contains(&&**name)), "headers were added: {names:?}");
    for (at, line) in lines.iter().enumerate() {
        let line = if at + 1 == lines.len() { line } else { line.strip_suffix(b"\r").expect("CR before LF") };
        assert!(line.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f), "control characters in a request");
    }
    assert!(request.starts_with(b"GET /") && lines[0].ends_with(b" HTTP/1.1\r"));
}

fn target(host: &str, port: u16, path: &str) -> HttpTarget {
    let url = url::Url::for_probe(url::Scheme::Http, host, port, path).expect("a good URL");
    let lines = headers::request_headers(&[], url.authority(), headers::AGENT_PROBE).expect("good headers");
    HttpTarget {
        host: url::host_of(url.host_name()),
        port,
        request: http1::request(&url.request_target(), &lines),
        url: url.text().into(),
        special: None,
    }
}
