//! `sched_process_exit`: one record for each process of a registered container.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_comm, bpf_get_prandom_u32, bpf_ktime_get_ns,
};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::abi::{CGROUP_DEPTH_MAX, Counts, Death, STATUS_KNOWN, TICK_NS};
use crate::maps::{CONTAINERS, ENDS, End, INITS, RECORDS, config, count, read};
use crate::oom;

/// `SIGNAL_GROUP_EXIT` of `include/linux/sched/signal.h`: the whole process was told to exit.
const SIGNAL_GROUP_EXIT: u32 = 4;
/// `EEXIST` of `include/uapi/asm-generic/errno-base.h`, as helpers return it.
const EXISTS: i32 = -17;

/// From kernel 6.16 the tracepoint says whether this is the last thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(context: BtfTracePointContext) -> i32 {
    let task: *const u8 = context.arg(0);
    let group_dead: u64 = context.arg(1);
    let thread = Thread::current(&context, task);
    oom::thread_ends(&thread);
    if group_dead & 1 != 0 {
        let leader = Leader::of(&thread);
        if let Some(keys) = Keys::of(&thread, &leader) {
            process_ends(&thread, &leader, &keys);
        }
    }
    0
}

/// Before 6.16: when no thread is alive. Two threads that exit at once may both see that, so the end is noted.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit_counted(context: BtfTracePointContext) -> i32 {
    let thread = Thread::current(&context, context.arg(0));
    let live = thread.signal().and_then(|signal| read::<i32>(signal, config!(signal_live)));
    oom::thread_ends(&thread);
    if live != Some(0) {
        return 0;
    }
    let leader = Leader::of(&thread);
    let Some(keys) = Keys::of(&thread, &leader) else { return 0 };
    let end = End { start_boot_ns: leader.start_boot_ns, pid: u64::from(thread.process) };
    // An end that could not be noted is told: twice, if another thread saw it too, rather than never.
    if ENDS.insert(end, 1, u64::from(BPF_NOEXIST)) != Err(EXISTS) {
        process_ends(&thread, &leader, &keys);
    }
    0
}

/// The thread that exits: it is the current one.
pub struct Thread {
    task: *const u8,
    /// Its own id, and that of its process.
    pub id: u32,
    pub process: u32,
}

impl Thread {
    #[inline(always)]
    fn current(context: &BtfTracePointContext, task: *const u8) -> Thread {
        Thread { task, id: context.pid(), process: context.tgid() }
    }

    #[inline(always)]
    fn signal(&self) -> Option<*const u8> {
        read(self.task, config!(task_signal))
    }

    #[inline(always)]
    pub fn start_boot_ns(&self) -> u64 {
        read(self.task, config!(task_start_boottime)).unwrap_or(0)
    }
}

/// The first thread of a process, which the process has its start time and, mostly, its status from.
struct Leader {
    task: Option<*const u8>,
    start_boot_ns: u64,
}

impl Leader {
    #[inline(always)]
    fn of(thread: &Thread) -> Leader {
        let task: Option<*const u8> = read(thread.task, config!(task_group_leader));
        let start = task.and_then(|task| read(task, config!(task_start_boottime)));
        Leader { task, start_boot_ns: start.unwrap_or(0) }
    }
}

/// The rule of `wait_task_zombie` in `kernel/exit.c`.
#[inline(always)]
fn status(thread: &Thread, leader: &Leader) -> Option<u32> {
    let signal = thread.signal()?;
    let flags: u32 = read(signal, config!(signal_flags))?;
    if flags & SIGNAL_GROUP_EXIT != 0 {
        read(signal, config!(signal_group_exit_code))
    } else {
        read(leader.task?, config!(task_exit_code))
    }
}

/// Whose process it is, by either way of knowing it; 0 where that does not know it.
struct Keys {
    init: u64,
    cgroup: u64,
    /// As [`Death::cgroup_child_id`].
    cgroup_child_id: u64,
}

impl Keys {
    /// None for a process of no registered container: all that most ends of a machine cost.
    #[inline(always)]
    fn of(thread: &Thread, leader: &Leader) -> Option<Keys> {
        let init = key_of_init(thread.process, leader.start_boot_ns);
        let (cgroup, cgroup_child_id) = key_of_cgroup();
        if init == 0 && cgroup == 0 { None } else { Some(Keys { init, cgroup, cgroup_child_id }) }
    }
}

#[inline(always)]
fn process_ends(thread: &Thread, leader: &Leader, keys: &Keys) {
    count(offset_of!(Counts, deaths));
    let dropped = config!(drop_percent);
    // SAFETY: the helper has no preconditions.
    let is_dropped = dropped != 0 && unsafe { bpf_get_prandom_u32() } % 100 < dropped;
    let entry = if is_dropped { None } else { RECORDS.reserve::<Death>(0) };
    let Some(mut entry) = entry else {
        return count(offset_of!(Counts, lost));
    };
    let status = status(thread, leader);
    let death = Death {
        // SAFETY: the helper has no preconditions.
        at_ns: unsafe { bpf_ktime_get_ns() },
        init_key: keys.init,
        cgroup_key: keys.cgroup,
        cgroup_child_id: keys.cgroup_child_id,
        start_boot_ns: leader.start_boot_ns,
        pid: thread.process,
        status: status.unwrap_or(0),
        flags: if status.is_some() { STATUS_KNOWN } else { 0 },
        reserved: 0,
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    entry.write(death);
    entry.submit(0);
}

#[inline(always)]
fn key_of_init(process: u32, start_boot_ns: u64) -> u64 {
    // SAFETY: the element stays mapped while the program runs. From 6.1 it may be given to another key meanwhile; then the
    // container is being unregistered, and a record with another one's key is one about a pid that is not its own.
    let Some(init) = (unsafe { INITS.get(process) }) else { return 0 };
    let is_same = start_boot_ns == 0 || start_boot_ns / TICK_NS == init.start_ticks;
    if is_same { init.key } else { 0 }
}

/// Key of the innermost registered cgroup that the thread is in, and the id of the one directly below that on the way
/// to the thread's own. At this point of its exit it is still there; once it was waited for nobody can tell.
#[inline(always)]
fn key_of_cgroup() -> (u64, u64) {
    let mut key = 0;
    let mut child_id = 0;
    for level in 0..CGROUP_DEPTH_MAX {
        // SAFETY: the helper has no preconditions; a level below the thread's own gives 0.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            break;
        }
        // SAFETY: as in `key_of_init`.
        if let Some(found) = unsafe { CONTAINERS.get(id) } {
            key = *found;
            child_id = 0;
        } else if key != 0 && child_id == 0 {
            child_id = id;
        }
    }
    (key, child_id)
}
