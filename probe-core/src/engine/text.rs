//! The error texts of Go's network client, which stand in events (kubelet-semantics 4.5, 5).

use std::fmt::Display;
use std::net::SocketAddr;

use crate::ring::{Errno, Peer};
use crate::wire::http1::quote::quote;

/// What Go appends when the client's timeout ends a request before its headers are in.
const AWAITING_HEADERS: &str = "(Client.Timeout exceeded while awaiting headers)";
/// The deadline passed while the body was read: the run could not be judged.
pub const BODY_TIMEOUT: &str =
    "context deadline exceeded (Client.Timeout or context cancellation while reading body)";

/// An error of a GET for `url`.
pub fn get(url: &str, error: impl Display) -> String {
    format!("Get {}: {error}", quote(url.as_bytes()))
}

/// connect(2) failed.
pub fn connect(peer: &Peer, errno: Errno) -> String {
    format!("dial {} {peer}: connect: {}", peer.network(), words(errno))
}

/// No socket for a connection to `peer`.
pub fn socket(peer: &Peer, call: &str, errno: Errno) -> String {
    format!("dial {} {peer}: {call}: {}", peer.network(), words(errno))
}

/// A host name has no address; `error` is the resolver's text, such as `lookup x: no such host`.
pub fn lookup(error: &str) -> String {
    format!("dial tcp: {error}")
}

pub fn lookup_timeout(host: &str) -> String {
    format!("dial tcp: lookup {host}: i/o timeout")
}

/// Our own resolver has too much to do, with which the target has nothing to do; with the cure.
pub fn crowded_lookup(host: &str) -> String {
    format!("lookup {host}: too many look-ups at a time: give probes of names longer periods")
}

pub fn dial_timeout(peer: &Peer) -> String {
    format!("dial {} {peer}: i/o timeout", peer.network())
}

/// The deadline of a GET passed while connecting; `dial` says where.
pub fn get_dial_timeout(url: &str, dial: &str) -> String {
    get(url, format_args!("{dial} {AWAITING_HEADERS}"))
}

/// The deadline of a GET passed on an open connection.
pub fn get_timeout(url: &str) -> String {
    get(url, format_args!("context deadline exceeded {AWAITING_HEADERS}"))
}

/// A read or write on an open connection failed; `call` is `read` or `write`.
pub fn transfer(call: &str, local: Option<SocketAddr>, peer: &Peer, errno: Errno) -> String {
    let (network, words) = (peer.network(), words(errno));
    match (local, peer) {
        (Some(local), _) => format!("{call} {network} {local}->{peer}: {call}: {words}"),
        // Our own end has no name, which Go writes so.
        (None, Peer::Unix(_)) => format!("{call} {network} @->{peer}: {call}: {words}"),
        (None, Peer::Ip(_)) => format!("{call} {network} {peer}: {call}: {words}"),
    }
}

/// Go's words for an error number: those of strerror(3) in lower case.
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return format!("errno {}", errno.raw_os_error()) };
    let begins_acronym = chars.clone().next().is_some_and(char::is_uppercase);
    if begins_acronym { text.to_owned() } else { first.to_lowercase().chain(chars).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_gos() {
        let peer = &Peer::Ip("10.1.2.3:8080".parse().unwrap());
        let peer_v6 = &Peer::Ip("[::1]:80".parse().unwrap());
        let unix = &Peer::Unix(std::path::Path::new("/run/x.sock").into());
        let local = "10.0.0.9:40000".parse().unwrap();
        let cases = [
            (connect(peer, Errno::CONNREFUSED), "dial tcp 10.1.2.3:8080: connect: connection refused"),
            (connect(peer_v6, Errno::HOSTUNREACH), "dial tcp [::1]:80: connect: no route to host"),
            (connect(peer, Errno::NETUNREACH), "dial tcp 10.1.2.3:8080: connect: network is unreachable"),
            (connect(peer, Errno::TIMEDOUT), "dial tcp 10.1.2.3:8080: connect: connection timed out"),
            (
                connect(peer, Errno::ADDRNOTAVAIL),
                "dial tcp 10.1.2.3:8080: connect: cannot assign requested address",
            ),
            (
                transfer("read", Some(local), peer, Errno::CONNRESET),
                "read tcp 10.0.0.9:40000->10.1.2.3:8080: read: connection reset by peer",
            ),
            (connect(unix, Errno::NOENT), "dial unix /run/x.sock: connect: no such file or directory"),
            (
                transfer("read", None, unix, Errno::CONNRESET),
                "read unix @->/run/x.sock: read: connection reset by peer",
            ),
            (transfer("write", None, peer, Errno::PIPE), "write tcp 10.1.2.3:8080: write: broken pipe"),
            (
                get_dial_timeout("http://h/", &dial_timeout(peer)),
                "Get \"http://h/\": dial tcp 10.1.2.3:8080: i/o timeout (Client.Timeout exceeded while awaiting headers)",
            ),
            (
                get_timeout("http://h/"),
                "Get \"http://h/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            ),
            (socket(peer, "socket", Errno::MFILE), "dial tcp 10.1.2.3:8080: socket: too many open files"),
        ];
        for (got, expected) in cases {
            assert_eq!(got, expected);
        }
    }
}
