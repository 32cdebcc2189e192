//! The ring without io_uring: the same operations on tokio's epoll, for hosts that forbid io_uring.
//!
//! The runtime lives inside the ring and runs only in [`Epoll::submit_and_wait`], on the ring's own thread.
//! There are no tasks: each slot is a small state machine ([`slot::SlotState`]) that takes its steps when one
//! of its operations was pushed or when epoll has told of its socket. Operations take effect with the next
//! wait, as on the real ring, so an endless answer cannot hold up a turn of the shard; only a connect is begun
//! at once, since what it lacks (a descriptor, a place in epoll) must be refused by the push.
//!
//! A kept socket is registered with epoll for one connection at a time, because tokio never forgets that a
//! socket was closed.

mod ready;
mod receive;
mod slot;
mod watch;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::unconstrained;

use super::slots::SlotTable;
use super::sockets;
use super::{
    Completion, Driver, Errno, InFlight, Op, OpKind, Opening, Peer, Refused, Ring, RingError, Slot, Waker,
    setup,
};
use crate::model::limits::CONNECT_AGAIN;
use crate::model::time::{Mono, Now};
use ready::ReadyList;
use receive::Receiver;
use slot::SlotState;
use watch::{Timer, WakeEvent};

/// Descriptors that epoll watches besides one socket for each slot: wake-up, timers, and tokio's own.
const WATCHED_SPARE: usize = 8;

/// Probe operations on tokio's epoll. Not to be made or used inside another tokio runtime.
pub struct Epoll {
    /// Before the runtime, so that every descriptor leaves epoll while there is one.
    work: Work,
    runtime: Runtime,
    waker: Waker,
    clock: fn() -> Now,
}

/// What the runtime's one future works on.
struct Work {
    table: SlotTable,
    slots: Box<[SlotState]>,
    ready: Arc<ReadyList>,
    /// The indices that are stepped now; kept for its memory.
    batch: Vec<u32>,
    /// Ended operations in order; at most what the table says is in flight.
    completed: VecDeque<Completion>,
    receiver: Receiver,
    wake: WakeEvent,
    timer: Timer,
    /// Slots whose connect is to be tried again when `retry` rings; each at most once.
    retries: Vec<u32>,
    retry: Timer,
}

impl Epoll {
    /// A ring with `slots` slots, or with fewer where RLIMIT_NOFILE allows no more.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn new(slots: u32, clock: fn() -> Now) -> Result<Epoll, RingError> {
        let slots = setup::allowed_slots(slots)?;
        // All events at once: what has come by now must be seen before any deadline is judged.
        let runtime = Builder::new_current_thread()
            .enable_io()
            .max_io_events_per_tick(slots as usize + WATCHED_SPARE)
            .build()
            .map_err(|error| RingError::epoll("epoll_create1", setup::errno_of(&error)))?;
        let waker = Waker::new()?;
        let watching = runtime.enter();
        let (wake, timer, retry) = (WakeEvent::new(waker.clone())?, Timer::new()?, Timer::new()?);
        drop(watching);
        let ready = Arc::new(ReadyList::new(slots));
        let work = Work {
            table: SlotTable::new(slots),
            slots: (0..slots).map(|index| SlotState::new(ReadyList::waker(&ready, index))).collect(),
            ready,
            batch: Vec::with_capacity(slots as usize),
            completed: VecDeque::new(),
            receiver: Receiver::new()?,
            wake,
            timer,
            retries: Vec::with_capacity(slots as usize),
            retry,
        };
        Ok(Epoll { work, runtime, waker, clock })
    }

    /// Begins a connection for the kinds of operations that `begun` names.
    fn connect(&mut self, slot: Slot, to: &Peer, opening: Opening, begun: &[OpKind]) -> Result<(), Refused> {
        let Work { table, slots, .. } = &mut self.work;
        table.begin(slot, begun);
        let _watching = self.runtime.enter();
        slots[slot.at()].connect(to, opening).inspect_err(|_| {
            for kind in begun {
                table.end(slot, *kind);
            }
        })
    }
}

impl Work {
    /// Lets every slot take its steps that has something new.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<(), Errno> {
        if self.retry.take(cx) {
            for index in self.retries.drain(..) {
                self.slots[index as usize].unlist();
                self.ready.add(index);
            }
        }
        let had_retries = !self.retries.is_empty();
        self.ready.take(&mut self.batch, cx.waker());
        for index in self.batch.drain(..) {
            let slot = self.table.current(index);
            let completed = &mut self.completed;
            self.slots[index as usize].step(&mut self.receiver, |kind, result, received_at| {
                completed.push_back(Completion { slot, kind, result, received_at });
            });
            if self.slots[index as usize].list_for_retry() {
                self.retries.push(index);
            }
        }
        if had_retries || self.retries.is_empty() {
            return Ok(());
        }
        self.retry.set(CONNECT_AGAIN)
    }

    /// Takes what was pushed to the kernel, and what epoll tells of it, until there is something to do for
    /// the owner and `quiet` has passed. Slots take their steps meanwhile. Epoll is asked at least once, so that
    /// nothing that has come by now goes unseen.
    async fn wait(&mut self, quiet: Duration, timeout: Duration) -> Result<(), Errno> {
        let quiet = quiet.min(timeout);
        let (mut is_asked, mut is_woken, mut has_rung) = (false, false, false);
        let (mut is_quiet, mut is_armed) = (!quiet.is_zero(), false);
        let ended = poll_fn(|cx| {
            self.step(cx)?;
            is_woken |= self.wake.take(cx);
            // One that was set for an earlier wait may still ring.
            if self.timer.take(cx) && is_armed {
                (has_rung, is_quiet, is_armed) = (!is_quiet || quiet == timeout, false, false);
            }
            let is_over =
                !is_quiet && (is_woken || has_rung || timeout.is_zero() || !self.completed.is_empty());
            if is_over && is_asked {
                return Poll::Ready(Ok(()));
            }
            if is_over {
                // The runtime then asks epoll without sleeping.
                cx.waker().wake_by_ref();
            } else if !is_armed {
                self.timer.set(if is_quiet { quiet } else { timeout - quiet })?;
                is_armed = true;
            }
            is_asked = true;
            Poll::Pending
        })
        .await;
        self.ready.forget_sleeper();
        ended
    }
}

