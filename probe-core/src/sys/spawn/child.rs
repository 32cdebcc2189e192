//! From birth to execve, in the new process. It is a copy of the single-threaded helper, so ordinary code is
//! allowed here; it ends in execve or with a failure on the control socket.

#![expect(unsafe_code, reason = "a door to the kernel: signals, credentials, execve, raw descriptors")]

use std::ffi::{CStr, CString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Gid, Uid};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use super::failure::{SpawnFailure, Stage, exists};
use super::server::{BornIn, Request, exit};
use super::spec::{BindFile, ChildSpec, Identity, Output};
use crate::model::limits::SPAWN_SPEC_MAX_BYTES;

/// What execvp uses when PATH is not set (execvp(3), without the current folder).
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit status of a process that never became the container; nobody shows it.
const NOT_STARTED: i32 = 127;
/// CPUs that an affinity mask can name: as many as the largest kernel build has.
const CPUS_MAX: usize = 8_192;
/// Signals of Linux are 1 to 64.
const SIGNALS: std::ops::RangeInclusive<libc::c_int> = 1..=64;
/// Size of the kernel's signal set.
const SIGSET_BYTES: usize = 8;

type Step<T> = Result<T, SpawnFailure>;

/// The life of a child.
pub fn run(request: Request, helper_socket: &OwnedFd, born_in: BornIn) -> ! {
    close(helper_socket.as_raw_fd());
    let Request { control, cgroup, output, namespace_of } = request;
    let mut control = UnixStream::from(control);
    let Some(spec) = read_spec(&mut control) else {
        // The agent is gone or gave up: nothing was started, nothing is said.
        exit(NOT_STARTED)
    };
    let outcome = spec.and_then(|spec| {
        enter_cgroups(&spec, cgroup.as_ref(), born_in).map_err(at(Stage::Cgroup))?;
        start_afresh()?;
        open_output(&spec, output.as_ref()).map_err(at(Stage::Log))?;
        enter_namespace(&spec, namespace_of.as_ref())?;
        take_identity(spec.identity)?;
        rustix::process::chdir(&*spec.working_dir).map_err(at(Stage::WorkingDir))?;
        // What was opened without CLOEXEC. The control socket closes itself at execve, which is the answer.
        close_from_3_but(&[control.as_raw_fd()]);
        Ok(exec(&spec))
    });
    let (Ok(failure) | Err(failure)) = outcome;
    let _agent_is_gone = control.write_all(&failure.encode());
    exit(NOT_STARTED)
}

/// Closes every descriptor from 3 on but these, and puts /dev/null on 0 to 2.
pub fn close_all_but(keep: &[RawFd]) {
    if let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty()) {
        // Only a process that was started without the first three can fail here, and then it has them now.
        (0..3).for_each(|target| drop(duplicate(null.as_raw_fd(), target)));
        // Its number may be one of them; if not, it is closed below.
        std::mem::forget(null);
    }
    close_from_3_but(keep);
}

fn close_from_3_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.unsigned_abs()).filter(|&fd| fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().chain([u32::MAX]) {
        if kept > first {
            let last = kept - 1;
            // SAFETY: needed because no safe interface closes descriptors that it does not own. This process is
            // a fresh copy: the values that own the closed ones are never used or dropped here again.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = kept.saturating_add(1);
    }
}

/// None at end of file.
fn read_spec(control: &mut UnixStream) -> Option<Step<ChildSpec>> {
    let mut length = [0u8; 4];
    control.read_exact(&mut length).ok()?;
    let length = u32::from_ne_bytes(length) as usize;
    if length > SPAWN_SPEC_MAX_BYTES {
        return Some(Err(SpawnFailure { stage: Stage::Description, errno: libc::E2BIG }));
    }
    let mut body = vec![0; length];
    control.read_exact(&mut body).ok()?;
    let malformed = |_| SpawnFailure { stage: Stage::Description, errno: libc::EINVAL };
    Some(ChildSpec::decode(&body).map_err(malformed))
}

fn at<E: Into<io::Error>>(stage: Stage) -> impl Fn(E) -> SpawnFailure {
    move |error| {
        let error: io::Error = error.into();
        SpawnFailure { stage, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

fn enter_cgroups(spec: &ChildSpec, cgroup: Option<&OwnedFd>, born_in: BornIn) -> io::Result<()> {
    if let (Some(cgroup), BornIn::Elsewhere) = (cgroup, born_in) {
        let procs =
            rustix::fs::openat(cgroup, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&procs, b"0")?;
    }
    for tasks in &spec.v1_tasks {
        // A single thread that names itself is cheap; cgroup.procs takes a lock that waits for all of the
        // machine (6 to 20 ms).
        let file = rustix::fs::open(tasks, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, b"0")?;
    }
    Ok(())
}

/// Nothing of the agent is inherited: session, signals, affinity, OOM score, umask, stdin.
fn start_afresh() -> Step<()> {
    rustix::process::setsid().map_err(at(Stage::Session))?;
    reset_signals().map_err(at(Stage::Signals))?;
    reset_scheduling();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let null = null.map_err(at(Stage::Stdin))?;
    duplicate(null.as_raw_fd(), 0).map_err(at(Stage::Stdin))
}

fn reset_signals() -> io::Result<()> {
    // A zeroed `struct sigaction` of the kernel, with room to spare on every architecture: SIG_DFL, no flags.
    let default = [0u64; 8];
    for signal in SIGNALS {
        // SAFETY: needed because glibc refuses its own two signals, which somebody above us may have ignored.
        // The kernel reads its structure from a live array that is larger; SIG_DFL installs no code of ours.
        // SIGKILL and SIGSTOP refuse, which is right: they have no other action.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGSET_BYTES,
            );
        }
    }
    let mut none = std::mem::MaybeUninit::uninit();
    // SAFETY: needed to empty the mask. sigemptyset fills the set before sigprocmask reads it, and the old mask
    // is not asked for.
    let result = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// All CPUs, and the OOM score of an ordinary process. A host that forbids either keeps what it had.
fn reset_scheduling() {
    let all_cpus = [0xffu8; CPUS_MAX / 8];
    // SAFETY: needed because the safe wrapper stops at 1,024 CPUs. The pointer and length are those of a live
    // array, which the kernel reads and masks with the CPUs that exist.
    unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, all_cpus.len(), all_cpus.as_ptr()) };
    let path = "/proc/self/oom_score_adj";
    if std::fs::read(path).is_ok_and(|score| score.trim_ascii() != b"0") {
        let _forbidden = std::fs::write(path, "0");
    }
}

fn open_output(spec: &ChildSpec, passed: Option<&(OwnedFd, OwnedFd)>) -> io::Result<()> {
    match (&spec.output, passed) {
        (Output::Log(path), _) => {
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let log = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
            // A container that opens /dev/stdout anew needs the right to its own log.
            let Identity { user, group } = spec.identity;
            if user.is_some() || group.is_some() {
                rustix::fs::fchown(&log, user.map(Uid::from_raw), group.map(Gid::from_raw))?;
            }
            duplicate(log.as_raw_fd(), 1)?;
            duplicate(log.as_raw_fd(), 2)
        }
        (Output::Passed, Some((stdout, stderr))) => {
            duplicate(stdout.as_raw_fd(), 1)?;
            duplicate(stderr.as_raw_fd(), 2)
        }
        (Output::Passed, None) => Err(Errno::BADF.into()),
    }
}

fn enter_namespace(spec: &ChildSpec, namespace_of: Option<&OwnedFd>) -> Step<()> {
    if let Some(process) = namespace_of {
        let joined =
            rustix::thread::move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT);
        match joined {
            // Who may not join could not make one either: the container is in ours.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(at(Stage::Namespace)(error)),
        }
    }
    if let Some(bind) = &spec.bind {
        // Without the right to mount, the container does without its termination message (design 9.8).
        let _forbidden = bind_file(bind);
    }
    Ok(())
}

