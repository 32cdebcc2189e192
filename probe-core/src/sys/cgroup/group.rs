//! The cgroups of one container instance.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};

use super::{CgroupError, OomWatch, write_control};
use crate::model::limits::CGROUP_EVENTS_MAX_BYTES;
use crate::sys::pidfd::poll_until;

/// Folder of an instance that holds a folder for each exec run.
const EXECS: &str = "probe";

/// How everything in a cgroup is killed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum KillMethod {
    /// `cgroup.kill` (kernel 5.14), and the freezer where the kernel is older.
    File,
    /// Freeze, then SIGKILL for every listed process: for kernels from 5.10.
    Freezer,
}

/// Folders of one instance. The v2 folder exists on every host that has cgroups for us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    dir: PathBuf,
    v1_dirs: Vec<PathBuf>,
    method: KillMethod,
}

/// Where a new process goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Leaf folder in the v2 tree.
    pub dir: PathBuf,
    /// `tasks` files of v1 controllers that the process writes `0` to before it becomes the container.
    pub v1_tasks: Vec<PathBuf>,
}

/// The part of an instance that a process is in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Leaf {
    /// The container's own processes, wherever they have moved within it.
    Main,
    /// Those of probes and hooks that defib runs in the container.
    Exec,
}

impl Leaf {
    /// Of a process in the folder `below`, which is relative to the instance's.
    pub(super) fn of(below: &Path) -> Leaf {
        if below.starts_with(EXECS) { Leaf::Exec } else { Leaf::Main }
    }
}

/// The folder that holds those of an instance's exec runs. It is made with the first run, and stays as long as the
/// instance's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Execs {
    dir: PathBuf,
}

impl Execs {
    /// Whether the kernel knows it by this number. False while it is not there.
    pub fn has_id(&self, id: u64) -> bool {
        rustix::fs::stat(&self.dir).is_ok_and(|found| found.st_ino == id)
    }
}

/// `cgroup.events` of a group: readable at any time, and a descriptor that reports POLLPRI on change.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Group {
    /// The group that these folders are, there or not; for leftovers of an agent that is gone.
    pub fn at(dir: PathBuf, v1_dirs: Vec<PathBuf>) -> Group {
        let method = if dir.join("cgroup.kill").exists() { KillMethod::File } else { KillMethod::Freezer };
        Group { dir, v1_dirs, method }
    }

    pub(super) fn new(dir: PathBuf, v1_dirs: Vec<PathBuf>, method: KillMethod) -> Group {
        Group { dir, v1_dirs, method }
    }

    /// The instance's folder in the v2 tree.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The instance's folders in v1 controllers.
    pub fn v1_dirs(&self) -> &[PathBuf] {
        &self.v1_dirs
    }

    /// Whether the v2 folder exists.
    pub fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// The leaf of the container's own processes.
    pub fn main(&self) -> Place {
        self.place(self.dir.join("main"))
    }

    /// Makes a leaf for one exec run; `name` is unique within the instance.
    pub fn exec(&self, name: &str) -> Result<Place, CgroupError> {
        let dir = self.dir.join(EXECS).join(name);
        fs::create_dir_all(&dir).map_err(|source| CgroupError::new("make", &dir, source))?;
        Ok(self.place(dir))
    }

    /// What tells its exec runs from its own processes.
    pub fn execs(&self) -> Execs {
        Execs { dir: self.dir.join(EXECS) }
    }

    /// Kills every process of the instance, forks under way included.
    pub fn kill(&self) -> Result<(), CgroupError> {
        kill_in(&self.dir, self.method)
    }

    /// Kills every process of one exec run.
    pub fn kill_place(&self, place: &Place) -> Result<(), CgroupError> {
        kill_in(&place.dir, self.method)
    }

    /// Watches whether any process is left in the instance.
    pub fn events(&self) -> Result<Events, CgroupError> {
        Events::open(&self.dir)
    }

    /// Watches for processes of the instance that are killed for memory. None where the instance has no memory
    /// cgroup of its own: no memory controller, or on v1 no limit.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>, CgroupError> {
        if self.dir.join("memory.events").exists() {
            return OomWatch::v2(&self.dir).map(Some);
        }
        let memory = self.v1_dirs.iter().find(|dir| dir.join("memory.oom_control").exists());
        memory.map(|dir| OomWatch::v1(dir)).transpose()
    }

    /// The number by which the kernel knows the instance's cgroup: the inode of its folder. It exists while the
    /// folder does.
    pub fn id(&self) -> io::Result<u64> {
        Ok(rustix::fs::stat(&self.dir)?.st_ino)
    }

    /// Whether all its processes are killed when one is killed for memory.
    pub fn kills_together(&self) -> bool {
        fs::read_to_string(self.dir.join("memory.oom.group")).is_ok_and(|text| text.trim() == "1")
    }

    /// Removes all folders of the instance, and the pod's when it was the last. Every process must be gone.
    pub fn remove(&self) -> Result<(), CgroupError> {
        for dir in self.v1_dirs.iter().chain([&self.dir]) {
            remove_tree(dir)?;
            // The pod's folder stays while it holds another container: that is no error.
            if let Some(pod) = dir.parent() {
                let _still_used = fs::remove_dir(pod);
            }
        }
        Ok(())
    }

    fn place(&self, dir: PathBuf) -> Place {
        Place { dir, v1_tasks: self.v1_dirs.iter().map(|dir| dir.join("tasks")).collect() }
    }
}

