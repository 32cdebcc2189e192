//! Making the kernel's ring: flags with their fallback, required operations, the sparse file table.

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, getrlimit};

use super::sockets::SOCKETS_PER_SLOT;
use super::uring::{TaskRun, UringOptions};
use super::{Errno, RingError};

/// Most operations of one slot in flight at once: connect, send, receive, cancel.
const OPS_PER_SLOT: u32 = 4;
/// Room for the wake-up read and what is cancelled at the end.
const OPS_SPARE: u32 = 16;
/// Descriptors per slot that the limit must have room for: its sockets, and as many for the rest of the agent.
const DESCRIPTORS_PER_SLOT: u64 = 2 * SOCKETS_PER_SLOT as u64;
/// Below this a ring is of no use.
const SLOTS_MIN: u32 = 8;

/// The operations that the engine uses, asked for one by one.
const REQUIRED: [(u8, &str); 6] = [
    (opcode::Connect::CODE, "IORING_OP_CONNECT"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::Recv::CODE, "IORING_OP_RECV"),
    (opcode::Read::CODE, "IORING_OP_READ"),
    (opcode::AsyncCancel2::CODE, "IORING_OP_ASYNC_CANCEL"),
    // Not used itself: it came with 6.0, as cancelling by registered descriptor did, which cannot be asked for.
    (opcode::SendZc::CODE, "IORING_ASYNC_CANCEL_FD_FIXED"),
];

/// A ring for `options.slots` slots, or for fewer where RLIMIT_NOFILE allows no more; with that number.
pub fn make(options: UringOptions) -> Result<(IoUring, u32), RingError> {
    let slots = allowed_slots(options.slots)?;
    let ring = build(slots, options.task_run)?;
    let needed = slots * OPS_PER_SLOT + OPS_SPARE;
    let given = ring.params().cq_entries();
    if given < needed {
        return Err(RingError::TooManySlots { slots, needed, given });
    }
    check_features(&ring)?;
    ring.submitter()
        .register_files_sparse(slots * SOCKETS_PER_SLOT)
        .map_err(|error| RingError::refused("io_uring_register(FILES2)", errno_of(&error)))?;
    Ok((ring, slots))
}

/// The errno in an I/O error of the io-uring crate.
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// So many slots as `wanted`, or fewer where RLIMIT_NOFILE allows no more.
pub fn allowed_slots(wanted: u32) -> Result<u32, RingError> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = u32::try_from(limit / DESCRIPTORS_PER_SLOT).unwrap_or(u32::MAX);
    if allowed < SLOTS_MIN.min(wanted) {
        return Err(RingError::Descriptors { limit, slots: SLOTS_MIN.min(wanted) });
    }
    Ok(wanted.min(allowed))
}

/// SINGLE_ISSUER (6.0) and DEFER_TASKRUN (6.1) let the kernel run completions only when the shard asks for
/// them; COOP_TASKRUN (5.19) is the next best. TASKRUN_FLAG tells of completions that wait to be run.
fn build(slots: u32, task_run: TaskRun) -> Result<IoUring, RingError> {
    let entries = (slots * OPS_PER_SLOT + OPS_SPARE).next_power_of_two();
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_cqsize(entries * 2).setup_taskrun_flag();
    let mut cooperative = builder.clone();
    cooperative.setup_coop_taskrun();
    let built = match task_run {
        TaskRun::Cooperative => cooperative.build(entries),
        TaskRun::Best => {
            let deferred = builder.setup_single_issuer().setup_defer_taskrun().build(entries);
            match deferred {
                Err(error) if errno_of(&error) == Errno::INVAL => cooperative.build(entries),
                other => other,
            }
        }
    };
    built.map_err(|error| RingError::refused("io_uring_setup", errno_of(&error)))
}

fn check_features(ring: &IoUring) -> Result<(), RingError> {
    let params = ring.params();
    if !params.is_feature_ext_arg() {
        return Err(RingError::lacks("a wait with a timeout (IORING_FEAT_EXT_ARG)"));
    }
    if !params.is_feature_fast_poll() || !params.is_feature_nodrop() || !params.is_feature_submit_stable() {
        return Err(RingError::lacks("fast poll, lossless completions or stable submission"));
    }
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| RingError::refused("io_uring_register(PROBE)", errno_of(&error)))?;
    match REQUIRED.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(RingError::lacks(name)),
        None => Ok(()),
    }
}
