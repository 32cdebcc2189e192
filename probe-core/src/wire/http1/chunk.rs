//! The chunked coding (RFC 9112, 7.1) as strictly as Go's reader takes it, byte by byte and without a copy.

use std::borrow::Cow;

use super::answer::EOF;
use super::body::Counter;
use super::lines::{self, Next};

/// A line with a chunk's size, its extensions and its end.
const LINE_MAX_BYTES: u16 = 4_096;
/// Of a trailer, with the empty line that ends it.
const TRAILER_MAX_BYTES: usize = 4_096;
/// What chunks may have beside their data: so much each and twice the data, and so much beyond that in all.
const FREE_PER_CHUNK_BYTES: i64 = 16;
const EXCESS_MAX_BYTES: i64 = 16 * 1_024;
/// More make no number of 64 bits.
const DIGITS_MAX: u8 = 16;

const TRAILER_EOF: &str = "http: unexpected EOF reading trailer";
const TRAILER_LONG: &str = "http: suspiciously long trailer after chunked body";

/// A body in chunks, as far as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunks {
    at: At,
    /// Bytes beside the data that are too many so far.
    excess: i64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The last chunk and its trailer are in.
    Reached,
    NotYet,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum At {
    Size(Line),
    Data {
        left: u64,
    },
    /// The line end behind the data, of which the first byte may be there.
    DataEnd(Option<u8>),
    Trailer(Trailer),
}

/// A line with a size. What is wrong with it is told at its end, for its end may be worse.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Line {
    len: u16,
    size: u64,
    digits: u8,
    part: Part,
    error: Option<&'static str>,
    /// Its first CR was at this length.
    cr_at: Option<u16>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
enum Part {
    #[default]
    Digits,
    /// Behind the digits; right only if nothing else follows.
    Spaces,
    Extension,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Trailer {
    /// Nothing of it.
    Begins,
    /// A CR: mostly the last but one byte of the body.
    Cr,
    /// Fields. Few servers send any, so they may take memory.
    Fields(Vec<u8>),
}

impl Chunks {
    pub const fn new() -> Chunks {
        let line = Line { len: 0, size: 0, digits: 0, part: Part::Digits, error: None, cr_at: None };
        Chunks { at: At::Size(line), excess: 0 }
    }

    /// Goes on with the next bytes. Stops early when no more bytes count.
    pub fn read(&mut self, data: &[u8], count: &mut Counter<'_>) -> Result<End, Cow<'static, str>> {
        let mut rest = data;
        while !rest.is_empty() && !count.is_full() {
            if let At::Data { left } = &mut self.at {
                let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                count.take(&rest[..taken]);
                *left -= taken as u64;
                rest = &rest[taken..];
                if *left == 0 {
                    self.at = At::DataEnd(None);
                }
                continue;
            }
            if self.step(rest[0])? == End::Reached {
                return Ok(End::Reached);
            }
            rest = &rest[1..];
        }
        Ok(End::NotYet)
    }

    /// One byte outside of chunk data.
    fn step(&mut self, byte: u8) -> Result<End, Cow<'static, str>> {
        match &mut self.at {
            At::Size(line) => {
                if !line.push(byte)? {
                    return Ok(End::NotYet);
                }
                let size = line.size()?;
                // The line, and the two bytes behind the data.
                self.excess += i64::from(line.len) - 2 + 2;
                let free = FREE_PER_CHUNK_BYTES.wrapping_add((size as i64).wrapping_mul(2));
                self.excess = self.excess.wrapping_sub(free).max(0);
                if self.excess > EXCESS_MAX_BYTES && size > 0 {
                    return Err("chunked encoding contains too much non-data".into());
                }
                self.at = if size == 0 { At::Trailer(Trailer::Begins) } else { At::Data { left: size } };
            }
            At::DataEnd(None) => self.at = At::DataEnd(Some(byte)),
            At::DataEnd(Some(b'\r')) if byte == b'\n' => self.at = At::Size(Line::default()),
            At::DataEnd(Some(_)) => return Err("malformed chunked encoding".into()),
            At::Trailer(trailer) => return trailer.push(byte),
            // The caller has taken the data.
            At::Data { .. } => {}
        }
        Ok(End::NotYet)
    }

