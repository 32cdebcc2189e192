//! A ring in memory for simulation: virtual time, scripted listeners, faults from one seed.
//!
//! It keeps the book of slots of the real ring and panics at the same breaches, so code that passes here
//! obeys the kernel's rules. Driving a shard on it:
//!
//! ```
//! use std::time::Duration;
//! use probe_core::engine::Shard;
//! use probe_core::model::time::Mono;
//! use probe_core::ring::Peer;
//! use probe_core::ring::twin::{Behaviour, Faults, Twin, World};
//!
//! let world = World::new();
//! world.listen(Peer::Ip("10.0.0.1:80".parse().unwrap()), Behaviour::hang());
//! let twin = Twin::new(64, world, Faults::none(), 1);
//! let mut shard = Shard::new(twin);
//! let (mut inputs, mut out) = (Vec::new(), Vec::new());
//! let mut time = Mono::ZERO;
//! while time < Mono::from_ns(10_000_000_000) {
//!     let now = Twin::now(time);
//!     let wake = shard.turn(now, &mut inputs, &mut out);
//!     // Handle `out`, fill `inputs`, then go to the next thing that happens.
//!     time = wake.min(shard.ring().next_event()).max(time.after(Duration::from_nanos(1)));
//! }
//! ```

mod connection;
mod faults;
mod world;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::slots::SlotTable;
use super::{Completion, Errno, InFlight, Op, OpKind, Peer, Refused, Ring, Slot};
use crate::model::limits::SLOT_BUFFER_BYTES;
use crate::model::time::{Mono, Now, Wall};
use connection::Connection;

pub use faults::{Faults, Rng};
pub use world::{Behaviour, LATENCY, Piece, Step, World};

/// What the kernel needs for anything.
const KERNEL_TIME: Duration = Duration::from_micros(1);

/// The ring of a simulated shard.
pub struct Twin {
    world: World,
    faults: Faults,
    rng: Rng,
    now: Mono,
    table: SlotTable,
    slots: Vec<TwinSlot>,
    /// Ended operations in the order in which they become visible.
    visible: Vec<Ended>,
    /// Those that this turn sees.
    ready: VecDeque<Ended>,
    lost: u64,
}

#[derive(Default)]
struct TwinSlot {
    answer: Vec<u8>,
    request: Bytes,
    connection: Option<Connection>,
    /// In the order in which the kernel runs them: at most connect, send, receive and cancel.
    ops: Vec<Pending>,
    /// Completions of one slot keep their order.
    visible_from: Mono,
}

struct Pending {
    kind: OpKind,
    run: Run,
    /// Request bytes to skip, for a send.
    from: usize,
    /// What a receive brings is dropped.
    is_unwanted: bool,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Run {
    /// Linked behind the operation before it.
    Linked,
    Since(Mono),
    /// Started, and will not end by itself.
    Lost,
}

struct Ended {
    visible_at: Mono,
    completion: Completion,
    bytes: Vec<u8>,
}

impl Twin {
    /// A ring with `slots` slots in `world`; equal seeds give equal runs.
    pub fn new(slots: u32, world: World, faults: Faults, seed: u64) -> Twin {
        Twin {
            world,
            faults,
            rng: Rng::new(seed),
            now: Mono::ZERO,
            table: SlotTable::new(slots),
            slots: std::iter::repeat_with(TwinSlot::default).take(slots as usize).collect(),
            visible: Vec::new(),
            ready: VecDeque::new(),
            lost: 0,
        }
    }

    /// Both clocks of the twin's world at `mono`: receive times are on its CLOCK_REALTIME.
    pub fn now(mono: Mono) -> Now {
        Now { mono, wall: wall(mono) }
    }

    /// When the next completion is there; [`Mono::MAX`] when none will come by itself.
    pub fn next_event(&self) -> Mono {
        let visible = self.visible.iter().map(|ended| ended.visible_at);
        let pending = (0..self.slots.len()).filter_map(|index| self.next_end(index).map(|(at, _)| at));
        let ready = (!self.ready.is_empty()).then_some(self.now);
        visible.chain(pending).chain(ready).min().unwrap_or(Mono::MAX)
    }

    /// Operations that were lost so far: each may make a healthy target look hung.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Changes what goes wrong from here on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Slots with something in flight, for checks at the end of a simulation.
    pub fn in_flight_total(&self) -> u32 {
        self.table.in_flight_total()
    }

