//! The tables and the configuration, and reading the kernel's memory.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray, RingBuf};

use crate::abi::{ABSENT, CONTAINERS_MAX, Config, Counts, ENDS_MAX, Init, MARKS_MAX, Mark, RECORDS_BYTES};

#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RECORDS_BYTES, 0);

// Only the host inserts here, so that memory may be taken when it does.
#[map]
pub static CONTAINERS: HashMap<u64, u64> = HashMap::with_max_entries(CONTAINERS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static INITS: HashMap<u32, Init> = HashMap::with_max_entries(CONTAINERS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static MARKS: LruHashMap<u32, Mark> = LruHashMap::with_max_entries(MARKS_MAX, 0);

#[map]
pub static ENDS: LruHashMap<End, u8> = LruHashMap::with_max_entries(ENDS_MAX, 0);

#[map]
pub static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

/// Written by the host before the load; the kernel then holds it constant and drops what cannot be reached.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::UNKNOWN;

/// A process that has ended.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct End {
    pub start_boot_ns: u64,
    pub pid: u64,
}

/// One field of the configuration.
macro_rules! config {
    ($field:ident) => {{
        // SAFETY: a reference to a static is always valid to read. Volatile, because the compiler sees the value of
        // the object file and the host puts another one there.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::CONFIG.$field) }
    }};
}
pub(crate) use config;

/// Reads a field of a structure of the kernel. None where this kernel has no such field, or the address is wrong.
#[inline(always)]
pub fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    if offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address and fails for one that cannot be read; T is plain data at every use.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// Adds one to the counter at this offset of [`Counts`], on this CPU. Atomic, since another program may take the CPU
/// in between; BPF has no compare-and-swap before 5.12, so core offers no `fetch_add` for it.
#[inline(always)]
pub fn count(offset: usize) {
    if let Some(counts) = COUNTS.get_ptr_mut(0) {
        // SAFETY: the offset is that of a u64 of the entry, which lives as long as the map.
        unsafe {
            let counter = counts.cast::<u8>().add(offset).cast::<u64>();
            let _before = atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1);
        }
    }
}
