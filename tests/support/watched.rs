//! One thread whose memory and system calls are watched by the machine itself: an allocator that counts, and a
//! seccomp filter that lets only io_uring_enter pass and tells of everything else.
//!
//! The thread calls [`follow`] again and again; another one opens the window with [`begin`] and closes it with
//! [`end`]. A filter cannot be taken off, so the process must end soon afterwards, with `process::exit`.

#![expect(unsafe_code, reason = "an allocator and a signal handler have no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::{SOON, eventually};

/// Numbers of system calls lie below this.
const CALLS_MAX: usize = 1_024;

/// Where the window stands.
static PHASE: AtomicU8 = AtomicU8::new(BEFORE);
const BEFORE: u8 = 0;
const WANTED: u8 = 1;
const OPEN: u8 = 2;
const ENDING: u8 = 3;
const OVER: u8 = 4;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static FREES: AtomicU64 = AtomicU64::new(0);
/// System calls that the filter held back, by number.
static CALLS: [AtomicU64; CALLS_MAX] = [const { AtomicU64::new(0) }; CALLS_MAX];

thread_local! {
    /// Needs no memory of its own and no destructor, so that the allocator may look at it.
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, which counts what the watched thread does: make it the `#[global_allocator]`.
pub struct CountingAllocator;

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, new_size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        count(&FREES);
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }
}

fn count(counter: &AtomicU64) {
    if IS_WATCHED.get() {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the watched thread did between [`begin`] and [`end`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    pub allocations: u64,
    pub frees: u64,
    /// Other system calls than io_uring_enter: number and count.
    pub calls: BTreeMap<usize, u64>,
}

/// To be called by the thread that is to be watched, at least once in a while. Costs a load while nothing changes.
pub fn follow() {
    match PHASE.load(Ordering::Acquire) {
        WANTED => {
            forbid_all_but_enter();
            IS_WATCHED.set(true);
            PHASE.store(OPEN, Ordering::Release);
        }
        ENDING => {
            IS_WATCHED.set(false);
            PHASE.store(OVER, Ordering::Release);
        }
        _ => {}
    }
}

/// Opens the window: returns when the thread has followed.
pub fn begin() {
    step(BEFORE, WANTED, OPEN);
}

/// Closes the window, and tells what was seen in it.
pub fn end() -> Seen {
    step(OPEN, ENDING, OVER);
    seen()
}

/// What was seen so far. A thread whose calls are held back may not come far enough for [`end`].
pub fn seen() -> Seen {
    let calls = CALLS.iter().map(|calls| calls.load(Ordering::Acquire)).enumerate();
    Seen {
        allocations: ALLOCATIONS.load(Ordering::Acquire),
        frees: FREES.load(Ordering::Acquire),
        calls: calls.filter(|(_, count)| *count > 0).collect(),
    }
}

fn step(from: u8, through: u8, to: u8) {
    let stepped = PHASE.compare_exchange(from, through, Ordering::AcqRel, Ordering::Acquire);
    assert!(stepped.is_ok(), "the window is in phase {stepped:?}, not {from}");
    eventually("the watched thread follows", SOON, || (PHASE.load(Ordering::Acquire) == to).then_some(()));
}

/// From now on every other system call of this thread is held back and counted.
fn forbid_all_but_enter() {
    // A handler returns by a system call.
    let allowed = [libc::SYS_io_uring_enter, libc::SYS_rt_sigreturn];
    let rules = BTreeMap::from(allowed.map(|call| (call, Vec::new())));
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
    let filter =
        SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, arch).expect("a sound filter");
    let program = BpfProgram::try_from(filter).expect("a filter is a program");
    count_held_back_calls();
    apply_filter(&program).expect("seccomp filters are in every kernel of today");
}

/// The beginning of siginfo_t as the kernel fills it for SIGSYS (include/uapi/asm-generic/siginfo.h).
#[repr(C)]
struct SigSys {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    call_address: *const libc::c_void,
    call: libc::c_int,
}

fn count_held_back_calls() {
    extern "C" fn held_back(_: libc::c_int, info: *const SigSys, _: *const libc::c_void) {
        // SAFETY: needed because libc has no field for it; the kernel hands a handler with SA_SIGINFO a whole
        // siginfo_t, and the filter is the only source of the signal.
        let call = unsafe { (*info).call };
        if let Some(calls) = usize::try_from(call).ok().and_then(|call| CALLS.get(call)) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }
    let handler: extern "C" fn(libc::c_int, *const SigSys, *const libc::c_void) = held_back;
    // SAFETY: needed because setting a handler has no safe form. All zeroes is an action without flags and mask; the
    // handler only adds to an atomic.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    assert_eq!(set, 0, "sigaction: {}", std::io::Error::last_os_error());
}
