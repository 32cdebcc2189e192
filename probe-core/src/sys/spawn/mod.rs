//! Starting processes from a small helper, so that the agent itself never forks (design 9.2).
//!
//! ```text
//! agent ── request + descriptors ──► spawner     a SOCK_SEQPACKET pair, made before there are threads
//!   │  ◄── pid ─────────────────────── │ clone3(CLONE_PARENT | CLONE_INTO_CGROUP)
//!   │                                  ▼
//!   └── description, which is the go ► child ── execve
//!       ◄── end of file, or what failed
//! ```
//!
//! The child is a child of the agent, which reaps it. It does nothing before its description arrives, so the
//! agent can first write down who it is; an agent that dies before leaves nothing behind.

mod child;
mod failure;
mod server;
mod spec;
#[cfg(test)]
mod tests;

pub use failure::{SpawnFailure, Stage};
pub use spec::{BindFile, ChildSpec, Identity, Output, SpecError};

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::sys::pidfd;

/// Descriptors that go with one request: control, cgroup, stdout, stderr, namespace.
const REQUEST_FDS_MAX: usize = 5;

/// The agent's end of the spawner. Dropping it ends the spawner; what it started lives on.
#[derive(Debug)]
pub struct Spawner {
    socket: OwnedFd,
    pid: u32,
}

/// What a child gets at birth.
#[derive(Copy, Clone, Debug, Default)]
pub struct Birth<'a> {
    /// Folder of the v2 cgroup it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Where stdout and stderr go, for [`Output::Passed`].
    pub output: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    /// A pidfd of the process whose mount namespace it joins.
    pub namespace_of: Option<BorrowedFd<'a>>,
}

/// A child that exists and waits for its description.
#[derive(Debug)]
pub struct Newborn {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// Write the encoded [`ChildSpec`] here, then read: end of file means that the program runs, anything else
    /// is a [`SpawnFailure`]. Dropping it unwritten ends the child.
    pub control: UnixStream,
}

/// A request that the spawner has not answered yet.
#[derive(Debug)]
#[must_use = "every request is answered: call Spawner::receive"]
pub struct Pending {
    control: UnixStream,
}

impl Spawner {
    /// Forks the spawner. Call it first thing in `main`: the helper keeps what the process is now (signal
    /// mask, affinity, OOM score, limits, namespaces), and a fork of many threads would copy held locks.
    ///
    /// Errors: those of socketpair(2) and fork(2).
    pub fn fork_before_threads() -> io::Result<Spawner> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let pid = server::fork(theirs)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Spawner { socket: ours, pid })
    }

    /// Pid of the helper.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks for a child. Never blocks: WouldBlock when the helper's queue is full. Requests are answered in
    /// order, by [`Spawner::receive`].
    ///
    /// Errors: BrokenPipe when the helper is gone.
    pub fn send(&self, birth: Birth<'_>) -> io::Result<Pending> {
        let (control, childs) = UnixStream::pair()?;
        let mut fds = vec![childs.as_fd()];
        fds.extend(birth.cgroup);
        fds.extend(birth.output.map(|(stdout, _)| stdout));
        fds.extend(birth.output.map(|(_, stderr)| stderr));
        fds.extend(birth.namespace_of);
        let has = |present: bool, bit: u8| if present { bit } else { 0 };
        let flags = has(birth.cgroup.is_some(), server::HAS_CGROUP)
            | has(birth.output.is_some(), server::HAS_OUTPUT)
            | has(birth.namespace_of.is_some(), server::HAS_NAMESPACE);
        send_with_fds(self.socket.as_fd(), &[flags], &fds)?;
        Ok(Pending { control })
    }

    /// Takes the answer to the oldest request. Never blocks: WouldBlock, with the request given back, until
    /// the socket is readable.
    ///
    /// Errors: the errno of clone3; UnexpectedEof when the helper is gone.
    pub fn receive(&self, pending: Pending) -> Result<Newborn, (io::Error, Option<Pending>)> {
        let mut answer = [0u8; 4];
        let received = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty());
        let value = match received.map_err(io::Error::from) {
            Ok((4, _)) => i32::from_ne_bytes(answer),
            Ok(_) => return Err((io::ErrorKind::UnexpectedEof.into(), None)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err((error, Some(pending))),
            Err(error) => return Err((error, None)),
        };
        let Ok(pid) = u32::try_from(value) else {
            return Err((io::Error::from_raw_os_error(-value), None));
        };
        // Nobody else reaps our children, so the pid is still this one's.
        match pidfd::open(pid) {
            Ok(pidfd) => Ok(Newborn { pid, pidfd, control: pending.control }),
            Err(error) => {
                end_unwatched(pid);
                Err((error, None))
            }
        }
    }

    /// [`Spawner::send`] and [`Spawner::receive`] for callers that may block.
    pub fn spawn_blocking(&self, birth: Birth<'_>) -> io::Result<Newborn> {
        let mut pending = self.send(birth)?;
        loop {
            pidfd::poll_until(self.socket.as_fd(), rustix::event::PollFlags::IN, None)?;
            match self.receive(pending) {
                Ok(newborn) => return Ok(newborn),
                Err((_, Some(again))) => pending = again,
                Err((error, None)) => return Err(error),
            }
        }
    }
}

impl AsFd for Spawner {
    /// Readable when an answer is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Spawner {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // The helper ends at end of file; reap it so that no zombie stays.
        let _closing = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Ok(pidfd) = pidfd::open(self.pid) {
            let _ended = pidfd::wait_ended(pidfd.as_fd(), None);
            let _reaped = pidfd::reap(pidfd.as_fd());
        }
    }
}

/// A child that got no descriptor (there are none left) must not wait for its description for ever, nor stay a
/// zombie. It has run nothing, so it ends at once.
fn end_unwatched(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let _killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let _reaped = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
}

fn send_with_fds(socket: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REQUEST_FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(data)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One message and the descriptors that came with it; zero bytes at end of file.
fn receive_with_fds(socket: BorrowedFd<'_>, data: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REQUEST_FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(data)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::with_capacity(REQUEST_FDS_MAX);
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}
