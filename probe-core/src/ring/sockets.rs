//! The kept sockets of one slot: made on first use, reused for every later connection.

#![expect(unsafe_code, reason = "TCP_DEFER_ACCEPT, SO_TIMESTAMPNS and TCP_INFO have no safe wrapper")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt,
};
use rustix::time::{ClockId, clock_getres};

use super::{Errno, Opening, Peer};

/// Sockets per slot: {IPv4, IPv6} × {client speaks first, bare}, and one for Unix sockets.
pub const SOCKETS_PER_SLOT: u32 = 5;

/// Which of a slot's sockets serves a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SocketKind {
    V4(Opening),
    V6(Opening),
    Unix,
}

impl SocketKind {
    pub fn of(to: &Peer, opening: Opening) -> SocketKind {
        match to {
            Peer::Ip(addr) if addr.is_ipv6() => SocketKind::V6(opening),
            Peer::Ip(_) => SocketKind::V4(opening),
            Peer::Unix(_) => SocketKind::Unix,
        }
    }

    /// Place among the slot's sockets, below [`SOCKETS_PER_SLOT`].
    pub fn at(self) -> usize {
        match self {
            SocketKind::V4(Opening::ClientSpeaks) => 0,
            SocketKind::V6(Opening::ClientSpeaks) => 1,
            SocketKind::V4(Opening::Bare) => 2,
            SocketKind::V6(Opening::Bare) => 3,
            SocketKind::Unix => 4,
        }
    }
}

/// The address for connect(2).
///
/// # Errors
/// The path is too long for a Unix socket.
pub fn address_of(to: &Peer) -> Result<SocketAddrAny, Errno> {
    match to {
        Peer::Ip(addr) => Ok(SocketAddrAny::from(*addr)),
        Peer::Unix(path) => SocketAddrUnix::new(&**path).map(SocketAddrAny::from),
    }
}

/// Makes a socket of this kind, with the system call that failed.
///
/// It is blocking, since a ring does not wait on non-blocking descriptors. Linger zero makes a close that
/// becomes necessary immediate: with kubelet's one second the closing thread would wait for a peer that has
/// vanished. In the ordinary course a connection ends by disconnect, where linger plays no part.
pub fn make(kind: SocketKind) -> Result<OwnedFd, (&'static str, Errno)> {
    let (family, opening) = match kind {
        SocketKind::V4(opening) => (AddressFamily::INET, opening),
        SocketKind::V6(opening) => (AddressFamily::INET6, opening),
        // It has none of the options below.
        SocketKind::Unix => return socket(AddressFamily::UNIX),
    };
    let socket = socket(family)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(|errno| ("setsockopt", errno))?;
    if opening == Opening::ClientSpeaks {
        set_defer_accept(&socket).map_err(|errno| ("setsockopt", errno))?;
        set_flag(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS).map_err(|errno| ("setsockopt", errno))?;
    }
    Ok(socket)
}

fn socket(family: AddressFamily) -> Result<OwnedFd, (&'static str, Errno)> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(|errno| ("socket", errno))
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

/// Whether this host has an address to reach `to` from: a datagram socket looks for one when it connects, and needs no
/// port of those that connections use. Without one a connect fails with EADDRNOTAVAIL as it does without a free port.
pub fn has_source(to: &Peer) -> bool {
    let Peer::Ip(to) = to else { return true };
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let Ok(socket) = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None) else { return true };
    rustix::net::connect(&socket, to) != Err(Errno::ADDRNOTAVAIL)
}

/// The longest ago that the last byte can have come on a TCP connection whose peer has closed; None where it has not, or
/// the kernel does not tell. It keeps that time in its own ticks, apart from the time stamp, which a FIN takes along
/// (net/ipv4/tcp_input.c, tcp_event_data_recv and tcp_try_coalesce).
pub fn last_data_age(socket: &OwnedFd) -> Option<Duration> {
    /// `struct tcp_info` (linux/tcp.h) up to `tcpi_last_data_recv`, in milliseconds; the first byte is the state.
    const LAST_DATA_RECV: std::ops::Range<usize> = 52..56;
    const CLOSE: u8 = 7;
    const CLOSE_WAIT: u8 = 8;
    let mut info = [0_u8; LAST_DATA_RECV.end];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: needed because rustix has no wrapper for this option; the descriptor is open, and pointer and length
    // describe a local buffer that outlives the call. The kernel writes no more than `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 || (len as usize) < LAST_DATA_RECV.end || !matches!(info[0], CLOSE | CLOSE_WAIT) {
        return None;
    }
    let age_ms = u32::from_ne_bytes(info[LAST_DATA_RECV].try_into().ok()?);
    // Both ends of the span are rounded to a tick.
    let tick = Duration::try_from(clock_getres(ClockId::MonotonicCoarse)).ok()?;
    Some(Duration::from_millis(age_ms.into()) + tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_place() {
        let v4 = Peer::Ip("127.0.0.1:1".parse().unwrap());
        let v6 = Peer::Ip("[::1]:1".parse().unwrap());
        let unix = Peer::Unix(std::path::Path::new("/x").into());
        let places: Vec<usize> = [Opening::ClientSpeaks, Opening::Bare]
            .into_iter()
            .flat_map(|opening| [&v4, &v6].map(|to| SocketKind::of(to, opening).at()))
            .chain([SocketKind::of(&unix, Opening::Bare).at()])
            .collect();
        assert_eq!(places, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn sockets_are_made_as_the_kind_says() {
        for opening in [Opening::ClientSpeaks, Opening::Bare] {
            let socket = make(SocketKind::V4(opening)).unwrap();
            assert_eq!(sockopt::socket_linger(&socket).unwrap(), Some(Duration::ZERO));
        }
    }
}
