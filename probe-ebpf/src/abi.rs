//! What the programs in the kernel and the host agree on. Compiled into both (`kernel/src/main.rs` includes this
//! file), so it knows neither aya nor std.
//!
//! Every type is `repr(C)` without padding, and the sizes are asserted here, for both sides at once. A change here
//! is a change of the committed object: `cargo xtask build-ebpf`.

use core::mem::{offset_of, size_of};

/// Processes of registered containers that ended, as [`Death`]s.
pub const RECORDS: &str = "RECORDS";
/// Cgroup id → key of the container.
pub const CONTAINERS: &str = "CONTAINERS";
/// Pid → [`Init`].
pub const INITS: &str = "INITS";
/// Pid → [`Mark`].
pub const MARKS: &str = "MARKS";
/// One [`Counts`] for each CPU.
pub const COUNTS: &str = "COUNTS";
/// The one [`Config`].
pub const CONFIG: &str = "CONFIG";

/// Program at BTF tracepoint `sched_process_exit` for kernels whose tracepoint says that a process's last thread
/// exits (6.16).
pub const PROCESS_EXIT: &str = "process_exit";
/// The same for older kernels.
pub const PROCESS_EXIT_COUNTED: &str = "process_exit_counted";
/// Program at tracepoint `oom/mark_victim`.
pub const MARK_VICTIM: &str = "mark_victim";

/// Size of the ring buffer, a power of two: 52,428 records. The largest death of many at once that we know is the end
/// of every container of a full node, 16,384 pods; three times that, while the reader does not run at all.
pub const RECORDS_BYTES: u32 = 4 * 1024 * 1024;
/// What the kernel puts before each record (`BPF_RINGBUF_HDR_SZ`).
pub const RECORD_HEADER_BYTES: usize = 8;
/// Containers that can be registered: more than a node can hold descriptors for.
pub const CONTAINERS_MAX: u32 = 65_536;
/// Marked victims that are remembered. The least recently used is forgotten.
pub const MARKS_MAX: u32 = 4_096;
/// Ends that are remembered so that each is told once, on kernels before 6.16.
pub const ENDS_MAX: u32 = 4_096;
/// Cgroups further from the root are not looked at. systemd with nested containers has about ten.
pub const CGROUP_DEPTH_MAX: i32 = 32;

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;
/// Length of a command name (`TASK_COMM_LEN` of `include/linux/sched.h`).
pub const COMM_BYTES: usize = 16;
/// Nanoseconds in a clock tick of `/proc/<pid>/stat` (`USER_HZ` is 100 on every architecture that defib knows).
pub const TICK_NS: u64 = 10_000_000;

/// Set in [`Death::flags`]: the status is that of wait(2). Without it the kernel's structures could not be read.
pub const STATUS_KNOWN: u32 = 1;

/// One process of a registered container has ended: its last thread exits. Its memory, files and sockets may still be
/// there (kernel 6.16 and later), and nobody has been told to wait for it yet.
#[repr(C)]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Death {
    /// CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Key of the container whose main process this is; 0 for none.
    pub init_key: u64,
    /// Key of the container in whose cgroup, or one below it, the process is; 0 for none.
    pub cgroup_key: u64,
    /// Id of the cgroup directly below that container's, on the way to the one that the process is in; 0 where it is in
    /// the container's own, or in none.
    pub cgroup_child_id: u64,
    /// When the process was started, CLOCK_BOOTTIME; 0 where the kernel's structures could not be read.
    pub start_boot_ns: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// As wait(2) gives it.
    pub status: u32,
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
    /// Name of the last thread; zeros at the end.
    pub comm: [u8; COMM_BYTES],
}

/// A registered main process.
#[repr(C)]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Init {
    pub key: u64,
    /// Start time in clock ticks, as in `/proc/<pid>/stat`: a later process with the same pid is another one.
    pub start_ticks: u64,
}

/// The kernel has chosen a thread to be killed for memory; or it saw that one was ending anyway and let it have what
/// it needs for that.
#[repr(C)]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// CLOCK_BOOTTIME.
    pub at_boot_ns: u64,
    /// Anonymous, file and shared memory; [`RSS_UNKNOWN`] before kernel 6.9.
    pub rss_kib: u64,
}

/// In [`Mark::rss_kib`].
pub const RSS_UNKNOWN: u64 = u64::MAX;

/// What one CPU has counted since the load.
#[repr(C)]
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Ends of processes of registered containers.
    pub deaths: u64,
    /// Those of them that did not get into the ring buffer.
    pub lost: u64,
    /// Marked victims, of any process.
    pub marks: u64,
    /// Marks that could not be remembered.
    pub marks_lost: u64,
}

/// Where this kernel keeps what the programs read, in bytes; [`ABSENT`] where it does not. Written before the load.
#[repr(C)]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// In `struct task_struct`. Without it [`Death::start_boot_ns`] is 0 and a main process is known by its pid alone.
    pub task_start_boottime: u32,
    /// In `struct task_struct`. Without any of the next five the status is unknown.
    pub task_signal: u32,
    pub task_group_leader: u32,
    pub task_exit_code: u32,
    /// In `struct signal_struct`.
    pub signal_flags: u32,
    pub signal_group_exit_code: u32,
    /// In `struct signal_struct`. Needed before kernel 6.16: without it nobody can say which thread is the last.
    pub signal_live: u32,
    /// In the record of `oom/mark_victim`. Without it kills for memory are not marked.
    pub mark_pid: u32,
    /// In the record of `oom/mark_victim` (kernel 6.9), in KiB. Without one of them the memory is unknown.
    pub mark_anon_rss: u32,
    pub mark_file_rss: u32,
    pub mark_shmem_rss: u32,
    /// Of a hundred records so many are lost on purpose: 0 but in tests of what a loss does.
    pub drop_percent: u32,
}

impl Config {
    /// Nothing is known and nothing is dropped.
    pub const UNKNOWN: Config = Config {
        task_start_boottime: ABSENT,
        task_signal: ABSENT,
        task_group_leader: ABSENT,
        task_exit_code: ABSENT,
        signal_flags: ABSENT,
        signal_group_exit_code: ABSENT,
        signal_live: ABSENT,
        mark_pid: ABSENT,
        mark_anon_rss: ABSENT,
        mark_file_rss: ABSENT,
        mark_shmem_rss: ABSENT,
        drop_percent: 0,
    };
}

const _: () = {
    assert!(size_of::<Death>() == 72 && offset_of!(Death, comm) == 56);
    assert!(size_of::<Init>() == 16);
    assert!(size_of::<Mark>() == 16);
    assert!(size_of::<Counts>() == 32);
    assert!(size_of::<Config>() == 48 && offset_of!(Config, drop_percent) == 44);
};
