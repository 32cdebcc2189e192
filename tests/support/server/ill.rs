//! The ways in which a probed server can be ill or hostile, as bytes and what comes after them.

/// What a target does instead of answering, once it has a whole request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ill {
    /// Slow loris: a head that comes byte by byte and never ends.
    SlowHead,
    /// Header lines without end, as fast as they are read.
    EndlessHead,
    /// Status 500 and a body without end, as fast as it is read.
    EndlessBody,
    /// Status 200 and a long body, byte by byte.
    SlowBody,
    Reset,
    /// No reply; the connection stays open.
    Silence,
    /// Another protocol's greeting, and the end of the connection.
    WrongProtocol,
}

/// How an ill target goes on after its first bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    Close,
    Reset,
    Hold,
    /// One byte of it at a time, over and over.
    Drip(&'static [u8]),
    /// All of it, over and over.
    Flood(&'static [u8]),
}

/// Bytes of a flood that are sent in one piece.
const FLOOD_BYTES: usize = 16 * 1024;

static HEADER_LINES: [u8; FLOOD_BYTES] =
    repeated(b"X-Endless: 0123456789abcdef0123456789abcdef0123456789abcdef012\r\n");
/// Chunks of 58 (0x3a) bytes.
static CHUNKS: [u8; FLOOD_BYTES] =
    repeated(b"3a\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789\r\n");

impl Ill {
    pub const ALL: [Ill; 7] = [
        Ill::SlowHead,
        Ill::EndlessHead,
        Ill::EndlessBody,
        Ill::SlowBody,
        Ill::Reset,
        Ill::Silence,
        Ill::WrongProtocol,
    ];

    /// The bytes that come at once, and what comes then.
    pub(super) fn manner(self) -> (&'static [u8], Manner) {
        match self {
            Ill::SlowHead => (b"", Manner::Drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")),
            Ill::EndlessHead => (b"HTTP/1.1 200 OK\r\n", Manner::Flood(&HEADER_LINES)),
            Ill::EndlessBody => (
                b"HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n",
                Manner::Flood(&CHUNKS),
            ),
            Ill::SlowBody => (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", Manner::Drip(b"x")),
            Ill::Reset => (b"", Manner::Reset),
            Ill::Silence => (b"", Manner::Hold),
            Ill::WrongProtocol => (b"SSH-2.0-OpenSSH_9.2p1\r\n", Manner::Close),
        }
    }

    /// For one byte that all threads may read; zero is a healthy target.
    pub(super) fn code(ill: Option<Ill>) -> u8 {
        ill.map_or(0, |ill| ill as u8 + 1)
    }

    pub(super) fn of_code(code: u8) -> Option<Ill> {
        Ill::ALL.get(usize::from(code.checked_sub(1)?)).copied()
    }
}

/// The line as often as it fits, without a rest: floods go round.
const fn repeated(line: &[u8; 64]) -> [u8; FLOOD_BYTES] {
    let mut all = [0; FLOOD_BYTES];
    let mut at = 0;
    while at < FLOOD_BYTES {
        all[at] = line[at % line.len()];
        at += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_a_code_of_its_own() {
        for ill in Ill::ALL {
            assert_eq!(Ill::of_code(Ill::code(Some(ill))), Some(ill));
        }
        assert_eq!(Ill::of_code(Ill::code(None)), None);
    }

    #[test]
    fn floods_go_round_at_a_line_end() {
        for flood in [&HEADER_LINES, &CHUNKS] {
            assert!(flood.ends_with(b"\r\n"));
        }
    }
}
