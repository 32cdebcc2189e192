//! Waking a shard that sleeps in its ring: an eventfd whose read is kept armed there.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

use super::{Errno, RingError};

/// Wakes the owner of a ring from another thread. While the owner is awake a wake-up costs no system call.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl Waker {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new() -> Result<Waker, RingError> {
        // Blocking: a ring does not wait for a non-blocking descriptor, it completes with EAGAIN at once.
        let event =
            eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| RingError::refused("eventfd2", errno))?;
        Ok(Waker { shared: Arc::new(Shared { event, asleep: AtomicBool::new(false) }) })
    }

    /// Call after the message is where the owner will find it.
    pub fn wake(&self) {
        // Pairs with the fence in `fall_asleep`: either the owner sees the message, or we see it asleep.
        fence(Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::Relaxed) {
            let written = rustix::io::write(&self.shared.event, &1_u64.to_ne_bytes());
            debug_assert!(matches!(written, Ok(8) | Err(Errno::INTR)), "write to eventfd: {written:?}");
        }
    }

    /// The owner is about to sleep. It must look for messages once more after this call.
    pub fn fall_asleep(&self) {
        self.shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake: from now on it finds messages by itself.
    pub fn awake(&self) {
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}
