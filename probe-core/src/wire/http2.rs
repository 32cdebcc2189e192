//! How an HTTP/2 server is known: its first frame is SETTINGS (RFC 9113, 3.4).

/// Length of a frame's head.
const HEAD_BYTES: usize = 9;
const TYPE_AT: usize = 3;
const STREAM_AT: usize = 5;
const SETTINGS: u8 = 4;

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
}
