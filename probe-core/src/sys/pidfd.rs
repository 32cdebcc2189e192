//! Process descriptors: a pid that cannot come to mean somebody else (kernel 5.3).

#![expect(unsafe_code, reason = "a door to the kernel: pidfd_send_signal with real-time signals")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};

use crate::model::runtime::ExitStatus;

/// Whether a signal found somebody.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    Sent,
    /// The process has ended already.
    Ended,
}

/// A descriptor for the process that has this pid now. Only sound for a child that nobody has reaped, or
/// together with a check of the start time afterwards ([`super::procfs::Stat::start_ticks`]).
///
/// Errors: ESRCH when there is no such process, EMFILE when descriptors are used up.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(Errno::SRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal by number, real-time ones too (kernel 5.1).
pub fn signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<Delivery> {
    // SAFETY: needed because rustix has no constructor for real-time signals. The descriptor is borrowed for
    // the call, the info pointer is null (as kill(2) would fill it in), and no memory is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        return Ok(Delivery::Sent);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(Delivery::Ended),
        _ => Err(error),
    }
}

/// Takes the exit status of a child and removes its zombie. None while it still runs. ECHILD when it is not
/// our child, or somebody else has reaped it.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd), options)?;
    Ok(status.as_ref().map(exit_status))
}

/// Waits until the process has ended, reaped or not. False when `timeout` passes first; None waits for ever.
pub fn wait_ended(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    poll_until(pidfd.as_fd(), PollFlags::IN, timeout)
}

/// Waits for one descriptor; EINTR goes on waiting (with the whole timeout again, it is a watchdog).
pub(super) fn poll_until(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    let timeout = timeout.map(|t| Timespec::try_from(t).map_err(|_| Errno::INVAL)).transpose()?;
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// As wait(2) tells it (`si_code` and `si_status`).
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let low_byte = |value: i32| (value & 0xff) as u8;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(low_byte(code)),
        (None, Some(number)) => ExitStatus::Signal { number: low_byte(number), core_dumped: status.dumped() },
        // waitid was asked for exits only, so the kernel gave one of the two.
        (None, None) => ExitStatus::Code(u8::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn shell(script: &str) -> Child {
        Command::new("/bin/sh").args(["-c", script]).spawn().unwrap()
    }

    #[test]
    fn statuses_are_those_of_wait() {
        let cases = [
            ("exit 0", ExitStatus::Code(0)),
            ("exit 1", ExitStatus::Code(1)),
            ("exit 255", ExitStatus::Code(255)),
            ("kill -TERM $$", ExitStatus::Signal { number: 15, core_dumped: false }),
            ("kill -KILL $$", ExitStatus::Signal { number: 9, core_dumped: false }),
        ];
        for (script, expected) in cases {
            let pidfd = open(shell(script).id()).unwrap();
            assert!(wait_ended(pidfd.as_fd(), Some(Duration::from_secs(30))).unwrap(), "{script}");
            assert_eq!(reap(pidfd.as_fd()).unwrap(), Some(expected), "{script}");
            assert_eq!(signal(pidfd.as_fd(), 9).unwrap(), Delivery::Ended, "{script}");
        }
    }

    #[test]
    fn signals_reach_a_running_process() {
        let pidfd = open(shell("exec sleep 1000").id()).unwrap();
        assert_eq!(reap(pidfd.as_fd()).unwrap(), None);
        // SIGRTMIN+3 of glibc: a real-time signal kills a process that has no handler.
        assert_eq!(signal(pidfd.as_fd(), 37).unwrap(), Delivery::Sent);
        assert!(wait_ended(pidfd.as_fd(), Some(Duration::from_secs(30))).unwrap());
        let expected = ExitStatus::Signal { number: 37, core_dumped: false };
        assert_eq!(reap(pidfd.as_fd()).unwrap(), Some(expected));
    }

    #[test]
    fn nobody_has_no_descriptor() {
        assert_eq!(open(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(open(u32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