    /// Ends what the kernel does while it takes an operation over, if that is in flight on the slot.
    fn end_at_once(&mut self, index: usize, now: Mono) {
        let is_short = |op: &Pending| {
            matches!(op.kind, OpKind::Send | OpKind::Disconnect) && matches!(op.run, Run::Since(_))
        };
        if let Some(place) = self.slots[index].ops.iter().position(is_short) {
            self.end_op(index, place, now);
        }
    }

    /// When the first operation of a slot ends by itself, and its place among the slot's operations.
    fn next_end(&self, index: usize) -> Option<(Mono, usize)> {
        let slot = &self.slots[index];
        slot.ops
            .iter()
            .enumerate()
            .filter_map(|(place, op)| Some((self.end_of(slot, op)?, place)))
            .min_by_key(|(at, place)| (*at, *place))
    }

    fn end_of(&self, slot: &TwinSlot, op: &Pending) -> Option<Mono> {
        let Run::Since(since) = op.run else { return None };
        match op.kind {
            OpKind::Connect => slot.connection.as_ref()?.connected_at(&self.world, since),
            OpKind::Recv => {
                Some(slot.connection.as_ref()?.readable_at(&self.world)?.max(since.after(KERNEL_TIME)))
            }
            OpKind::Send | OpKind::Disconnect | OpKind::Cancel => Some(since.after(KERNEL_TIME)),
        }
    }

    /// Lets the kernel's side run until `now`.
    fn advance(&mut self, now: Mono) {
        assert!(now >= self.now, "time goes back from {:?} to {now:?}", self.now);
        for index in 0..self.slots.len() {
            while let Some((at, place)) = self.next_end(index).filter(|(at, _)| *at <= now) {
                let is_recv = self.slots[index].ops[place].kind == OpKind::Recv;
                let is_late = is_recv && at < now && self.rng.chance(self.faults.reads_late);
                self.end_op(index, place, if is_late { now } else { at });
            }
        }
        self.now = now;
    }

    /// Ends the operation at `place` of a slot by itself at `at`.
    fn end_op(&mut self, index: usize, place: usize, at: Mono) {
        let op = self.slots[index].ops.remove(place);
        let slot = &mut self.slots[index];
        let (mut bytes, mut stamp) = (Vec::new(), at);
        let result = match op.kind {
            OpKind::Connect => {
                slot.connection.as_mut().map_or(Err(Errno::INVAL), |c| c.connect(&self.world, at))
            }
            OpKind::Send => {
                let rest = slot.request.len() - op.from;
                let is_short = rest > 1 && self.rng.chance(self.faults.short_send);
                let count = if is_short { 1 + self.rng.below(rest as u64 - 1) as usize } else { rest };
                let whole = slot.request.len();
                slot.connection
                    .as_mut()
                    .map_or(Err(Errno::NOTCONN), |c| c.send(&self.world, (op.from, count), whole, at))
            }
            OpKind::Recv => {
                let room = SLOT_BUFFER_BYTES - slot.answer.len();
                let read =
                    slot.connection.as_mut().map_or(Err(Errno::NOTCONN), |c| c.read(&self.world, room, at));
                read.map(|read| {
                    let count = read.data.len() as u32;
                    bytes = if op.is_unwanted { Vec::new() } else { read.data };
                    stamp = read.stamp;
                    count
                })
            }
            OpKind::Disconnect if self.rng.chance(self.faults.disconnect_fails) => Err(Errno::INVAL),
            OpKind::Disconnect if slot.connection.as_ref().is_some_and(Connection::is_unix) => {
                Err(Errno::INVAL)
            }
            OpKind::Disconnect => {
                slot.connection = None;
                Ok(0)
            }
            OpKind::Cancel => return self.end_cancel(index, at),
        };
        self.publish_stamped(index, op.kind, result, (bytes, stamp), at);
        match (op.kind, result) {
            (OpKind::Connect, Err(_)) => self.fail_links(index, at),
            (OpKind::Connect | OpKind::Send | OpKind::Recv, _) => self.start_next(index, at),
            (OpKind::Disconnect | OpKind::Cancel, _) => {}
        }
    }

