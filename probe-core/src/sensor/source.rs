//! What programs in the kernel tell, as the sensor sees it. Implemented by the adapter of `probe-ebpf` in the program,
//! and by a scripted one in the tests.

use std::error::Error;
use std::os::fd::AsFd;

use crate::model::runtime::ExitStatus;
use crate::model::time::Mono;

/// The length of a command name, its zero included (`TASK_COMM_LEN` of `include/linux/sched.h`).
pub const COMMAND_BYTES: usize = 16;

/// One process of a registered container has ended, for [`super::Sensor`] to find out what follows.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Death {
    /// When its last thread began to exit.
    pub at: Mono,
    /// The container whose main process it is.
    pub main_of: Option<Key>,
    /// The container in whose cgroup it was.
    pub member_of: Option<Key>,
    /// Inode of the folder directly below that container's, on the way to the one that it was in; None where it was in
    /// the container's own.
    pub cgroup_child_id: Option<u64>,
    pub pid: u32,
    /// When the process was started, CLOCK_BOOTTIME in nanoseconds; 0 when it is not known.
    pub start_boot_ns: u64,
    /// As wait(2) gives it; None where the kernel does not let it be read.
    pub status: Option<ExitStatus>,
    /// Zeros at the end.
    pub command: [u8; COMMAND_BYTES],
}

/// The kernel chose a process to be killed for memory. It may have been ending anyway.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Anonymous, file and shared memory in bytes; None where the kernel does not tell (before 6.9).
    pub rss_bytes: Option<u64>,
}

/// Number of a container that is watched. Never used twice, and never 0.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

/// What a container is registered by.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The main process, as `/proc/<pid>/stat` names it.
    pub pid: u32,
    pub start_ticks: u64,
    /// Inode of its folder in the v2 tree. What is in the cgroup or below it belongs to the container.
    pub cgroup_id: Option<u64>,
}

/// Deaths in the order in which they happened. Used by the sensor's thread alone.
pub trait Deaths: AsFd + Send {
    /// The oldest that was not taken. Never waits; the descriptor is readable while there is one.
    fn next(&mut self) -> Option<Death>;

    /// Takes the mark of a process with this pid that was started at or after `start_boot_ns` (0: whenever).
    fn take_mark(&mut self, pid: u32, start_boot_ns: u64) -> Option<Mark>;

    /// Processes (or threads of them) whose marks were not taken. Drops marks that are older than this moment of
    /// CLOCK_BOOTTIME: nobody will ask for them.
    fn marked(&mut self, oldest_boot_ns: u64) -> Vec<u32>;

    /// Deaths since the start that could not be told, for want of room. Grows only.
    fn lost(&mut self) -> u64;

    /// Whether victims are marked at all.
    fn has_marks(&self) -> bool;
}

/// Which containers are told of. Used by any thread.
pub trait Registry: Send + Sync {
    /// From here on the container's deaths are told under this key.
    ///
    /// # Errors
    /// They are not: the container's main process is then known by its pidfd alone.
    fn register(&self, key: Key, member: Member) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// No longer.
    fn unregister(&self, key: Key, member: Member);
}

/// Both halves of one source.
pub struct Kernel {
    pub deaths: Box<dyn Deaths>,
    pub registry: Box<dyn Registry>,
}
