//! The kept sockets of one slot: made on first use, reused for every later connection.

#![expect(unsafe_code, reason = "TCP_DEFER_ACCEPT and SO_TIMESTAMPNS have no safe wrapper")]

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::{Errno, Opening};

/// Sockets per slot: {IPv4, IPv6} × {client speaks first, bare}.
pub const SOCKETS_PER_SLOT: u32 = 4;

/// Which of a slot's sockets serves a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SocketKind {
    is_v6: bool,
    opening: Opening,
}

impl SocketKind {
    pub fn of(to: SocketAddr, opening: Opening) -> SocketKind {
        SocketKind { is_v6: to.is_ipv6(), opening }
    }

    /// Place among the slot's sockets, below [`SOCKETS_PER_SLOT`].
    pub fn at(self) -> usize {
        let opening = match self.opening {
            Opening::ClientSpeaks => 0,
            Opening::Bare => 2,
        };
        opening + usize::from(self.is_v6)
    }
}

/// Makes a socket of this kind, with the system call that failed.
///
/// It is blocking, since a ring does not wait on non-blocking descriptors. Linger zero makes a close that
/// becomes necessary immediate: with kubelet's one second the closing thread would wait for a peer that has
/// vanished. In the ordinary course a connection ends by disconnect, where linger plays no part.
pub fn make(kind: SocketKind) -> Result<OwnedFd, (&'static str, Errno)> {
    let family = if kind.is_v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| ("socket", errno))?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(|errno| ("setsockopt", errno))?;
    if kind.opening == Opening::ClientSpeaks {
        set_defer_accept(&socket).map_err(|errno| ("setsockopt", errno))?;
        set_flag(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS).map_err(|errno| ("setsockopt", errno))?;
    }
    Ok(socket)
}

/// On a client socket TCP_DEFER_ACCEPT holds the last packet of the handshake back until the first data goes
/// out with it (net/ipv4/tcp_input.c, tcp_rcv_synsent_state_process).
fn set_defer_accept(socket: &OwnedFd) -> Result<(), Errno> {
    set_flag(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT)
}

/// Sets an integer option to 1.
pub fn set_flag(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> Result<(), Errno> {
    let one: libc::c_int = 1;
    // SAFETY: needed because rustix has no wrapper for these options; the descriptor is open, and the pointer
    // and length describe a local integer that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::INVAL, Errno::from_raw_os_error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_place() {
        let v4 = "127.0.0.1:1".parse().unwrap();
        let v6 = "[::1]:1".parse().unwrap();
        let places: Vec<usize> = [Opening::ClientSpeaks, Opening::Bare]
            .into_iter()
            .flat_map(|opening| [v4, v6].map(|to| SocketKind::of(to, opening).at()))
            .collect();
        assert_eq!(places, [0, 1, 2, 3]);
    }

    #[test]
    fn sockets_are_made_as_the_kind_says() {
        for opening in [Opening::ClientSpeaks, Opening::Bare] {
            let socket = make(SocketKind::of("127.0.0.1:1".parse().unwrap(), opening)).unwrap();
            assert_eq!(sockopt::socket_linger(&socket).unwrap(), Some(Duration::ZERO));
        }
    }
}