impl Place {
    /// A descriptor for clone3's CLONE_INTO_CGROUP.
    pub fn open(&self) -> Result<OwnedFd, CgroupError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.dir, flags, Mode::empty());
        opened.map_err(|error| CgroupError::new("open", &self.dir, error))
    }

    /// Watches whether any process is left here.
    pub fn events(&self) -> Result<Events, CgroupError> {
        Events::open(&self.dir)
    }

    /// The pids of the processes that are here now, one per line; those in folders below are not told.
    pub fn pids(&self) -> Result<String, CgroupError> {
        let path = self.dir.join("cgroup.procs");
        fs::read_to_string(&path).map_err(|source| CgroupError::new("read", &path, source))
    }

    /// Removes the leaf of a finished exec run; one that still holds processes stays, and goes with the instance.
    pub fn remove(&self) {
        let _still_used = fs::remove_dir(&self.dir);
    }
}

impl Events {
    fn open(dir: &Path) -> Result<Events, CgroupError> {
        let path = dir.join("cgroup.events");
        let file = File::open(&path).map_err(|source| CgroupError::new("watch", &path, source))?;
        Ok(Events { file, path })
    }

    /// Whether a process is left. POLLPRI comes for every change after this call.
    pub fn populated(&mut self) -> Result<bool, CgroupError> {
        let failed = |source| CgroupError::new("read", &self.path, source);
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut text = String::new();
        (&self.file).take(CGROUP_EVENTS_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        Ok(text.lines().any(|line| line == "populated 1"))
    }

    /// Blocks until no process is left; false when `timeout` passes without a change.
    pub fn wait_empty(&mut self, timeout: Duration) -> Result<bool, CgroupError> {
        while self.populated()? {
            let changed = poll_until(self.file.as_fd(), PollFlags::PRI, Some(timeout));
            if !changed.map_err(|source| CgroupError::new("poll", &self.path, source))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn kill_in(dir: &Path, method: KillMethod) -> Result<(), CgroupError> {
    match method {
        KillMethod::File => match write_control("kill", &dir.join("cgroup.kill"), "1") {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound && dir.exists() => {
                kill_in(dir, KillMethod::Freezer)
            }
            other => other,
        },
        KillMethod::Freezer => {
            // Frozen processes cannot fork away from the list, and SIGKILL reaches them.
            write_control("freeze", &dir.join("cgroup.freeze"), "1")?;
            let killed = kill_listed(dir);
            write_control("thaw", &dir.join("cgroup.freeze"), "0")?;
            killed
        }
    }
}

fn kill_listed(dir: &Path) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.procs");
    let listed = fs::read_to_string(&path).map_err(|source| CgroupError::new("read", &path, source))?;
    for pid in listed.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        // One that ended since it was listed is what we want.
        let _ended = kill_process(pid, Signal::KILL);
    }
    folders_in(dir)?.iter().try_for_each(|child| kill_listed(child))
}

/// Folders only: a cgroup's files cannot be removed and go with it.
fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for child in folders_in(dir)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CgroupError::new("remove", dir, source))
        }
        _ => Ok(()),
    }
}

fn folders_in(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |source| CgroupError::new("list", dir, source);
    let entries = match fs::read_dir(dir) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::super::{Limits, Tree};
    use super::*;
    use crate::model::id::PodUid;
    use crate::sys::pidfd;
    use crate::sys::spawn::{Birth, ChildSpec, Identity, Output, Spawner};

    /// A grandchild that ignores SIGTERM, in a session of its own, whose parent has ended.
    const DAEMON: &std::ffi::CStr =
        c"(setsid sh -c 'trap \"\" TERM; echo ready; exec sleep 1000' &) ; exit 0";

    fn check_kill(method: KillMethod, pod: PodUid) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tree = Tree::detect().expect("root without cgroups").with_kill_method(method);
        let group = tree.make(pod, "c.0", Limits::NONE).unwrap();
        let spawner = Spawner::fork_before_threads().unwrap();
        let folder = group.main().open().unwrap();
        let (read, write) = io::pipe().unwrap();
        let birth = Birth {
            cgroup: Some(folder.as_fd()),
            output: Some((write.as_fd(), write.as_fd())),
            namespace_of: None,
        };
        let mut newborn = spawner.spawn_blocking(birth).unwrap();
        drop(write);
        let spec = ChildSpec {
            program: c"/bin/sh".into(),
            argv: vec![c"sh".into(), c"-c".into(), DAEMON.into()],
            env: vec![c"PATH=/usr/bin:/bin".into()],
            working_dir: c"/".into(),
            output: Output::Passed,
            v1_tasks: Vec::new(),
            identity: Identity { user: None, group: None },
            bind: None,
        };
        newborn.control.write_all(&spec.encode().unwrap()).unwrap();
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        pidfd::wait_ended(newborn.pidfd.as_fd(), None).unwrap();
        pidfd::reap(newborn.pidfd.as_fd()).unwrap();
        let mut events = group.events().unwrap();
        assert!(events.populated().unwrap(), "the grandchild is left");
        group.kill().unwrap();
        assert!(events.wait_empty(Duration::from_secs(30)).unwrap());
        group.remove().unwrap();
        assert!(!group.exists());
    }

    #[test]
    fn a_daemon_is_killed_through_the_kill_file() {
        check_kill(KillMethod::File, PodUid(0x5afe_0002));
    }

    #[test]
    fn a_daemon_is_killed_through_the_freezer() {
        check_kill(KillMethod::Freezer, PodUid(0x5afe_0003));
    }
}