    fn end_cancel(&mut self, index: usize, at: Mono) {
        let started = |op: &Pending| op.run != Run::Linked && op.kind != OpKind::Disconnect;
        let started = self.slots[index].ops.iter().position(started);
        let misses = self.rng.chance(self.faults.cancel_misses);
        let Some(place) = started.filter(|_| !misses) else {
            return self.publish(index, OpKind::Cancel, Err(Errno::NOENT), Vec::new(), at);
        };
        let op = self.slots[index].ops.remove(place);
        let cancel_first = self.rng.chance(500);
        if cancel_first {
            self.publish(index, OpKind::Cancel, Ok(1), Vec::new(), at);
        }
        self.publish(index, op.kind, Err(Errno::CANCELED), Vec::new(), at);
        match op.kind {
            OpKind::Connect => self.fail_links(index, at),
            OpKind::Send | OpKind::Recv => self.start_next(index, at),
            OpKind::Disconnect | OpKind::Cancel => {}
        }
        if !cancel_first {
            self.publish(index, OpKind::Cancel, Ok(1), Vec::new(), at);
        }
    }

    /// A failed connect ends the whole chain.
    fn fail_links(&mut self, index: usize, at: Mono) {
        let linked: Vec<OpKind> =
            self.slots[index].ops.iter().filter(|op| op.run == Run::Linked).map(|op| op.kind).collect();
        self.slots[index].ops.retain(|op| op.run != Run::Linked);
        for kind in linked {
            self.publish(index, kind, Err(Errno::CANCELED), Vec::new(), at);
        }
    }

    fn start_next(&mut self, index: usize, at: Mono) {
        let is_lost = self.rng.chance(self.faults.lost);
        let Some(op) = self.slots[index].ops.iter_mut().find(|op| op.run == Run::Linked) else { return };
        let may_be_lost = op.kind == OpKind::Recv;
        op.run = if is_lost && may_be_lost { Run::Lost } else { Run::Since(at) };
        self.lost += u64::from(op.run == Run::Lost);
    }

    fn publish(&mut self, index: usize, kind: OpKind, result: Result<u32, Errno>, bytes: Vec<u8>, at: Mono) {
        self.publish_stamped(index, kind, result, (bytes, at), at);
    }

    fn publish_stamped(
        &mut self,
        index: usize,
        kind: OpKind,
        result: Result<u32, Errno>,
        (bytes, stamp): (Vec<u8>, Mono),
        at: Mono,
    ) {
        let late = if self.rng.chance(self.faults.late) {
            self.rng.duration_up_to(self.faults.late_max)
        } else {
            Duration::ZERO
        };
        let slot = &mut self.slots[index];
        slot.visible_from = slot.visible_from.max(at.after(late));
        let visible_at = slot.visible_from;
        let slot = self.table.current(index as u32);
        let received_at = (kind == OpKind::Recv && !bytes.is_empty()).then(|| wall(stamp));
        let completion = Completion { slot, kind, result, received_at };
        self.visible.push(Ended { visible_at, completion, bytes });
    }

    /// Moves what is visible at `now` into `ready`, slots in random order when that fault strikes.
    fn collect(&mut self, now: Mono) {
        let (mut seen, later): (Vec<Ended>, Vec<Ended>) =
            self.visible.drain(..).partition(|ended| ended.visible_at <= now);
        self.visible = later;
        seen.sort_by_key(|ended| ended.visible_at);
        if self.rng.chance(self.faults.reordered) {
            let salt = self.rng.next_u64();
            seen.sort_by_key(|ended| Rng::new(salt ^ u64::from(ended.completion.slot.index)).next_u64());
        }
        self.ready.extend(seen);
    }

    fn start(&mut self, slot: Slot, kinds: &[OpKind], from: usize) {
        let is_unwanted = kinds.contains(&OpKind::Disconnect);
        self.table.begin(slot, kinds);
        for (place, kind) in kinds.iter().enumerate() {
            let may_be_lost = matches!(kind, OpKind::Connect | OpKind::Recv);
            let run = match place {
                0 if may_be_lost && self.rng.chance(self.faults.lost) => Run::Lost,
                0 => Run::Since(self.now),
                _ => Run::Linked,
            };
            self.lost += u64::from(run == Run::Lost);
            self.slots[slot.at()].ops.push(Pending { kind: *kind, run, from, is_unwanted });
        }
    }

    fn connect(&mut self, slot: Slot, to: Peer) {
        let entry = &mut self.slots[slot.at()];
        assert!(entry.connection.is_none(), "connect on {slot:?}, whose socket is still connected");
        entry.answer.clear();
        entry.connection = Some(Connection::new(to, &self.world));
    }
}

impl Ring for Twin {
    fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    fn acquire(&mut self) -> Option<Slot> {
        self.table.acquire()
    }

    fn release(&mut self, slot: Slot) {
        self.table.release(slot);
        let entry = &mut self.slots[slot.at()];
        assert!(entry.connection.is_none(), "release of {slot:?}, whose socket is still connected");
        entry.answer.clear();
        entry.request = Bytes::new();
    }

