//! Bodies of answers: by length, in chunks, or until the connection closes.

use std::borrow::Cow;

use crate::model::limits::PROBE_OUTPUT_MAX_BYTES;

use super::answer::{EOF, Ending};
use super::chunk::{Chunks, End};

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

#[derive(Clone, PartialEq, Eq, Debug)]
enum Framing {
    Length(u64),
    UntilClose,
    Chunked(Chunks),
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
        Body::new(Framing::Chunked(Chunks::new()))
    }

    const fn new(framing: Framing) -> Body {
        Body { framing, counted_left: PROBE_OUTPUT_MAX_BYTES }
    }

    /// Goes on with the next bytes; those that count are appended to `keep`, if given.
    pub fn read(
        &mut self,
        data: &[u8],
        keep: Option<&mut Vec<u8>>,
    ) -> Result<BodyProgress, Cow<'static, str>> {
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
            Framing::Chunked(chunks) => {
                if chunks.read(data, &mut count)? == End::Reached {
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
    pub fn end(&self) -> Result<Ending, Cow<'static, str>> {
        match &self.framing {
            Framing::UntilClose | Framing::Length(0) => Ok(Ending::Complete),
            Framing::Length(_) => Err(EOF.into()),
            Framing::Chunked(chunks) => Err(chunks.torn().into()),
        }
    }
}

/// Body bytes that count, and where they go.
pub(super) struct Counter<'a> {
    left: &'a mut usize,
    keep: Option<&'a mut Vec<u8>>,
}

impl Counter<'_> {
    /// No more bytes count.
    pub fn is_full(&self) -> bool {
        *self.left == 0
    }

    pub fn take(&mut self, bytes: &[u8]) {
        let counted = &bytes[..bytes.len().min(*self.left)];
        *self.left -= counted.len();
        if let Some(keep) = &mut self.keep {
            keep.extend_from_slice(counted);
        }
    }
}

fn clamp(left: u64, len: usize) -> usize {
    usize::try_from(left).map_or(len, |left| left.min(len))
}
