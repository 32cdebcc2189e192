//! What answers are made of: parts that are right, odd or wrong.

use probe_core::ring::twin::Rng;

/// An answer before it is bytes.
pub struct Answer {
    /// With its end of line.
    pub first: Vec<u8>,
    /// With their ends of line.
    pub lines: Vec<Vec<u8>>,
    /// Of the head.
    pub end: Vec<u8>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok() -> Answer {
        Answer {
            first: b"HTTP/1.1 200 OK\r\n".to_vec(),
            lines: vec![b"Content-Type: text/plain\r\n".to_vec(), b"Content-Length: 5\r\n".to_vec()],
            end: b"\r\n".to_vec(),
            body: b"hello".to_vec(),
        }
    }

    pub fn status(&mut self, status: &str) {
        self.first = format!("HTTP/1.1 {status}\r\n").into_bytes();
    }

    pub fn bytes(&self) -> Vec<u8> {
        [&self.first, &self.lines.concat(), &self.end, &self.body].map(|part| part.as_slice()).concat()
    }
}

pub const CODES: [u16; 24] = [
    200, 201, 204, 206, 226, 299, 300, 304, 306, 399, 400, 401, 404, 408, 418, 429, 499, 500, 502, 503, 504,
    599, 600, 999,
];
pub const ODD_CODES: [&str; 22] = [
    "100",
    "101",
    "199",
    "099",
    "000",
    "007",
    "20",
    "2",
    "2000",
    "20x",
    "abc",
    "-20",
    "+20",
    " 200",
    "200 ",
    "0x1",
    "2 0",
    "",
    "１２３",
    "200.",
    "1e2",
    "200\t",
];
pub const VERSIONS: [&str; 21] = [
    "HTTP/0.0",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/1.9",
    "HTTP/2.0",
    "HTTP/0.9",
    "HTTP/3.0",
    "HTTP/1",
    "HTTP/1.",
    "HTTP/.1",
    "HTTP/11.1",
    "HTTP/1.10",
    "HTTP/1.1.1",
    "http/1.1",
    "Http/1.1",
    "HTTP",
    "HTP/1.1",
    "ICY",
    "HTTP/1,1",
    "HTTPS/1.1",
    "",
];
pub const GAPS: [&str; 6] = ["  ", "\t", "", "   ", " \t", "\u{b}"];
pub const REASONS: [&str; 10] =
    [" OK", " ", "", "  two  spaces ", " \u{fc}ml\u{e4}ut", " with\ttab", " OK\0", " a:b", " 200", "OK"];
