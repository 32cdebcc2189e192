//! Where a connection goes.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The other end of a connection: an address and port, or a socket in the file system.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    Ip(SocketAddr),
    Unix(Arc<Path>),
}

impl Peer {
    /// The network's name in Go's error texts.
    pub const fn network(&self) -> &'static str {
        match self {
            Peer::Ip(_) => "tcp",
            Peer::Unix(_) => "unix",
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Peer {
        Peer::Ip(addr)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(addr) => addr.fmt(f),
            Peer::Unix(path) => path.display().fmt(f),
        }
    }
}
