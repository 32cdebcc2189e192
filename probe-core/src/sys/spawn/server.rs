//! The helper: one thread, one loop, one request at a time. It decides nothing and keeps nothing.

#![expect(unsafe_code, reason = "a door to the kernel: fork, clone3, _exit")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;

use super::{child, receive_with_fds};

pub const HAS_CGROUP: u8 = 1;
pub const HAS_OUTPUT: u8 = 2;
pub const HAS_NAMESPACE: u8 = 4;

/// linux/sched.h (kernel 5.7); libc's constant is an int, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Signals that ask a group of processes to end. The helper outlives them: the agent still needs it for
/// preStop hooks, and it ends with the agent's end of the socket.
const IGNORED: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTSTP];

/// Descriptors of one request.
#[derive(Debug)]
pub struct Request {
    pub control: OwnedFd,
    pub cgroup: Option<OwnedFd>,
    pub output: Option<(OwnedFd, OwnedFd)>,
    pub namespace_of: Option<OwnedFd>,
}

/// `struct clone_args` up to the member `cgroup` (clone3(2), kernel 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// How a child was made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BornIn {
    /// In its cgroup, or there is none.
    Place,
    /// In the helper's cgroup: it has to move itself.
    Elsewhere,
}

/// Forks the helper, which serves `socket`, and answers its pid.
pub fn fork(socket: OwnedFd) -> io::Result<u32> {
    // SAFETY: needed because there is no safe fork. The caller's process has one thread (documented at
    // `Spawner::fork_before_threads`), so no lock is held by a thread that the child lacks; glibc's fork also
    // puts its own allocator into order. The child never returns from this function.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            serve(&socket);
            exit(0)
        }
        pid => Ok(pid.unsigned_abs()),
    }
}

/// Ends this process at once: no destructors, no buffers of the parent's are flushed twice.
pub fn exit(code: i32) -> ! {
    // SAFETY: needed because std::process::exit runs handlers that belong to the parent. _exit takes a number
    // and does not return.
    unsafe { libc::_exit(code) }
}

fn serve(socket: &OwnedFd) {
    // Out of the agent's session, so that Ctrl-C at a terminal does not reach the helper.
    let _leader_already = rustix::process::setsid();
    for signal in IGNORED {
        // SAFETY: needed because std cannot set dispositions. SIG_IGN installs no handler, so no code of ours
        // runs in signal context.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    child::close_all_but(&[socket.as_raw_fd()]);
    let _named = rustix::thread::set_name(c"defib-spawner");
    loop {
        let mut flags = [0u8; 1];
        let (length, fds) = match receive_with_fds(socket.as_fd(), &mut flags) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if length == 0 {
            return;
        }
        let answer = match unpack(flags[0], fds) {
            Some(request) => match clone_child(request, socket) {
                Ok(pid) => pid,
                Err(errno) => -errno.raw_os_error(),
            },
            None => -Errno::INVAL.raw_os_error(),
        };
        let sent = rustix::net::send(socket, &answer.to_ne_bytes(), rustix::net::SendFlags::NOSIGNAL);
        if sent.is_err() {
            return;
        }
    }
}

fn unpack(flags: u8, fds: Vec<OwnedFd>) -> Option<Request> {
    let mut fds = fds.into_iter();
    let control = fds.next()?;
    let cgroup = if flags & HAS_CGROUP != 0 { Some(fds.next()?) } else { None };
    let output = if flags & HAS_OUTPUT != 0 { Some((fds.next()?, fds.next()?)) } else { None };
    let namespace_of = if flags & HAS_NAMESPACE != 0 { Some(fds.next()?) } else { None };
    Some(Request { control, cgroup, output, namespace_of })
}

/// Makes the child and answers its pid. In the child it does not return.
fn clone_child(request: Request, socket: &OwnedFd) -> Result<i32, Errno> {
    let mut args = CloneArgs { flags: libc::CLONE_PARENT as u64, ..CloneArgs::default() };
    if let Some(cgroup) = &request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: needed because only clone3 makes a sibling inside a cgroup. `args` is a complete clone_args of
    // the size given; without CLONE_VM the child has its own copy of this single-threaded process, so it may go
    // on with ordinary code. With CLONE_PARENT the exit signal must be zero: it is the helper's, SIGCHLD.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    let (made, born_in) = match made {
        -1 if last_errno() == Errno::NOSYS => {
            let flags = libc::CLONE_PARENT as libc::c_ulong;
            // SAFETY: as above; a null stack and no thread pointers make clone(2) behave like fork(2). This is
            // for hosts whose seccomp filter does not know clone3.
            (unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }, BornIn::Elsewhere)
        }
        made => (made, BornIn::Place),
    };
    match made {
        -1 => Err(last_errno()),
        0 => child::run(request, socket, born_in),
        pid => i32::try_from(pid).map_err(|_| Errno::OVERFLOW),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