    /// Why a body that ends here is not whole.
    pub fn torn(&self) -> &'static str {
        match &self.at {
            At::Trailer(Trailer::Begins | Trailer::Cr) => TRAILER_EOF,
            At::Trailer(Trailer::Fields(bytes)) if bytes.len() < 2 => TRAILER_EOF,
            At::Trailer(Trailer::Fields(_)) => TRAILER_LONG,
            At::Size(_) | At::Data { .. } | At::DataEnd(_) => EOF,
        }
    }
}

impl Line {
    /// True when this byte was its last one.
    fn push(&mut self, byte: u8) -> Result<bool, &'static str> {
        self.len += 1;
        match byte {
            b'\n' => return Ok(true),
            b'\r' => self.cr_at = self.cr_at.or(Some(self.len)),
            _ => self.read(byte),
        }
        if self.len < LINE_MAX_BYTES { Ok(false) } else { Err("header line too long") }
    }

    /// A byte that ends nothing.
    fn read(&mut self, byte: u8) {
        let digit = char::from(byte).to_digit(16);
        match (self.part, byte) {
            (Part::Extension, _) => {}
            (Part::Digits, b';') => self.part = Part::Extension,
            (Part::Digits | Part::Spaces, b' ' | b'\t') => self.part = Part::Spaces,
            (Part::Spaces, _) => {
                self.error = self.error.or(Some("invalid byte in chunk length"));
                self.part = Part::Extension;
            }
            (Part::Digits, _) => match digit {
                None => self.error = self.error.or(Some("invalid byte in chunk length")),
                Some(_) if self.digits == DIGITS_MAX => {
                    self.error = self.error.or(Some("http chunk length too large"));
                }
                Some(digit) => {
                    self.size = self.size << 4 | u64::from(digit);
                    self.digits += 1;
                }
            },
        }
    }

    /// The size, once the line is whole.
    fn size(&self) -> Result<u64, &'static str> {
        match self.cr_at {
            None => Err("chunked line ends with bare LF"),
            Some(cr_at) if cr_at + 1 != self.len => Err("invalid CR in chunked line"),
            Some(_) => match self.error {
                Some(error) => Err(error),
                None if self.digits == 0 => Err("empty hex number for chunk length"),
                None => Ok(self.size),
            },
        }
    }
}

impl Trailer {
    fn push(&mut self, byte: u8) -> Result<End, Cow<'static, str>> {
        let bytes = match (&mut *self, byte) {
            (Trailer::Cr, b'\n') => return Ok(End::Reached),
            (Trailer::Begins, b'\r') => {
                *self = Trailer::Cr;
                return Ok(End::NotYet);
            }
            (Trailer::Begins, _) => {
                *self = Trailer::Fields(vec![byte]);
                return Ok(End::NotYet);
            }
            (Trailer::Cr, _) => {
                *self = Trailer::Fields(vec![b'\r', byte]);
                return Ok(End::NotYet);
            }
            (Trailer::Fields(bytes), _) => bytes,
        };
        bytes.push(byte);
        if bytes.ends_with(b"\r\n\r\n") {
            return check_fields(bytes);
        }
        if bytes.len() < TRAILER_MAX_BYTES { Ok(End::NotYet) } else { Err(TRAILER_LONG.into()) }
    }
}

/// The fields of a trailer: none of them counts, but each has to be one.
fn check_fields(bytes: &[u8]) -> Result<End, Cow<'static, str>> {
    let mut at = 0;
    loop {
        match lines::next(bytes, at, 0, at == 0, true).map_err(|error| error.to_string())? {
            Next::Field { used, .. } => at = used,
            Next::End { .. } | Next::More => return Ok(End::Reached),
        }
    }
}
