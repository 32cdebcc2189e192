//! Descriptors that tokio's epoll watches: sockets, the wake-up and the timer.

#![expect(unsafe_code, reason = "tokio takes a descriptor on the promise that it stays the same")]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::super::setup::errno_of;
use super::super::{Errno, RingError, Waker};

/// What is waited for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Direction {
    Read,
    Write,
}

/// A descriptor in epoll, edge-triggered; it leaves epoll when it is dropped or taken out.
pub struct Watched<T: AsRawFd> {
    fd: AsyncFd<T>,
}

impl Watched<OwnedFd> {
    /// Call it inside the runtime. What epoll does not take comes back.
    pub fn new(fd: OwnedFd) -> Result<Watched<OwnedFd>, (OwnedFd, Errno)> {
        watch(fd)
    }

    pub fn fd(&self) -> &OwnedFd {
        self.fd.get_ref()
    }

    /// Takes it out of epoll.
    pub fn into_fd(self) -> OwnedFd {
        self.fd.into_inner()
    }

    /// Makes a system call that does not block when epoll has said that it may succeed. What is not done by
    /// it is tried again when epoll speaks next, after which `cx` is woken.
    pub fn attempt<T>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        call: impl FnOnce(&OwnedFd) -> Result<T, Errno>,
    ) -> Poll<Result<T, Errno>> {
        let Poll::Ready(guard) = self.poll_ready(cx, direction) else { return Poll::Pending };
        let mut guard = guard.map_err(|error| errno_of(&error))?;
        match call(self.fd()) {
            Err(Errno::AGAIN | Errno::ALREADY | Errno::INPROGRESS) => guard.clear_ready(),
            Err(Errno::INTR) => {}
            done => return Poll::Ready(done),
        }
        // Asks to be woken; what is still or again ready has the next step for its next try.
        if self.poll_ready(cx, direction).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<T: AsRawFd> Watched<T> {
    fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
    ) -> Poll<std::io::Result<AsyncFdReadyGuard<'_, T>>> {
        match direction {
            Direction::Read => self.fd.poll_read_ready(cx),
            Direction::Write => self.fd.poll_write_ready(cx),
        }
    }

    /// Whether it has become readable since the last call. The descriptor itself need not be read, since
    /// each event is an edge of its own.
    fn take(&self, cx: &mut Context<'_>) -> bool {
        let mut was_ready = false;
        // The second look only asks to be woken.
        for _ in 0..2 {
            let Poll::Ready(Ok(mut guard)) = self.fd.poll_read_ready(cx) else { break };
            guard.clear_ready();
            was_ready = true;
        }
        was_ready
    }
}

/// Has to own its descriptor and to return always the same one: [`OwnedFd`] and [`Event`] do.
fn watch<T: AsRawFd>(fd: T) -> Result<Watched<T>, (T, Errno)> {
    // SAFETY: needed because tokio cannot know what `as_raw_fd` returns. Both types that come here own their
    // descriptor, never exchange it and close it only when they are dropped, and `Watched` gives no mutable
    // access; so it stays open and the same until it has left epoll.
    let fd = unsafe { AsyncFd::register(fd) };
    fd.map(|fd| Watched { fd }).map_err(|error| {
        let (fd, error) = error.into_parts();
        (fd, errno_of(&error))
    })
}

/// The wake-up from other threads.
pub struct WakeEvent {
    event: Watched<Event>,
}

/// Keeps the eventfd open.
struct Event(Waker);

impl AsRawFd for Event {
    fn as_raw_fd(&self) -> RawFd {
        self.0.raw_fd()
    }
}

impl WakeEvent {
    pub fn new(waker: Waker) -> Result<WakeEvent, RingError> {
        let event = watch(Event(waker)).map_err(|(_, errno)| RingError::epoll("epoll_ctl", errno))?;
        Ok(WakeEvent { event })
    }

    /// Whether somebody has woken us since the last call; if not, `cx` is woken when somebody does.
    pub fn take(&self, cx: &mut Context<'_>) -> bool {
        self.event.take(cx)
    }
}

/// Ends a wait. Tokio's own timers round up to a millisecond, and a probe's period may be ten.
pub struct Timer {
    fd: Watched<OwnedFd>,
}

impl Timer {
    pub fn new() -> Result<Timer, RingError> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|errno| RingError::epoll("timerfd_create", errno))?;
        let fd = watch(fd).map_err(|(_, errno)| RingError::epoll("epoll_ctl", errno))?;
        Ok(Timer { fd })
    }

    /// Rings once after `timeout`, which is not zero.
    pub fn set(&self, timeout: Duration) -> Result<(), Errno> {
        let it_value = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(self.fd.fd(), TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })
            .map(drop)
    }

    /// Whether it has rung since the last call; if not, `cx` is woken when it does.
    pub fn take(&self, cx: &mut Context<'_>) -> bool {
        self.fd.take(cx)
    }
}
