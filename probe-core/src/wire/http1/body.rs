//! Bodies of answers: by length, in chunks, or until the connection closes.

use crate::model::limits::PROBE_OUTPUT_MAX_BYTES;

use super::answer::Ending;

/// How much of a body is still to come, in its framing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    framing: Framing,
    /// Bytes that still count (kubelet-semantics 4.4).
    counted_left: usize,
}

pub enum BodyProgress {
    /// All bytes shown are used.
    More,
    Done(Ending),
}

const EOF: &str = "unexpected EOF";

#[derive(Clone, PartialEq, Eq, Debug)]
enum Framing {
    Length(u64),
    UntilClose,
    Chunked(Chunk),
}

/// Where in the chunked coding (RFC 9112, 7.1) the next byte stands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Chunk {
    Size {
        value: u64,
        digits: u8,
    },
    /// Behind the size digits: extensions, up to the line end.
    Extension {
        value: u64,
    },
    Data {
        left: u64,
    },
    /// The line end behind the data.
    DataEnd {
        seen_cr: bool,
    },
    /// Trailer lines, up to an empty one.
    Trailer {
        line_len: usize,
    },
}

impl Body {
    pub const fn none() -> Body {
        Body::of_length(0)
    }

    pub const fn of_length(length: u64) -> Body {
        Body::new(Framing::Length(length))
    }

    pub const fn until_close() -> Body {
        Body::new(Framing::UntilClose)
    }

    /// Whether only the end of the connection ends it.
    pub fn is_until_close(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    pub const fn chunked() -> Body {
        Body::new(Framing::Chunked(Chunk::Size { value: 0, digits: 0 }))
    }

    const fn new(framing: Framing) -> Body {
        Body { framing, counted_left: PROBE_OUTPUT_MAX_BYTES }
    }

    /// Goes on with the next bytes; those that count are appended to `keep`, if given.
    pub fn read(&mut self, data: &[u8], keep: Option<&mut Vec<u8>>) -> Result<BodyProgress, &'static str> {
        let mut count = Counter { left: &mut self.counted_left, keep };
        match &mut self.framing {
            Framing::Length(left) => {
                let taken = clamp(*left, data.len());
                *left -= taken as u64;
                count.take(&data[..taken]);
                if *count.left > 0 && *left == 0 {
                    return Ok(BodyProgress::Done(Ending::Complete));
                }
            }
            Framing::UntilClose => count.take(data),
            Framing::Chunked(chunk) => {
                if chunk.read(data, &mut count)? {
                    return Ok(BodyProgress::Done(Ending::Complete));
                }
            }
        }
        if self.counted_left == 0 {
            return Ok(BodyProgress::Done(Ending::LimitReached));
        }
        Ok(BodyProgress::More)
    }

    /// The connection has ended.
    pub fn end(&self) -> Result<Ending, &'static str> {
        match self.framing {
            Framing::UntilClose | Framing::Length(0) => Ok(Ending::Complete),
            Framing::Length(_) | Framing::Chunked(_) => Err(EOF),
        }
    }
}

/// Body bytes that count, and where they go.
struct Counter<'a> {
    left: &'a mut usize,
    keep: Option<&'a mut Vec<u8>>,
}

impl Counter<'_> {
    fn take(&mut self, bytes: &[u8]) {
        let counted = &bytes[..bytes.len().min(*self.left)];
        *self.left -= counted.len();
        if let Some(keep) = &mut self.keep {
            keep.extend_from_slice(counted);
        }
    }
}

impl Chunk {
    /// True when the last chunk and its trailer are in. Stops early when no more bytes count.
    fn read(&mut self, data: &[u8], count: &mut Counter<'_>) -> Result<bool, &'static str> {
        let mut at = 0;
        while at < data.len() && *count.left > 0 {
            if let Chunk::Data { left } = self {
                let taken = clamp(*left, data.len() - at);
                count.take(&data[at..at + taken]);
                *left -= taken as u64;
                at += taken;
                if *left == 0 {
                    *self = Chunk::DataEnd { seen_cr: false };
                }
                continue;
            }
            if self.step(data[at])? {
                return Ok(true);
            }
            at += 1;
        }
        Ok(false)
    }

    /// One byte outside chunk data; true when it was the last of the body.
    fn step(&mut self, byte: u8) -> Result<bool, &'static str> {
        *self = match (&*self, byte) {
            (Chunk::Size { value, digits: 1.. } | Chunk::Extension { value }, b'\n') => match value {
                0 => Chunk::Trailer { line_len: 0 },
                left => Chunk::Data { left: *left },
            },
            (Chunk::Size { value, digits: 1.. }, b'\r' | b';' | b' ' | b'\t') => {
                Chunk::Extension { value: *value }
            }
            (Chunk::Extension { value }, _) => Chunk::Extension { value: *value },
            (Chunk::Size { digits: 16.., .. }, _) => return Err("http chunk length too large"),
            (Chunk::Size { value, digits }, _) => match char::from(byte).to_digit(16) {
                Some(digit) => Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 },
                None => return Err("invalid byte in chunk length"),
            },
            (Chunk::DataEnd { seen_cr: false }, b'\r') => Chunk::DataEnd { seen_cr: true },
            (Chunk::DataEnd { .. }, b'\n') => Chunk::Size { value: 0, digits: 0 },
            (Chunk::DataEnd { .. }, _) => return Err("malformed chunked encoding"),
            (Chunk::Trailer { line_len: 0 }, b'\n') => return Ok(true),
            (Chunk::Trailer { .. }, b'\n') => Chunk::Trailer { line_len: 0 },
            (Chunk::Trailer { line_len }, b'\r') => Chunk::Trailer { line_len: *line_len },
            (Chunk::Trailer { line_len }, _) => Chunk::Trailer { line_len: line_len.saturating_add(1) },
            (Chunk::Data { left }, _) => Chunk::Data { left: *left },
        };
        Ok(false)
    }
}

fn clamp(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}
