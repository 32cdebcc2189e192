//! A wake-up between threads: an eventfd that a ring, epoll or tokio can wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Wakes whoever waits for its descriptor to be readable. Wake-ups before the next [`Waker::clear`] count once.
#[derive(Debug)]
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    /// A new one, not raised. Fails when the process is out of descriptors.
    pub fn new() -> io::Result<Waker> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { fd })
    }

    /// Makes the descriptor readable. Never blocks: a full counter is already a wake-up.
    pub fn wake(&self) {
        let result = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        debug_assert!(matches!(result, Ok(8) | Err(Errno::AGAIN)), "eventfd write: {result:?}");
    }

    /// Takes the wake-ups so far; false when there was none.
    pub fn clear(&self) -> bool {
        let mut count = [0u8; 8];
        rustix::io::read(&self.fd, &mut count).is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_merge_until_cleared() {
        let waker = Waker::new().unwrap();
        assert!(!waker.clear());
        waker.wake();
        waker.wake();
        assert!(waker.clear());
        assert!(!waker.clear());
    }
}
