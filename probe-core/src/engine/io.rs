//! What the runs of a shard share: the ring, the timers, and what did not fit into the queue.

use std::collections::VecDeque;

use super::pace::Exact;
use super::stats::Counters;
use super::watch::{InFlight, Watch};
use super::wheel::Wheel;
use crate::model::id::ProbeKey;
use crate::model::limits::{RESOLVING_ONE_IN, UNRESOLVED_ONE_IN};
use crate::model::probe::Verdict;
use crate::ring::{Errno, Op, OpKind, Refused, Ring, Slot};

/// Why a shard wakes by itself.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Timer {
    /// The next tick of a probe.
    Due(ProbeKey),
    /// The timeout of a run.
    Deadline(Slot),
    /// The end of the wait for the server's FIN, or the time to cancel once more.
    Closing(Slot),
}

/// Timers of one run at a time: its deadline, and the end of a wait.
pub const TIMERS_PER_SLOT: usize = 2;
/// Operations of one slot that may wait for room at a time: one that goes on, and a receive or a cancel.
const OPS_PER_SLOT: usize = 2;

pub struct Io<R> {
    pub ring: R,
    pub wheel: Wheel<Timer>,
    pub counters: Counters,
    pub watch: Watch,
    /// Runs that wait for the address of a host name.
    pub resolving: u32,
    /// Runs that hold a slot and wait until one of those has its address.
    pub unresolved: VecDeque<Slot>,
    /// Runs in flight, by how often they want the clock looked at.
    pub watched: InFlight,
    /// Runs whose connection is to serve further runs.
    pub kept: u32,
    /// Those of them that wait for their next run.
    pub idle: u32,
    pub exact: Exact,
    /// Operations that the queue had no room for, in their order.
    backlog: VecDeque<(Slot, Op)>,
}

/// No socket could be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSocket {
    pub call: &'static str,
    pub errno: Errno,
}

impl NoSocket {
    /// A family that this host does not speak fails as it does for kubelet; our own lack of descriptors or
    /// memory says nothing about the target.
    pub fn verdict(self) -> Verdict {
        if self.errno == Errno::AFNOSUPPORT { Verdict::Failure } else { Verdict::Errored }
    }
}

/// Whether a call failed since this host has no port, memory or descriptor left for it: nothing that the target does
/// brings these about. ENOSPC is epoll's: its user watches as many files as it may (`fs.epoll.max_user_watches`).
pub fn is_shortage(errno: Errno) -> bool {
    const SHORTAGES: [Errno; 7] = [
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOSPC,
    ];
    SHORTAGES.contains(&errno)
}

/// One in so many of the slots, one at least.
fn part_of(slots: u32, one_in: u32) -> u32 {
    (slots / one_in).max(1)
}

impl<R: Ring> Io<R> {
    pub fn new(ring: R) -> Io<R> {
        let slots = ring.capacity() as usize;
        let mut wheel = Wheel::new();
        wheel.reserve(slots * TIMERS_PER_SLOT);
        Io {
            ring,
            wheel,
            counters: Counters::default(),
            watch: Watch::default(),
            resolving: 0,
            unresolved: VecDeque::with_capacity(part_of(slots as u32, UNRESOLVED_ONE_IN) as usize),
            watched: InFlight::default(),
            kept: 0,
            idle: 0,
            exact: Exact::default(),
            backlog: VecDeque::with_capacity(slots * OPS_PER_SLOT),
        }
    }

    /// Whether one more host name may be looked up.
    pub fn may_resolve(&self) -> bool {
        self.resolving < part_of(self.ring.capacity(), RESOLVING_ONE_IN)
    }

    /// Whether one more run may hold its slot until its name may be looked up.
    pub fn may_wait_to_resolve(&self) -> bool {
        self.unresolved.len() < part_of(self.ring.capacity(), UNRESOLVED_ONE_IN) as usize
    }

    /// What the error of a connection says about the target: nothing if it is this host's own, which is counted.
    pub fn verdict_of(&mut self, errno: Errno) -> Verdict {
        let is_shortage = is_shortage(errno);
        self.counters.shortages += u64::from(is_shortage);
        if is_shortage { Verdict::Errored } else { Verdict::Failure }
    }

    /// Queues an operation; one that does not fit now is pushed with the next turn.
    pub fn push(&mut self, slot: Slot, op: Op) -> Result<(), NoSocket> {
        // A submission in the middle of a turn makes room again: what came later must not overtake.
        if self.has_backlog() {
            self.counters.queue_full += 1;
            self.backlog.push_back((slot, op));
            return Ok(());
        }
        match self.ring.push(slot, op) {
            Ok(()) => Ok(()),
            Err(Refused::Full(op)) => {
                self.counters.queue_full += 1;
                self.backlog.push_back((slot, op));
                Ok(())
            }
            Err(Refused::Socket { call, errno }) => Err(NoSocket { call, errno }),
        }
    }

    /// Pushes what had no room. The slots whose connection could not be begun come back.
    pub fn flush(&mut self) -> Vec<(Slot, NoSocket)> {
        let mut failed = Vec::new();
        while let Some((slot, op)) = self.backlog.pop_front() {
            match self.ring.push(slot, op) {
                Ok(()) => {}
                Err(Refused::Full(op)) => {
                    self.backlog.push_front((slot, op));
                    break;
                }
                Err(Refused::Socket { call, errno }) => failed.push((slot, NoSocket { call, errno })),
            }
        }
        failed
    }

    /// Whether operations wait for room.
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Takes back what of the slot has not reached the queue.
    pub fn withdraw(&mut self, slot: Slot) {
        self.backlog.retain(|(other, _)| *other != slot);
    }

    /// A cancel is in flight or about to be.
    pub fn is_cancelling(&self, slot: Slot) -> bool {
        self.ring.in_flight(slot).has(OpKind::Cancel)
            || self.backlog.iter().any(|(other, op)| *other == slot && *op == Op::Cancel)
    }

    /// An operation of this kind, a send or a receive, is in flight or about to be.
    pub fn is_pending(&self, slot: Slot, kind: OpKind) -> bool {
        let is_it = |op: &Op| match op {
            Op::Exchange { .. } => true,
            Op::Send { .. } => kind == OpKind::Send,
            Op::Recv | Op::Finish => kind == OpKind::Recv,
            Op::Connect { .. } | Op::Disconnect | Op::Cancel => false,
        };
        self.ring.in_flight(slot).has(kind)
            || self.backlog.iter().any(|(other, op)| *other == slot && is_it(op))
    }

    /// Nothing of the slot is in flight or about to be.
    pub fn is_quiet(&self, slot: Slot) -> bool {
        self.ring.in_flight(slot).is_empty() && !self.backlog.iter().any(|(other, _)| *other == slot)
    }
}