    fn in_flight(&self, slot: Slot) -> InFlight {
        self.table.in_flight(slot)
    }

    fn push(&mut self, slot: Slot, op: Op) -> Result<(), Refused> {
        if self.rng.chance(self.faults.full_queue) {
            return Err(Refused::Full(op));
        }
        match op {
            Op::Exchange { to, request } => {
                self.start(slot, &[OpKind::Connect, OpKind::Send, OpKind::Recv], 0);
                self.connect(slot, to);
                self.slots[slot.at()].request = request;
            }
            Op::Connect { to, opening: _ } => {
                self.start(slot, &[OpKind::Connect], 0);
                self.connect(slot, to);
            }
            Op::Send { request, from } => {
                self.start(slot, &[OpKind::Send], from);
                self.slots[slot.at()].request = request;
            }
            Op::Recv => {
                let filled = self.slots[slot.at()].answer.len();
                assert!(filled < SLOT_BUFFER_BYTES, "receive on {slot:?}, whose buffer is full");
                self.start(slot, &[OpKind::Recv], 0);
            }
            Op::Finish => {
                self.slots[slot.at()].answer.clear();
                self.start(slot, &[OpKind::Recv, OpKind::Disconnect], 0);
            }
            Op::Disconnect => self.start(slot, &[OpKind::Disconnect], 0),
            Op::Cancel => self.start(slot, &[OpKind::Cancel], 0),
        }
        Ok(())
    }

    fn submit(&mut self, now: Mono) -> Mono {
        assert!(
            self.ready.is_empty(),
            "completions are left while more is handed over: they will be dated late"
        );
        self.advance(now);
        for index in 0..self.slots.len() {
            if self.rng.chance(self.faults.at_once) {
                self.end_at_once(index, now);
            }
        }
        self.collect(now);
        now
    }

    fn settle(&mut self, now: Mono) -> Option<(Mono, u32)> {
        self.advance(now);
        self.collect(now);
        (!self.ready.is_empty()).then_some((now, self.ready.len() as u32))
    }

    fn next_completion(&mut self, now: Mono) -> Option<Completion> {
        if self.ready.is_empty() {
            self.advance(now);
            self.collect(now);
        }
        loop {
            let Ended { completion, bytes, .. } = self.ready.pop_front()?;
            if self.table.end(completion.slot, completion.kind) {
                self.slots[completion.slot.at()].answer.extend_from_slice(&bytes);
                return Some(completion);
            }
        }
    }

    fn answer(&self, slot: Slot) -> &[u8] {
        &self.slots[slot.at()].answer
    }

    fn drop_answer(&mut self, slot: Slot, count: usize) {
        let in_flight = self.table.in_flight(slot);
        assert!(!in_flight.has(OpKind::Recv), "bytes of {slot:?} dropped while a receive is in flight");
        self.slots[slot.at()].answer.drain(..count);
    }

    fn replace_socket(&mut self, slot: Slot) {
        let in_flight = self.table.in_flight(slot);
        assert!(in_flight.is_empty(), "socket of {slot:?} replaced with {in_flight:?} in flight");
        self.slots[slot.at()].connection = None;
    }

    fn shutdown(&mut self, slot: Slot) -> Result<(), Errno> {
        let now = self.now;
        let connection = self.slots[slot.at()].connection.as_mut();
        connection.ok_or(Errno::NOTCONN)?.shutdown(&self.world, now)
    }

    fn is_connected(&self, slot: Slot) -> bool {
        self.slots[slot.at()].connection.is_some()
    }

    fn local_addr(&self, slot: Slot) -> Option<SocketAddr> {
        self.slots[slot.at()].connection.as_ref()?.local_addr(slot.index)
    }

    fn has_source(&self, _to: &Peer) -> bool {
        true
    }

    fn last_data_at(&self, slot: Slot, now: Mono) -> Option<Mono> {
        let connection = self.slots[slot.at()].connection.as_ref()?;
        connection.last_data_at(now).filter(|_| !connection.is_unix())
    }

    fn enters(&self) -> u64 {
        0
    }

    fn stale_completions(&self) -> u64 {
        self.table.stale()
    }
}

/// CLOCK_REALTIME of the twin's world: 2026 at its boot.
fn wall(mono: Mono) -> Wall {
    const BOOT_NS: i64 = 1_767_225_600_000_000_000;
    Wall::from_ns(BOOT_NS.saturating_add(i64::try_from(mono.as_ns()).unwrap_or(i64::MAX)))
}
