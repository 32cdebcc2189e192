//! What a thread needs of its ring besides the operations: to sleep in it, and to be woken.

use std::time::Duration;

use super::{Ring, RingError, Uring, UringOptions, Waker};

/// A ring of the kernel's. Belongs to the thread that made it.
pub trait Driver: Ring {
    /// Hands everything that was pushed to the kernel and sleeps: over `quiet` in any case, so that completions
    /// gather, then until there is a completion, a wake-up or the end of `timeout` (counted from the call). Zero
    /// looks without sleeping.
    ///
    /// # Errors
    /// The kernel refuses the ring for good.
    fn submit_and_wait(&mut self, quiet: Duration, timeout: Duration) -> Result<(), RingError>;

    /// Wakes this ring's owner from another thread.
    fn waker(&self) -> Waker;
}

/// Which ring carries the probes. Outcomes are the same on each.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum RingKind {
    /// [`Uring`].
    Uring,
    /// [`super::Epoll`]: where io_uring is forbidden, at more CPU for each probe.
    Epoll,
}

/// How a ring of either kind is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RingOptions {
    Uring(UringOptions),
    Epoll {
        /// Runs in flight. Where RLIMIT_NOFILE allows fewer, fewer are made.
        slots: u32,
    },
}

impl RingOptions {
    /// With everything that the kernel can do.
    pub fn best(kind: RingKind, slots: u32) -> RingOptions {
        match kind {
            RingKind::Uring => RingOptions::Uring(UringOptions::best(slots)),
            RingKind::Epoll => RingOptions::Epoll { slots },
        }
    }
}

impl Driver for Uring {
    fn submit_and_wait(&mut self, quiet: Duration, timeout: Duration) -> Result<(), RingError> {
        Uring::submit_and_wait(self, quiet, timeout)
    }

    fn waker(&self) -> Waker {
        Uring::waker(self)
    }
}