impl Driver for Epoll {
    fn submit_and_wait(&mut self, quiet: Duration, timeout: Duration) -> Result<(), RingError> {
        let Epoll { work, runtime, .. } = self;
        // Tokio's budget would hold back slots by the hundred; a wait steps each of them once at a time anyway.
        runtime
            .block_on(unconstrained(work.wait(quiet, timeout)))
            .map_err(|errno| RingError::epoll("timerfd_settime", errno))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Ring for Epoll {
    fn capacity(&self) -> u32 {
        self.work.table.capacity()
    }

    fn acquire(&mut self) -> Option<Slot> {
        self.work.table.acquire()
    }

    fn release(&mut self, slot: Slot) {
        self.work.table.release(slot);
        self.work.slots[slot.at()].release(slot);
    }

    fn in_flight(&self, slot: Slot) -> InFlight {
        self.work.table.in_flight(slot)
    }

    fn push(&mut self, slot: Slot, op: Op) -> Result<(), Refused> {
        let Work { table, slots, .. } = &mut self.work;
        let state = &mut slots[slot.at()];
        match op {
            Op::Exchange { to, request } => {
                let begun = [OpKind::Connect, OpKind::Send, OpKind::Recv];
                self.connect(slot, &to, Opening::ClientSpeaks, &begun)?;
                self.work.slots[slot.at()].exchange(request);
            }
            Op::Connect { to, opening } => self.connect(slot, &to, opening, &[OpKind::Connect])?,
            Op::Send { request, from } => {
                table.begin(slot, &[OpKind::Send]);
                state.send(request, from);
            }
            Op::Recv => {
                table.begin(slot, &[OpKind::Recv]);
                state.recv();
            }
            Op::Finish => {
                table.begin(slot, &[OpKind::Recv, OpKind::Disconnect]);
                state.finish();
            }
            Op::Disconnect => {
                table.begin(slot, &[OpKind::Disconnect]);
                state.disconnect();
            }
            Op::Cancel => {
                table.begin(slot, &[OpKind::Cancel]);
                state.cancel();
            }
        }
        self.work.ready.add(slot.index);
        Ok(())
    }

    fn submit(&mut self, _now: Mono) -> Mono {
        // A connect is on its way since its push, and nothing else of a run comes before the next wait.
        (self.clock)().mono
    }

    fn settle(&mut self, _now: Mono) -> Option<(Mono, u32)> {
        None
    }

    fn next_completion(&mut self, _now: Mono) -> Option<Completion> {
        loop {
            let completion = self.work.completed.pop_front()?;
            let Completion { slot, kind, result, .. } = completion;
            if !self.work.table.end(slot, kind) {
                continue;
            }
            if let (OpKind::Recv, Ok(count)) = (kind, result) {
                self.work.slots[slot.at()].received(count as usize);
            }
            return Some(completion);
        }
    }

    fn answer(&self, slot: Slot) -> &[u8] {
        self.work.slots[slot.at()].answer()
    }

    fn drop_answer(&mut self, slot: Slot, count: usize) {
        let in_flight = self.work.table.in_flight(slot);
        assert!(!in_flight.has(OpKind::Recv), "bytes of {slot:?} dropped while a receive is in flight");
        self.work.slots[slot.at()].drop_answer(count);
    }

    fn replace_socket(&mut self, slot: Slot) {
        let in_flight = self.work.table.in_flight(slot);
        assert!(in_flight.is_empty(), "socket of {slot:?} replaced with {in_flight:?} in flight");
        self.work.slots[slot.at()].close();
    }

    fn shutdown(&mut self, slot: Slot) -> Result<(), Errno> {
        self.work.slots[slot.at()].shutdown()
    }

    fn is_connected(&self, slot: Slot) -> bool {
        self.work.slots[slot.at()].is_connected()
    }

    fn local_addr(&self, slot: Slot) -> Option<SocketAddr> {
        self.work.slots[slot.at()].local_addr()
    }

    fn has_source(&self, to: &Peer) -> bool {
        sockets::has_source(to)
    }

    fn last_data_at(&self, slot: Slot, _now: Mono) -> Option<Mono> {
        let age = self.work.slots[slot.at()].last_data_age()?;
        Some((self.clock)().mono.before(age))
    }

    fn enters(&self) -> u64 {
        0
    }

    fn stale_completions(&self) -> u64 {
        self.work.table.stale()
    }
}
