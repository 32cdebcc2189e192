//! The message headers of all slots: a receive by recvmsg also brings the kernel's receive time.

#![expect(unsafe_code, reason = "the kernel fills the headers while safe code reads others of them")]

use std::cell::UnsafeCell;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::Errno;
use super::sockets::set_flag;
use crate::model::time::Wall;

const NS_PER_S: i64 = 1_000_000_000;
/// Room for one time stamp behind its header, in words: CMSG_SPACE(sizeof(struct timespec)).
const CONTROL_WORDS: usize = 4;

/// One header per slot. Nothing in here moves.
pub struct Messages {
    entries: Box<[UnsafeCell<Message>]>,
}

#[repr(C)]
struct Message {
    header: libc::msghdr,
    part: libc::iovec,
    control: [u64; CONTROL_WORDS],
}

// SAFETY: the pointers in the headers lead into the arena and into the entries themselves, both of which belong to
// the ring that owns this value and go where it goes.
unsafe impl Send for Messages {}

impl Messages {
    pub fn new(slots: u32) -> Messages {
        let empty = || {
            // SAFETY: needed because msghdr has padding and cannot be written as a literal on every C library; it is
            // plain data for which all zeroes is "no name, no parts, no control".
            let header = unsafe { std::mem::zeroed() };
            let part = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
            UnsafeCell::new(Message { header, part, control: [0; CONTROL_WORDS] })
        };
        Messages { entries: std::iter::repeat_with(empty).take(slots as usize).collect() }
    }

    /// The header of `slot` for a receive of up to `len` bytes to `start`. Only while no receive of the slot is in
    /// flight: the kernel reads it then, and writes to it.
    pub fn prepare(&mut self, slot: usize, start: *mut u8, len: u32) -> *mut libc::msghdr {
        let message = self.entries[slot].get_mut();
        message.part = libc::iovec { iov_base: start.cast(), iov_len: len as usize };
        message.header.msg_iov = &raw mut message.part;
        message.header.msg_iovlen = 1;
        message.header.msg_control = (&raw mut message.control).cast();
        message.header.msg_controllen = size_of_val(&message.control) as _;
        message.header.msg_flags = 0;
        &raw mut message.header
    }

    /// The receive time that the latest receive of the slot has brought. Only while none is in flight.
    pub fn received_at(&mut self, slot: usize) -> Option<Wall> {
        let message = self.entries[slot].get_mut();
        // One whole control message: its length, level and type in two words (cmsg(3), 64-bit layout), then the time.
        let [head, kind, seconds, nanoseconds] = message.control;
        let is_whole = message.header.msg_controllen >= size_of_val(&message.control);
        let (level, what) = (kind as u32 as i32, (kind >> 32) as i32);
        let is_time = level == libc::SOL_SOCKET && what == libc::SCM_TIMESTAMPNS;
        if !is_whole || !is_time || (head as usize) < size_of_val(&message.control) {
            return None;
        }
        Some(Wall::from_ns((seconds as i64).saturating_mul(NS_PER_S).saturating_add(nanoseconds as i64)))
    }
}

/// A socket that keeps the kernel's time stamping on. The first and the last socket that want stamps switch a static
/// key for the whole machine, which a kernel worker pays for; with this one open it is switched once.
pub fn keep_stamping() -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_flag(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_from_a_whole_control_message() {
        let mut messages = Messages::new(2);
        let mut space = [0_u8; 8];
        let header = messages.prepare(1, space.as_mut_ptr(), 8);
        let bytes = size_of::<[u64; CONTROL_WORDS]>();
        // SAFETY: the kernel's part, played by the test: the header and its control bytes belong to `messages`.
        unsafe {
            assert_eq!((*header).msg_controllen, bytes);
            let kind = libc::SOL_SOCKET as u32 as u64 | (libc::SCM_TIMESTAMPNS as u64) << 32;
            (*header).msg_control.cast::<[u64; CONTROL_WORDS]>().write([bytes as u64, kind, 7, 9]);
        }
        assert_eq!(messages.received_at(1), Some(Wall::from_ns(7_000_000_009)));
        // SAFETY: as above.
        unsafe { (*header).msg_controllen = 0 };
        assert_eq!(messages.received_at(1), None, "nothing came");
        assert_eq!(messages.received_at(0), None, "never used");
    }
}
