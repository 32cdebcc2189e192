//! Containers and the processes that die in them: `tests/fixtures/die.c` in cgroups of the test's own.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probe_core::model::id::PodUid;
use probe_core::sys::cgroup::{Group, Limits, Tree};
use probe_core::sys::{clock, pidfd, procfs};
use probe_ebpf::Member;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use tempfile::TempDir;

/// Nothing here takes a second; a test that hangs fails after this.
pub const WATCHDOG: Duration = Duration::from_secs(60);
/// Bit of a status of wait(2): a core was dumped.
pub const CORE: u32 = 0x80;
/// No process has this pid (`PID_MAX_LIMIT` of `include/linux/threads.h` is 4 Mi).
const NOBODY: u32 = u32::MAX;

/// Whether the programs can be loaded; says why not.
pub fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("{test}: not run, since only root may load eBPF programs and make cgroups: run it as root");
    }
    is_root
}

/// A cgroup of its own, which is removed in the end with whatever is in it.
pub struct Container {
    group: Group,
}

impl Container {
    pub fn new() -> Container {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = u128::from(MADE.fetch_add(1, Ordering::Relaxed));
        // Unlike that of any other process of tests that runs now.
        let pod = PodUid(0xdea7_0000 << 96 | u128::from(std::process::id()) << 64 | number);
        let tree = Tree::detect().unwrap_or_else(|error| panic!("the test needs cgroups: {error}"));
        Container { group: tree.make(pod, "c.0", Limits::NONE).unwrap() }
    }

    pub fn dir(&self) -> &Path {
        self.group.dir()
    }

    /// A folder below it, made where it is missing.
    pub fn below(&self, path: &str) -> PathBuf {
        let dir = self.dir().join(path);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub fn id(&self) -> u64 {
        cgroup_id(self.dir())
    }

    /// The registration that knows the container by its cgroup alone.
    pub fn member(&self) -> Member {
        Member { pid: NOBODY, start_ticks: 0, cgroup_id: Some(self.id()) }
    }
}

impl Drop for Container {
    /// Best effort, since a test that has failed may leave anything.
    fn drop(&mut self) {
        let _killed = self.group.kill();
        let _empty = self.group.events().map(|mut events| events.wait_empty(WATCHDOG));
        let _removed = self.group.remove();
    }
}

/// The id of the cgroup that this folder is.
pub fn cgroup_id(dir: &Path) -> u64 {
    fs::metadata(dir).unwrap().ino()
}

/// A process that waits for the word.
pub struct Fixture {
    child: Child,
    pidfd: OwnedFd,
    pub start_ticks: u64,
    /// Its working folder, for a core.
    _folder: TempDir,
}

/// A process and its status, as wait(2) gives it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reaped {
    pub pid: u32,
    pub status: u32,
}

/// What the referees have seen.
#[derive(Debug)]
pub struct Ended {
    pub main: Reaped,
    pub start_ticks: u64,
    /// Told by the process itself.
    pub children: Vec<Reaped>,
    /// CLOCK_MONOTONIC, before the word and after the last wait.
    pub began_ns: u64,
    pub ended_ns: u64,
}

impl Fixture {
    /// `way` is that of die.c, its words separated by spaces.
    pub fn start(way: &str) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(compiled());
        command.args(way.split(' ')).current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let pidfd = pidfd::open(child.id()).unwrap();
        let start_ticks = procfs::stat(child.id()).unwrap().unwrap().start_ticks;
        Fixture { child, pidfd, start_ticks, _folder: folder }
    }

    pub fn start_in(cgroup: &Path, way: &str) -> Fixture {
        let fixture = Fixture::start(way);
        fixture.enter(cgroup);
        fixture
    }

    pub fn enter(&self, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), self.pid().to_string()).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The registration that knows the container by this main process.
    pub fn member(&self, cgroup_id: Option<u64>) -> Member {
        Member { pid: self.pid(), start_ticks: self.start_ticks, cgroup_id }
    }

    /// Gives the word and waits for the end.
    pub fn run(mut self) -> Ended {
        let began_ns = clock::mono().as_ns();
        self.child.stdin.take().unwrap().write_all(b"!").unwrap();
        let has_ended = pidfd::wait_ended(self.pidfd.as_fd(), Some(WATCHDOG)).unwrap();
        assert!(has_ended, "process {} does not end", self.pid());
        let main = Reaped { pid: self.pid(), status: self.referee() };
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let children = text.lines().map(Reaped::parse).collect();
        let ended_ns = clock::mono().as_ns();
        Ended { main, start_ticks: self.start_ticks, children, began_ns, ended_ns }
    }

    /// The status by waitid(2), which is put together here, and by wait4(2), which has it raw.
    fn referee(&mut self) -> u32 {
        let pid = Pid::from_child(&self.child);
        let looked = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let status = raw(&looked.unwrap().unwrap());
        assert_eq!(self.child.wait().unwrap().into_raw().cast_unsigned(), status, "waitid(2) and wait4(2)");
        status
    }
}

impl Reaped {
    fn parse(line: &str) -> Reaped {
        let (pid, status) = line.split_once(' ').unwrap();
        Reaped { pid: pid.parse().unwrap(), status: status.parse().unwrap() }
    }
}

impl Drop for Fixture {
    /// One that was not run, or that hangs.
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The number that wait(2) would have given (`bits/waitstatus.h` of the C library).
fn raw(status: &WaitIdStatus) -> u32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code.cast_unsigned() << 8,
        (None, Some(signal)) => signal.cast_unsigned() | if status.dumped() { CORE } else { 0 },
        (None, None) => panic!("neither an exit nor a signal: {status:?}"),
    }
}

/// die.c as a program, compiled once for each process of tests.
fn compiled() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/die.c");
        // Cargo's folder for this, so that it is cleared with the rest. Another run may use the program that is there:
        // it is replaced, not written to.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let fresh = folder.join(format!("die.{}", std::process::id()));
        let flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-pthread", "-o"];
        let status = Command::new("cc").args(flags).arg(&fresh).arg(&source).status();
        let status = status.unwrap_or_else(|error| panic!("no C compiler: {error}: install one as `cc`"));
        assert!(status.success(), "cc cannot compile {}", source.display());
        let program = folder.join("die");
        fs::rename(&fresh, &program).unwrap();
        program
    })
}
