//! How an HTTP/2 server is known: its first frame is SETTINGS (RFC 9113, 3.4). And how it says goodbye (6.8).

use crate::model::limits::GOAWAY_DEBUG_MAX_BYTES;

/// Length of a frame's head.
const HEAD_BYTES: usize = 9;
const TYPE_AT: usize = 3;
const STREAM_AT: usize = 5;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// Last stream and error code.
const GOAWAY_BYTES: usize = 8;

/// Takes the first bytes of a server, in pieces of any size.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Preface {
    head: [u8; HEAD_BYTES],
    length: usize,
}

impl Preface {
    /// Takes what has come. True once these are the first bytes of an HTTP/2 server.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let room = &mut self.head[self.length..];
        let length = room.len().min(bytes.len());
        room[..length].copy_from_slice(&bytes[..length]);
        self.length += length;
        let stream_is_zero = self.head[STREAM_AT..].iter().all(|byte| *byte == 0);
        self.length == HEAD_BYTES && self.head[TYPE_AT] == SETTINGS && stream_is_zero
    }
}

/// A GOAWAY frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Goodbye {
    /// The server processes no stream with a higher number.
    pub last_stream: u32,
    pub error: u32,
    pub debug: Box<[u8]>,
}

/// Follows the frames of a server, in pieces of any size, for its goodbye.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frames {
    head: [u8; HEAD_BYTES],
    head_length: usize,
    /// Of this frame's payload.
    left_bytes: usize,
    /// Kept of a GOAWAY only.
    payload: Vec<u8>,
    goodbye: Option<Goodbye>,
}

impl Frames {
    /// Takes what has come.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.head_length < HEAD_BYTES {
                let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head_length));
                self.head[self.head_length..][..head.len()].copy_from_slice(head);
                self.head_length += head.len();
                bytes = rest;
                let [a, b, c, ..] = self.head;
                self.left_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
                self.payload.clear();
            }
            let (payload, rest) = bytes.split_at(bytes.len().min(self.left_bytes));
            self.left_bytes -= payload.len();
            bytes = rest;
            let room = (GOAWAY_BYTES + GOAWAY_DEBUG_MAX_BYTES).saturating_sub(self.payload.len());
            if self.head[TYPE_AT] == GOAWAY {
                self.payload.extend_from_slice(&payload[..payload.len().min(room)]);
            }
            if self.head_length == HEAD_BYTES && self.left_bytes == 0 {
                self.head_length = 0;
                self.note();
            }
        }
    }

    /// The latest one.
    pub fn goodbye(&self) -> Option<&Goodbye> {
        self.goodbye.as_ref()
    }

    /// A frame is complete.
    fn note(&mut self) {
        let is_goaway = self.head[TYPE_AT] == GOAWAY;
        if let Some(([a, b, c, d, error @ ..], debug)) =
            self.payload.split_first_chunk::<GOAWAY_BYTES>().filter(|_| is_goaway)
        {
            // The first bit is reserved.
            let last_stream = u32::from_be_bytes([*a & 0x7f, *b, *c, *d]);
            let goodbye = Goodbye { last_stream, error: u32::from_be_bytes(*error), debug: debug.into() };
            self.goodbye = Some(goodbye);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_first() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        let cases: [(&[u8], bool); 6] = [
            (&settings, true),
            (&settings[..HEAD_BYTES], true),
            (&settings[..HEAD_BYTES - 1], false),
            (b"HTTP/1.1 400 Bad Request\r\n", false),
            // GOAWAY, and SETTINGS of a stream.
            (&[0, 0, 8, 7, 0, 0, 0, 0, 0], false),
            (&[0, 0, 6, 4, 0, 0, 0, 0, 1], false),
        ];
        for (bytes, is_http2) in cases {
            assert_eq!(Preface::default().take(bytes), is_http2, "{bytes:?}");
            let mut preface = Preface::default();
            let in_pieces = bytes.chunks(1).fold(false, |_, piece| preface.take(piece));
            assert_eq!(in_pieces, is_http2, "{bytes:?} byte by byte");
        }
    }

    fn goaway(debug: &[u8]) -> Vec<u8> {
        let length = (GOAWAY_BYTES + debug.len()) as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0x80, 0, 0, 3, 0, 0, 0, 11]);
        frame.extend_from_slice(debug);
        frame
    }

    #[test]
    fn a_goodbye_is_found_among_frames_of_any_cut() {
        let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
        // DATA that looks like a GOAWAY.
        bytes.extend_from_slice(&[0, 0, 17, 0, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(&goaway(b""));
        let without = bytes.len();
        bytes.extend_from_slice(&goaway(b"enough"));
        let wanted = Goodbye { last_stream: 3, error: 11, debug: (*b"enough").into() };
        for cut in [1, 2, 5, 9, 10, 1_000] {
            let mut frames = Frames::default();
            bytes[..without].chunks(cut).for_each(|piece| frames.take(piece));
            assert_eq!(frames.goodbye(), None, "pieces of {cut}");
            bytes[without..].chunks(cut).for_each(|piece| frames.take(piece));
            assert_eq!(frames.goodbye(), Some(&wanted), "pieces of {cut}");
        }
        let mut frames = Frames::default();
        frames.take(&goaway(&[b'x'; 3 * GOAWAY_DEBUG_MAX_BYTES]));
        let kept = frames.goodbye().map(|goodbye| goodbye.debug.len());
        assert_eq!(kept, Some(GOAWAY_DEBUG_MAX_BYTES), "as much as is kept of it");
    }
}
