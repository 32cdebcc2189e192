//! `oom/mark_victim`: which thread the kernel has chosen to be killed for memory.
//!
//! The thread that runs here is the one that asked for memory, not the victim, so nothing is known of the victim's
//! container yet. The mark waits in a table under the victim's pid; the host looks there when a process has died of
//! SIGKILL. (The kernel sends SIGKILL before it marks, so the end may be told first.)

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

use crate::abi::{Counts, Mark, RSS_UNKNOWN};
use crate::exit::Thread;
use crate::maps::{MARKS, config, count, read};

#[tracepoint(category = "oom", name = "mark_victim")]
pub fn mark_victim(context: TracePointContext) -> u32 {
    let record: *const u8 = context.as_ptr().cast();
    let Some(pid) = read::<u32>(record, config!(mark_pid)) else { return 0 };
    // SAFETY: the helper has no preconditions.
    let mark = Mark {
        at_boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        rss_kib: rss_kib(record).unwrap_or(RSS_UNKNOWN),
    };
    count(offset_of!(Counts, marks));
    if MARKS.insert(pid, mark, 0).is_err() {
        count(offset_of!(Counts, marks_lost));
    }
    0
}

#[inline(always)]
fn rss_kib(record: *const u8) -> Option<u64> {
    let anon: u64 = read(record, config!(mark_anon_rss))?;
    let file: u64 = read(record, config!(mark_file_rss))?;
    let shmem: u64 = read(record, config!(mark_shmem_rss))?;
    Some(anon.wrapping_add(file).wrapping_add(shmem))
}

/// The kernel marks the thread whose memory it looked at, which need not be the first of its process. A mark of
/// another one becomes the process's when that thread exits.
#[inline(always)]
pub fn thread_ends(thread: &Thread) {
    if thread.id == thread.process {
        return;
    }
    // SAFETY: an element may be reused for another pid while it is read; the time is checked against the thread's
    // start, and so is that of the host against the process's.
    let Some(mark) = (unsafe { MARKS.get(thread.id) }) else { return };
    let mark = *mark;
    if mark.at_boot_ns < thread.start_boot_ns() {
        return;
    }
    let moved = MARKS.insert(thread.process, mark, 0).is_ok() && MARKS.remove(thread.id).is_ok();
    if !moved {
        count(offset_of!(Counts, marks_lost));
    }
}