pub const HEADER_LINES: [&[u8]; 44] = [
    b"X-A: b\r\n",
    b"x-a:b\r\n",
    b"X-A:\r\n",
    b"X-A: \r\n",
    b"X-A :b\r\n",
    b" X-A: b\r\n",
    b"X-A: b\r\n folded\r\n",
    b"X-A: b\r\n\tfolded\r\n",
    b"X-A: b\r\n \r\n",
    b": b\r\n",
    b":\r\n",
    b"X-A\r\n",
    b"no colon at all\r\n",
    b"X A: b\r\n",
    b"X\tA: b\r\n",
    b"X-A: b\n",
    b"X-A: b\r\r\n",
    b"X-A: b\rc\r\n",
    b"X-A: b\0c\r\n",
    b"X\0A: b\r\n",
    b"X-A: \xff\xfe\r\n",
    b"X-\xc3\xa4: b\r\n",
    b"\xff: b\r\n",
    b"X-A: b\x01c\r\n",
    b"X-A: b\x7fc\r\n",
    b"X(A): b\r\n",
    b"X,A: b\r\n",
    b"X/A: b\r\n",
    b"X;A: b\r\n",
    b"X\"A\": b\r\n",
    b"X@A: b\r\n",
    b"X[A]: b\r\n",
    b"X{A}: b\r\n",
    b"!#$%&'*+-.^_`|~: b\r\n",
    b"X-A: b: c: d\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Trailer: X-T\r\n",
    b"Trailer: Content-Length\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Set-Cookie: a=b; c\r\n",
    b"Date: never\r\n",
    b"Keep-Alive: timeout=x\r\n",
];
/// Values of Content-Length; five bytes are right for some bodies.
pub const LENGTHS: [&str; 30] = [
    " 5",
    " 5",
    " 5",
    "5",
    " 5 ",
    "\t5",
    " 0",
    " 05",
    " 005",
    " +5",
    " -5",
    " 5,5",
    " 5, 5",
    " 5,6",
    " 5;",
    " 0x5",
    " 5.0",
    " 5e0",
    " five",
    "",
    " ",
    " 4",
    " 6",
    " 21",
    " 9223372036854775807",
    " 9223372036854775808",
    " 18446744073709551616",
    " 99999999999999999999999",
    " 5\0",
    " 5 5",
];
pub const CODINGS: [&str; 16] = [
    "Chunked",
    "CHUNKED",
    " chunked ",
    "identity",
    "gzip",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "chunked\r\nTransfer-Encoding: chunked",
    "identity\r\nTransfer-Encoding: chunked",
    "",
    "x",
    "chunked\r\nContent-Length: 5",
    "chunked\r\nContent-Length: x",
    "chunked;q=1",
    "\"chunked\"",
];
pub const CHUNKS: [&[u8]; 40] = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5\nhello\r\n0\r\n\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5\t\r\nhello\r\n0\r\n\r\n",
    b"05\r\nhello\r\n00\r\n\r\n",
    b"000000000000000005\r\nhello\r\n0\r\n\r\n",
    b"0000000000000005\r\nhello\r\n0\r\n\r\n",
    b"A\r\nhellohello\r\n0\r\n\r\n",
    b"a\r\nhellohello\r\n0\r\n\r\n",
    b"5;x=y\r\nhello\r\n0;z\r\n\r\n",
    b"5;x=\"y\r\nhello\r\n0\r\n\r\n",
    b"5 ;x\r\nhello\r\n0\r\n\r\n",
    b"5;\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX-T: a\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX-T a\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX-T: a",
    b"5\r\nhello\r\n0\r\n",
    b"5\r\nhello\r\n0",
    b"5\r\nhello\r\n",
    b"5\r\nhello",
    b"5\r\nhel",
    b"5\r\n",
    b"5\r",
    b"5",
    b"",
    b"\r\n",
    b"0\r\n\r\n",
    b"0\r\n\r\nmore",
    b"x\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"6\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"10000000000000000\r\nhello\r\n0\r\n\r\n",
    b"5\r\rhello\r\n0\r\n\r\n",
];
pub const INTERIM: [&[u8]; 8] = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 199 Odd\r\n\r\n",
    b"HTTP/1.0 100 Continue\r\n\r\n",
    b"HTTP/1.1 100\r\nTransfer-Encoding: chunked\r\n\r\n",
];
/// `{host}` is the address of the case, `{other}` one that it is not, `{fc}` a byte that is no UTF-8.
pub const LOCATIONS: [&str; 49] = [
    "/{fc}",
    "/a{fc}%2f",
    "/{fc}%zz",
    "http://b\u{fc}cher.example/",
    "http://b{fc}cher.example/",
    "http://b%c3%bccher.example/",
    "http://b%41/",
    "/next",
    "next",
    "./next",
    "../next",
    "../../next",
    "",
    "?q=1",
    "#f",
    "/next#f",
    "/a/../b",
    "/a/./b/",
    "//{host}:19100/x",
    "//{other}:19100/x",
    "http://{host}:19100/next",
    "http://{host}:19100",
    "http://{other}:19100/next",
    "http://{host}/next",
    "http://{host}:19103/next",
    "https://{host}:19101/next",
    "HTTP://{host}:19100/next",
    "http://user:secret@{host}:19100/next",
    "http://{host}:19100?x",
    "http://{host}:19100/a b",
    "http://{host}:x/",
    "http://{host}:99999/",
    "http://[::1",
    "http://[::1]:19100/",
    "http://localhost:19100/",
    "http:///next",
    "http:next",
    ":bad",
    "%zz",
    "/%zz",
    "/%41%2f",
    "/\u{fc}",
    "mailto:a@b",
    "ftp://{host}/x",
    "/next\t",
    " /next ",
    "/a\u{1}b",
    "http://{host}:/next",
    "/x?a=b&c=%20 d",
];
pub const PATHS: [&str; 28] = [
    "//user:secret@x/a",
    "http://user@x/a",
    "/",
    "",
    "?foo",
    "/path?bar",
    "/path#foo",
    "path",
    "//other/x",
    "http://other/x",
    "/a b",
    "/%zz",
    "/%41",
    "/\u{fc}ber",
    "/a?b?c",
    "/a?b c",
    "/a?b=%zz",
    "/a/../b",
    "/a//b",
    "/a;b",
    "/?",
    "/#",
    "*",
    "/a\"b",
    "/<x>",
    "/a|b^c`d",
    "/[x]{y}",
    "/a:b@c!$&'()*+,=",
];
pub const REQUEST_HEADERS: [(&str, &str); 28] = [
    ("Authorization", ""),
    ("Referer", ""),
    ("X-Muffins-Or-Cupcakes", "muffins"),
    ("x-lower", "a"),
    ("X-UPPER", "b"),
    ("X-Two", "1"),
    ("X-Two", "2"),
    ("FOO-bAR", "c"),
    ("X-Empty", ""),
    ("X-Spaces", "  a  b  "),
    ("X-Unicode", "\u{fc}"),
    ("Host", "muffins.cupcakes.org"),
    ("HOST", "example.com:8080"),
    ("Host", ""),
    ("User-Agent", "foo/1.0"),
    ("user-agent", ""),
    ("Accept", "application/json"),
    ("accept", ""),
    ("Authorization", "Bearer x"),
    ("Cookie", "a=b"),
    ("Connection", "keep-alive"),
    ("Accept-Encoding", "gzip"),
    ("Content-Length", "0"),
    ("Transfer-Encoding", "chunked"),
    ("Referer", "http://a/b"),
    ("A", "z"),
    ("Content-Type", "text/plain"),
    ("Proxy-Authorization", "Basic x"),
];
pub const TLS_FAULTS: [&[u8]; 18] = [
    b"",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
    b"hello there, this is no TLS\r\n",
    b"HTTP/",
    b"\x15",
    b"\x15\x03\x01\x00\x02\x02",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"\x15\x03\x03\x00\x02\x02\x46",
    b"\x15\x03\x03\x00\x02\x02\x50",
    b"\x15\x03\x03\x00\x02\x02\x70",
    b"\x15\x03\x03\x00\x02\x02\xff",
    b"\x15\x03\x03\x00\x02\x01\x00",
    b"\x16\x03\x03\x00\x04\x02\x00\x00\x00",
    b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
    b"\x17\x03\x03\x00\x05hello",
    b"\x16\x03\x03\xff\xffhello",
    b"\0\0\0\0\0\0\0\0",
];

pub fn long_header(bytes: usize) -> Vec<u8> {
    [b"X-Long: ", vec![b'v'; bytes].as_slice(), b"\r\n"].concat()
}

pub fn many_headers(count: usize) -> Vec<u8> {
    (0..count).flat_map(|at| format!("X-{at}: {at}\r\n").into_bytes()).collect()
}

pub fn random_line(rng: &mut Rng) -> Vec<u8> {
    let mut line: Vec<u8> =
        (0..rng.below(30)).map(|_| rng.below(256) as u8).filter(|byte| *byte != b'\n').collect();
    line.extend_from_slice(b"\r\n");
    line
}

pub fn good_chunks(rng: &mut Rng) -> Vec<u8> {
    let body: Vec<u8> = (0..rng.below(300)).map(|at| b'a' + (at % 26) as u8).collect();
    chunks_of(&body, 1 + rng.below(100) as usize)
}

pub fn chunks_of(body: &[u8], at_once: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in body.chunks(at_once) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
