//! Receiving with the kernel's receive time.

#![expect(unsafe_code, reason = "rustix's recvmsg does not tell time stamps")]

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::RecvFlags;

use super::super::messages::{self, Messages};
use super::super::{Errno, RingError};
use crate::model::time::Wall;

/// One message header serves all slots, since a call is over when it returns.
pub struct Receiver {
    messages: Messages,
    /// Keeps time stamping on for the life of the ring.
    _stamping: OwnedFd,
}

impl Receiver {
    pub fn new() -> Result<Receiver, RingError> {
        let stamping = messages::keep_stamping().map_err(|errno| RingError::epoll("setsockopt", errno))?;
        Ok(Receiver { messages: Messages::new(1), _stamping: stamping })
    }

    /// As [`Receiver::receive`], without the time, and without room for descriptors that a peer passes over a Unix
    /// socket.
    pub fn receive_plain(socket: &OwnedFd, room: &mut [u8]) -> Result<(u32, Option<Wall>), Errno> {
        let (count, _) = rustix::net::recv(socket, room, RecvFlags::empty())?;
        Ok((count as u32, None))
    }

    /// Receives into `room` from a socket that does not block: how many bytes, and when the last of them came.
    pub fn receive(&mut self, socket: &OwnedFd, room: &mut [u8]) -> Result<(u32, Option<Wall>), Errno> {
        let header = self.messages.prepare(0, room.as_mut_ptr(), room.len() as u32);
        // SAFETY: needed because rustix's recvmsg drops time stamps. The header leads to `room` and to the control
        // bytes of `messages`, both borrowed for the whole call, and the kernel keeps neither.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), header, 0) };
        match u32::try_from(count) {
            Ok(0) => Ok((0, None)),
            Ok(count) => Ok((count, self.messages.received_at(0))),
            Err(_) => {
                let error = std::io::Error::last_os_error();
                Err(error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
            }
        }
    }
}
