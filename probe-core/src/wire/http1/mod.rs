//! HTTP/1.1 as bytes: the request that a probe sends, and the answer read in place (RFC 9112).

mod answer;
mod body;
mod chunk;
mod head;
mod lines;
pub(crate) mod quote;

use bytes::{BufMut, Bytes, BytesMut};

pub use answer::{Answer, AnswerError, Ending, Progress};
pub use head::{Head, HeadError};

/// Serialises one GET request: the request line, then `headers` exactly as given (names, order and
/// repetitions), then the empty line. Which headers a probe sends is decided by `wire::headers`;
/// `target` is the request target, such as `/healthz?full=1`.
pub fn request(target: &str, headers: &[(impl AsRef<str>, impl AsRef<str>)]) -> Bytes {
    let fields_len: usize =
        headers.iter().map(|(name, value)| name.as_ref().len() + value.as_ref().len() + 4).sum();
    let mut out = BytesMut::with_capacity("GET  HTTP/1.1\r\n\r\n".len() + target.len() + fields_len);
    out.put_slice(b"GET ");
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        out.put_slice(name.as_ref().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_ref().as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
    let request = out.freeze();
    // The first clone makes the bytes shared, which takes memory: here, not on the path of the first probe.
    drop(request.clone());
    request
}

/// The headers of a request that [`request`] has made. They are read back from its bytes when a redirect needs them:
/// kept apart they would cost every target half a kilobyte.
pub fn headers_of(request: &[u8]) -> Vec<(Box<str>, Box<str>)> {
    let text = std::str::from_utf8(request).unwrap_or_default();
    let lines = text.trim_end_matches("\r\n").split("\r\n").skip(1);
    lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::{headers_of, request};

    #[test]
    fn headers_are_read_back_as_they_were_given() {
        let given = [("Host", "10.0.0.1:80"), ("X-Empty", ""), ("X-Colons", "a: b: c"), ("X-Space", " x ")];
        let read = headers_of(&request("/a", &given));
        assert_eq!(read, given.map(|(name, value)| (Box::from(name), Box::from(value))));
        assert_eq!(headers_of(&request("/", &[("", ""); 0])), []);
    }

    #[test]
    fn a_request_is_serialised_as_given() {
        let headers = [("Host", "10.0.0.1:80"), ("X-Twice", "1"), ("X-Twice", "2"), ("Connection", "close")];
        assert_eq!(
            request("/a?b", &headers).as_ref(),
            b"GET /a?b HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-Twice: 1\r\nX-Twice: 2\r\nConnection: close\r\n\r\n"
        );
    }
}