/// Host mounts go on to appear (slave); what is mounted here stays here.
fn bind_file(bind: &BindFile) -> io::Result<()> {
    // SAFETY: needed because unsharing may break promises between threads; this process has one, and the
    // namespace of mounts is not among those that memory safety rests on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    rustix::fs::open(&bind.target, flags, Mode::from_raw_mode(0o644))?;
    Ok(mount_bind(&bind.source, &bind.target)?)
}

/// Groups before user, as the right to change them goes with root.
fn take_identity(identity: Identity) -> Step<()> {
    if let Some(group) = identity.group.map(Gid::from_raw) {
        rustix::thread::set_thread_groups(&[group]).map_err(at(Stage::Groups))?;
        rustix::thread::set_thread_gid(group).map_err(at(Stage::Group))?;
    }
    if let Some(user) = identity.user.map(Uid::from_raw) {
        rustix::thread::set_thread_uid(user).map_err(at(Stage::User))?;
    }
    Ok(())
}

/// Becomes the program, or says why not. A bare name goes through PATH as execvp(3) does it: a file that may
/// not be run is remembered, and the search goes on.
fn exec(spec: &ChildSpec) -> SpawnFailure {
    let program = spec.program.to_bytes();
    if program.contains(&b'/') {
        let errno = execve(&spec.program, spec);
        let stage = if errno == libc::ENOENT && exists(program) { Stage::Interpreter } else { Stage::Exec };
        return SpawnFailure { stage, errno };
    }
    let mut failure = SpawnFailure { stage: Stage::Lookup, errno: libc::ENOENT };
    let path = spec.variable("PATH").unwrap_or(DEFAULT_PATH);
    for folder in path.split(|&byte| byte == b':').filter(|folder| !folder.is_empty() && !program.is_empty())
    {
        let Ok(candidate) = CString::new([folder, b"/", program].concat()) else { continue };
        let errno = execve(&candidate, spec);
        match errno {
            libc::ENOENT if exists(candidate.to_bytes()) => {
                return SpawnFailure { stage: Stage::Interpreter, errno };
            }
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => failure = SpawnFailure { stage: Stage::Exec, errno },
            _ => return SpawnFailure { stage: Stage::Exec, errno },
        }
    }
    failure
}

/// Returns only to say why it failed.
fn execve(path: &CStr, spec: &ChildSpec) -> i32 {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(&spec.argv), pointers(&spec.env));
    // SAFETY: needed because std replaces a process only with its own environment rules. Path, arguments and
    // environment are NUL-terminated strings in null-terminated arrays that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: needed because the safe dup2 wants to own its target; 0, 1 and 2 have no owner here. Both are
    // plain numbers, and nothing else uses the target.
    match unsafe { libc::dup2(from, to) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn close(fd: RawFd) {
    // SAFETY: needed because the owner of this descriptor is borrowed from the helper's loop, which this copy of
    // the process never returns to: nobody uses or closes the number again.
    unsafe { libc::close(fd) };
}
