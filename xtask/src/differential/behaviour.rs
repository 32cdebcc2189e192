//! What a server does, and what it is asked: one case of the differential run.

use std::net::Ipv4Addr;

use serde::Serialize;

/// Where a case connects.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Door {
    /// Replies as scripted to what is said in the clear.
    Plain,
    /// The same within TLS.
    Tls,
    /// Replies as scripted to the first bytes that come, whatever they are.
    Raw,
    /// Nobody listens.
    Closed,
}

impl Door {
    pub fn port(self) -> u16 {
        match self {
            Door::Plain => 19_100,
            Door::Tls => 19_101,
            Door::Raw => 19_102,
            Door::Closed => 19_103,
        }
    }
}

/// One act of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    Send(Vec<u8>),
    /// So many bytes at a time, with a moment between them.
    Trickle(Vec<u8>, usize),
    /// Says nothing more, until the client goes.
    Hang,
    /// Resets the connection.
    Reset,
}

/// What happens on one connection after the request has come; then it is ended in order.
pub type Script = Vec<Act>;

/// One case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Behaviour {
    pub id: u16,
    /// For people: which family of cases.
    pub family: &'static str,
    pub scheme: &'static str,
    pub door: Door,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// For each connection of one run, in turn; the last one serves all later ones.
    pub scripts: Vec<Script>,
}

/// A case as the client in Go is told it.
#[derive(Serialize)]
pub struct Request<'a> {
    id: u16,
    scheme: &'a str,
    host: String,
    port: u16,
    path: &'a str,
    headers: &'a [(String, String)],
    agent: &'a str,
    timeout_ms: u64,
}

impl Behaviour {
    /// Each case has an address of its own, so that the server knows it before anything is said.
    pub fn host(&self) -> Ipv4Addr {
        host(self.id)
    }

    pub fn request<'a>(&'a self, agent: &'a str, timeout_ms: u64) -> Request<'a> {
        Request {
            id: self.id,
            scheme: self.scheme,
            host: self.host().to_string(),
            port: self.door.port(),
            path: &self.path,
            headers: &self.headers,
            agent,
            timeout_ms,
        }
    }
}

pub fn host(id: u16) -> Ipv4Addr {
    let [high, low] = id.to_be_bytes();
    Ipv4Addr::new(127, 100, high, low)
}

/// The case of an address; None for one that belongs to none.
pub fn id_of(host: Ipv4Addr) -> Option<u16> {
    match host.octets() {
        [127, 100, high, low] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_case() {
        for id in [0, 255, 256, 2_000, u16::MAX] {
            assert_eq!(id_of(host(id)), Some(id));
        }
        assert_eq!(id_of(Ipv4Addr::LOCALHOST), None);
    }
}
