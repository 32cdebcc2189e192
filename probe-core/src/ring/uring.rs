//! The real ring.

#![expect(unsafe_code, reason = "entries of the submission queue carry pointers that the kernel follows")]

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::net::{Shutdown, SocketAddrAny};

use super::arena::Arena;
use super::messages::{self, Messages};
use super::slots::{self, SlotTable};
use super::sockets::{self, SOCKETS_PER_SLOT, SocketKind};
use super::{
    Completion, Errno, InFlight, Op, OpKind, Opening, Peer, Refused, Ring, RingError, Slot, Waker, setup,
};
use crate::model::limits::{COMPLETIONS_WANTED, RING_PASSES_MAX};
use crate::model::time::{Mono, Now};

/// IORING_ENTER_GETEVENTS (io_uring_enter(2)), which the crate keeps to itself.
const ENTER_GETEVENTS: u32 = 1;

/// `user_data` of the wake-up read: no operation has this number.
const WAKE: u64 = u64::MAX;
/// Connecting to family AF_UNSPEC disconnects (connect(2)).
static UNSPEC_ADDRESS: libc::sockaddr =
    libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
/// At the end: how often, and how long each time, we wait for cancelled operations.
const CLOSE_ROUNDS_MAX: u32 = 200;
const CLOSE_WAIT: Duration = Duration::from_millis(5);

/// How a ring is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UringOptions {
    /// Runs in flight. Where RLIMIT_NOFILE allows fewer, fewer are made.
    pub slots: u32,
    pub task_run: TaskRun,
    pub waiting: Waiting,
}

impl UringOptions {
    /// With everything that the kernel can do.
    pub fn best(slots: u32) -> UringOptions {
        UringOptions { slots, task_run: TaskRun::Best, waiting: Waiting::Best }
    }
}

/// How a shard sleeps over a quiet time in which completions shall gather.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// In one call where the kernel can (6.12), else in two.
    Best,
    /// In two calls, though the kernel could do better: forces the fallback in tests.
    InTwoCalls,
}

/// When the kernel runs the end of an operation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TaskRun {
    /// When the shard asks (6.1), else cooperatively.
    Best,
    /// Cooperatively (5.19), though the kernel could do better: forces the fallback in tests.
    Cooperative,
}

/// An io_uring with its slots. Make it on the thread that will use it: the kernel accepts no other.
pub struct Uring {
    /// First, so that it is dropped before what the kernel may write to.
    ring: IoUring,
    slots: SlotTable,
    /// Dropped by hand: leaked when an operation on them would not end.
    memory: ManuallyDrop<Memory>,
    waker: Waker,
    wake_read: WakeRead,
    clock: fn() -> Now,
    /// Whether the kernel itself can wait for a quiet time first (IORING_FEAT_MIN_TIMEOUT, 6.12).
    has_min_wait: bool,
    /// Calls of io_uring_enter so far.
    enters: u64,
    /// Keeps time stamping on for the life of the ring.
    _stamping: OwnedFd,
}

/// What entries in flight point to. Nothing in here moves while the ring lives.
struct Memory {
    arena: Arena,
    messages: Messages,
    held: Box<[Held]>,
}

/// What the ring keeps for one slot.
struct Held {
    address: Option<SocketAddrAny>,
    request: Bytes,
    /// Bytes of the answer that are in the slot's buffer.
    filled: usize,
    /// What the receive in flight is for.
    receive: Receive,
    sockets: [Option<OwnedFd>; SOCKETS_PER_SLOT as usize],
    /// The socket of the latest connection.
    current: Option<SocketKind>,
    /// From the push of a connect to the end of a disconnect.
    is_connected: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Receive {
    /// Its bytes are a part of the answer, and the kernel says when they came.
    Stamped,
    /// Its bytes are a part of the answer.
    Plain,
    /// It only waits for the end of the connection.
    Unwanted,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum WakeRead {
    Armed,
    Idle,
}

impl Uring {
    /// # Errors
    /// The kernel, a sysctl, seccomp or a limit refuses the ring; the text says which, and the cure.
    pub fn new(options: UringOptions, clock: fn() -> Now) -> Result<Uring, RingError> {
        let (ring, slots) = setup::make(options)?;
        let stamping = messages::keep_stamping().map_err(|errno| RingError::refused("setsockopt", errno))?;
        let held = || Held {
            address: None,
            request: Bytes::new(),
            filled: 0,
            receive: Receive::Stamped,
            sockets: [const { None }; SOCKETS_PER_SLOT as usize],
            current: None,
            is_connected: false,
        };
        let has_min_wait = options.waiting == Waiting::Best && ring.params().is_feature_min_timeout();
        Ok(Uring {
            ring,
            slots: SlotTable::new(slots),
            memory: ManuallyDrop::new(Memory {
                arena: Arena::new(slots),
                messages: Messages::new(slots),
                held: std::iter::repeat_with(held).take(slots as usize).collect(),
            }),
            waker: Waker::new()?,
            wake_read: WakeRead::Idle,
            clock,
            has_min_wait,
            enters: 0,
            _stamping: stamping,
        })
    }

    /// Wakes this ring's owner from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether completions are run when the shard asks (DEFER_TASKRUN, 6.1), for `defib doctor`.
    pub fn is_deferred(&self) -> bool {
        self.ring.params().is_setup_single_issuer()
    }

    /// Hands everything that was pushed to the kernel and sleeps: over `quiet` in any case, so that completions
    /// gather and share one wake-up, then until there is a completion, a wake-up or the end of `timeout` (counted
    /// from the call). Zero looks without sleeping.
    ///
    /// # Errors
    /// The kernel refuses the ring for good.
    pub fn submit_and_wait(&mut self, quiet: Duration, timeout: Duration) -> Result<(), RingError> {
        self.arm_wake_read();
        let quiet = quiet.min(timeout);
        if quiet.is_zero() {
            self.enter(1, Duration::ZERO, timeout)?;
        } else if self.has_min_wait {
            self.enter(COMPLETIONS_WANTED, quiet, timeout)?;
        } else {
            self.enter(COMPLETIONS_WANTED, Duration::ZERO, quiet)?;
            if self.ring.completion().is_empty() && quiet < timeout {
                self.enter(1, Duration::ZERO, timeout.saturating_sub(quiet))?;
            }
        }
        // One call runs a bounded number of ended operations (20 from 6.13). What has ended by now must be seen before
        // any deadline is judged. The flag may be set behind the work that it tells of, so a pass that brings nothing
        // is the last one.
        for _ in 0..RING_PASSES_MAX {
            if !self.ring.submission().taskrun() {
                break;
            }
            let before = self.ring.completion().len();
            self.enter(COMPLETIONS_WANTED, Duration::ZERO, Duration::ZERO)?;
            if self.ring.completion().len() == before {
                break;
            }
        }
        Ok(())
    }

    fn enter(&mut self, wanted: usize, quiet: Duration, timeout: Duration) -> Result<(), RingError> {
        let timespec = Timespec::from(timeout);
        let mut args = SubmitArgs::new().timespec(&timespec);
        if !quiet.is_zero() {
            args = args.min_wait_usec(quiet.as_micros().max(1) as u32);
        }
        self.enters += 1;
        check_entered(self.ring.submitter().submit_with_args(wanted, &args))
    }

    fn arm_wake_read(&mut self) {
        if self.wake_read == WakeRead::Armed {
            return;
        }
        let (start, len) = self.memory.arena.wake_bytes();
        let entry = opcode::Read::new(Fd(self.waker.raw_fd()), start, len).build().user_data(WAKE);
        // SAFETY: needed to hand the kernel a pointer; the eight bytes belong to the arena, which outlives
        // the operation (see `drop`), and no other read of them is in flight.
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            self.wake_read = WakeRead::Armed;
        }
    }

    /// The slot's registered socket for a connection to `to`: its place in the file table.
    fn socket_for(&mut self, slot: Slot, to: &Peer, opening: Opening) -> Result<Fixed, Refused> {
        let kind = SocketKind::of(to, opening);
        let place = file_index(slot, kind);
        let held = &mut self.memory.held[slot.at()];
        if held.sockets[kind.at()].is_none() {
            let socket = sockets::make(kind).map_err(|(call, errno)| Refused::Socket { call, errno })?;
            self.ring.submitter().register_files_update(place.0, &[socket.as_raw_fd()]).map_err(|error| {
                Refused::Socket { call: "io_uring_register", errno: setup::errno_of(&error) }
            })?;
            held.sockets[kind.at()] = Some(socket);
        }
        held.current = Some(kind);
        Ok(place)
    }

    fn current_socket(&self, slot: Slot, what: &str) -> Fixed {
        let current = self.memory.held[slot.at()].current;
        file_index(slot, current.unwrap_or_else(|| panic!("{what} on {slot:?} before any connection")))
    }

    /// Connect entry to `to`, which stays in the slot until the next connection.
    fn connect_entry(&mut self, slot: Slot, socket: Fixed, to: SocketAddrAny) -> squeue::Entry {
        let held = &mut self.memory.held[slot.at()];
        assert!(!held.is_connected, "connect on {slot:?}, whose socket is still connected");
        held.is_connected = true;
        held.filled = 0;
        let address = held.address.insert(to);
        opcode::Connect::new(socket, address.as_ptr().cast(), address.addr_len())
            .build()
            .user_data(slots::user_data(slot, OpKind::Connect))
    }

    fn send_entry(&mut self, slot: Slot, socket: Fixed, request: Bytes, from: usize) -> squeue::Entry {
        let held = &mut self.memory.held[slot.at()];
        held.request = request;
        let rest = &held.request[from..];
        opcode::Send::new(socket, rest.as_ptr(), rest.len() as u32)
            .build()
            .user_data(slots::user_data(slot, OpKind::Send))
    }

    fn recv_entry(&mut self, slot: Slot, socket: Fixed) -> squeue::Entry {
        let memory = &mut *self.memory;
        let held = &mut memory.held[slot.at()];
        let (start, len) = memory.arena.free_part(slot.at(), held.filled);
        if held.current == Some(SocketKind::Unix) {
            // Room for control messages would be room for descriptors that the peer passes to us (unix(7)).
            held.receive = Receive::Plain;
            let entry = opcode::Recv::new(socket, start, len).build();
            return entry.user_data(slots::user_data(slot, OpKind::Recv));
        }
        held.receive = Receive::Stamped;
        let header = memory.messages.prepare(slot.at(), start, len);
        opcode::RecvMsg::new(socket, header).build().user_data(slots::user_data(slot, OpKind::Recv))
    }

    /// A receive of what nobody wants, into the slot's empty buffer.
    fn last_recv_entry(&mut self, slot: Slot, socket: Fixed) -> squeue::Entry {
        let held = &mut self.memory.held[slot.at()];
        held.receive = Receive::Unwanted;
        held.filled = 0;
        let (start, len) = self.memory.arena.free_part(slot.at(), 0);
        opcode::Recv::new(socket, start, len).build().user_data(slots::user_data(slot, OpKind::Recv))
    }

    fn disconnect_entry(slot: Slot, socket: Fixed) -> squeue::Entry {
        let len = size_of::<libc::sockaddr>() as libc::socklen_t;
        let entry = opcode::Connect::new(socket, &raw const UNSPEC_ADDRESS, len).build();
        entry.user_data(slots::user_data(slot, OpKind::Disconnect))
    }

    /// Pushes entries for which `has_room` was true.
    fn push_entries(&mut self, entries: &[squeue::Entry]) {
        // SAFETY: needed to hand the kernel pointers. They lead into `memory`: addresses and requests stay
        // until the slot's next connection, which `SlotTable::begin` refuses while anything is in flight;
        // receive buffers belong to the arena; `drop` waits for all of them. The entry for AF_UNSPEC points
        // to a constant.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        assert!(pushed.is_ok(), "the submission queue lost the room it had");
    }

    fn has_room(&mut self, entries: usize) -> bool {
        let queue = self.ring.submission();
        queue.capacity() - queue.len() >= entries
    }

    /// Takes the next completion of a slot off the queue; the wake-up read is handled here.
    fn next_entry(&mut self) -> Option<cqueue::Entry> {
        loop {
            let entry = self.ring.completion().next()?;
            if entry.user_data() != WAKE {
                return Some(entry);
            }
            self.wake_read = WakeRead::Idle;
        }
    }
}

impl Ring for Uring {
    fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    fn acquire(&mut self) -> Option<Slot> {
        self.slots.acquire()
    }

    fn release(&mut self, slot: Slot) {
        self.slots.release(slot);
        let held = &mut self.memory.held[slot.at()];
        assert!(!held.is_connected, "release of {slot:?}, whose socket is still connected");
        held.request = Bytes::new();
        held.filled = 0;
    }

    fn in_flight(&self, slot: Slot) -> InFlight {
        self.slots.in_flight(slot)
    }

    fn push(&mut self, slot: Slot, op: Op) -> Result<(), Refused> {
        if !self.has_room(entries_of(&op)) {
            return Err(Refused::Full(op));
        }
        match op {
            Op::Exchange { to, request } => {
                let address = address_of(&to)?;
                let socket = self.socket_for(slot, &to, Opening::ClientSpeaks)?;
                self.slots.begin(slot, &[OpKind::Connect, OpKind::Send, OpKind::Recv]);
                let connect = self.connect_entry(slot, socket, address).flags(squeue::Flags::IO_LINK);
                let send = self.send_entry(slot, socket, request, 0).flags(squeue::Flags::IO_HARDLINK);
                let recv = self.recv_entry(slot, socket);
                self.push_entries(&[connect, send, recv]);
            }
            Op::Connect { to, opening } => {
                let address = address_of(&to)?;
                let socket = self.socket_for(slot, &to, opening)?;
                self.slots.begin(slot, &[OpKind::Connect]);
                let connect = self.connect_entry(slot, socket, address);
                self.push_entries(&[connect]);
            }
            Op::Send { request, from } => {
                let socket = self.current_socket(slot, "send");
                self.slots.begin(slot, &[OpKind::Send]);
                let send = self.send_entry(slot, socket, request, from);
                self.push_entries(&[send]);
            }
            Op::Recv => {
                let socket = self.current_socket(slot, "receive");
                self.slots.begin(slot, &[OpKind::Recv]);
                let recv = self.recv_entry(slot, socket);
                self.push_entries(&[recv]);
            }
            Op::Disconnect => {
                let socket = self.current_socket(slot, "disconnect");
                self.slots.begin(slot, &[OpKind::Disconnect]);
                self.push_entries(&[Self::disconnect_entry(slot, socket)]);
            }
            Op::Finish => {
                let socket = self.current_socket(slot, "finish");
                self.slots.begin(slot, &[OpKind::Recv, OpKind::Disconnect]);
                let recv = self.last_recv_entry(slot, socket).flags(squeue::Flags::IO_HARDLINK);
                self.push_entries(&[recv, Self::disconnect_entry(slot, socket)]);
            }
            Op::Cancel => {
                let socket = self.current_socket(slot, "cancel");
                self.slots.begin(slot, &[OpKind::Cancel]);
                let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(socket).all()).build();
                self.push_entries(&[entry.user_data(slots::user_data(slot, OpKind::Cancel))]);
            }
        }
        Ok(())
    }

    fn submit(&mut self, _now: Mono) -> Mono {
        // What the kernel does not take now (a full completion queue, a signal) goes with the next wait, which also
        // tells of a broken ring.
        self.enters += 1;
        let _ = self.ring.submitter().submit();
        (self.clock)().mono
    }

    fn settle(&mut self, _now: Mono) -> Option<(Mono, u32)> {
        if !self.ring.submission().taskrun() {
            // What was sent in line has ended with the submission.
            let count = self.ring.completion().len() as u32;
            return (count > 0).then(|| ((self.clock)().mono, count));
        }
        // SAFETY: needed because the crate asks for completions only together with a wait for some, which sets a
        // timer. Nothing is submitted and no argument is passed, so the kernel reads and writes the rings alone.
        let entered = unsafe { self.ring.submitter().enter::<()>(0, 0, ENTER_GETEVENTS, None) };
        self.enters += 1;
        // A broken ring is told of by the next wait.
        entered.ok()?;
        Some(((self.clock)().mono, self.ring.completion().len() as u32))
    }

    fn next_completion(&mut self, _now: Mono) -> Option<Completion> {
        loop {
            let entry = self.next_entry()?;
            let Some((slot, kind)) = slots::parse_user_data(entry.user_data()) else { continue };
            if !self.slots.end(slot, kind) {
                continue;
            }
            let result = match u32::try_from(entry.result()) {
                Ok(count) => Ok(count),
                Err(_) => Err(Errno::from_raw_os_error(-entry.result())),
            };
            let memory = &mut *self.memory;
            let held = &mut memory.held[slot.at()];
            let mut received_at = None;
            match (kind, result) {
                (OpKind::Recv, Ok(count)) if held.receive == Receive::Stamped => {
                    held.filled += count as usize;
                    received_at = memory.messages.received_at(slot.at());
                }
                (OpKind::Recv, Ok(count)) if held.receive == Receive::Plain => {
                    held.filled += count as usize;
                }
                (OpKind::Disconnect, Ok(_)) => held.is_connected = false,
                _ => {}
            }
            return Some(Completion { slot, kind, result, received_at });
        }
    }

    fn answer(&self, slot: Slot) -> &[u8] {
        self.memory.arena.filled_part(slot.at(), self.memory.held[slot.at()].filled)
    }

    fn drop_answer(&mut self, slot: Slot, count: usize) {
        let in_flight = self.slots.in_flight(slot);
        assert!(!in_flight.has(OpKind::Recv), "bytes of {slot:?} dropped while a receive is in flight");
        let memory = &mut *self.memory;
        let held = &mut memory.held[slot.at()];
        memory.arena.shift(slot.at(), count, held.filled);
        held.filled -= count;
    }

    fn replace_socket(&mut self, slot: Slot) {
        let in_flight = self.slots.in_flight(slot);
        assert!(in_flight.is_empty(), "socket of {slot:?} replaced with {in_flight:?} in flight");
        let held = &mut self.memory.held[slot.at()];
        held.is_connected = false;
        let Some(kind) = held.current.take() else { return };
        held.sockets[kind.at()] = None;
        // An update with -1 empties the place; if even that fails, the next socket replaces the entry.
        let emptied = self.ring.submitter().register_files_update(file_index(slot, kind).0, &[-1]);
        debug_assert!(emptied.is_ok(), "{emptied:?}");
    }

    fn shutdown(&mut self, slot: Slot) -> Result<(), Errno> {
        let held = &self.memory.held[slot.at()];
        let socket = held.current.and_then(|kind| held.sockets[kind.at()].as_ref()).ok_or(Errno::NOTCONN)?;
        rustix::net::shutdown(socket, Shutdown::Write)
    }

    fn is_connected(&self, slot: Slot) -> bool {
        self.memory.held[slot.at()].is_connected
    }

    fn local_addr(&self, slot: Slot) -> Option<SocketAddr> {
        let held = &self.memory.held[slot.at()];
        let socket = held.sockets[held.current?.at()].as_ref()?;
        SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
    }

    fn has_source(&self, to: &Peer) -> bool {
        sockets::has_source(to)
    }

    fn last_data_at(&self, slot: Slot, _now: Mono) -> Option<Mono> {
        let held = &self.memory.held[slot.at()];
        let kind = held.current.filter(|kind| *kind != SocketKind::Unix)?;
        let age = sockets::last_data_age(held.sockets[kind.at()].as_ref()?)?;
        Some((self.clock)().mono.before(age))
    }

    fn enters(&self) -> u64 {
        self.enters
    }

    fn stale_completions(&self) -> u64 {
        self.slots.stale()
    }
}

impl Drop for Uring {
    /// Cancels what is in flight and waits for it, since the kernel may write to `memory` until then.
    fn drop(&mut self) {
        for _ in 0..CLOSE_ROUNDS_MAX {
            if self.slots.in_flight_total() == 0 && self.wake_read == WakeRead::Idle {
                // SAFETY: needed because `memory` is dropped by hand; nothing in flight points to it, and it
                // is not touched again.
                unsafe { ManuallyDrop::drop(&mut self.memory) };
                return;
            }
            // Both may fail on a ring that is broken; then the rounds run out.
            let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
            let timespec = Timespec::from(CLOSE_WAIT);
            let _ = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec));
            while let Some(entry) = self.next_entry() {
                if let Some((slot, kind)) = slots::parse_user_data(entry.user_data()) {
                    self.slots.end(slot, kind);
                }
            }
        }
        tracing::error!(
            in_flight = self.slots.in_flight_total(),
            "operations of a probe ring did not end; its memory is kept"
        );
    }
}

/// Entries that are pushed together.
fn entries_of(op: &Op) -> usize {
    match op {
        Op::Exchange { .. } => 3,
        Op::Finish => 2,
        Op::Connect { .. } | Op::Send { .. } | Op::Recv | Op::Disconnect | Op::Cancel => 1,
    }
}

fn address_of(to: &Peer) -> Result<SocketAddrAny, Refused> {
    sockets::address_of(to).map_err(|errno| Refused::Socket { call: "connect", errno })
}

fn file_index(slot: Slot, kind: SocketKind) -> Fixed {
    Fixed(slot.index * SOCKETS_PER_SLOT + kind.at() as u32)
}

/// Ends of a wait that are no errors: time is up, a signal, completions to be taken first.
fn check_entered(entered: std::io::Result<usize>) -> Result<(), RingError> {
    match entered.map_err(|error| setup::errno_of(&error)) {
        Ok(_) | Err(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
        Err(errno) => Err(RingError::Enter(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::model::time::Wall;

    #[test]
    fn an_operation_without_room_for_all_its_entries_comes_back() {
        let epoch = || Now { mono: Mono::ZERO, wall: Wall::default() };
        let mut ring = Uring::new(UringOptions::best(8), epoch).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Peer::from(listener.local_addr().unwrap());
        let slot = ring.acquire().unwrap();
        ring.push(slot, Op::Connect { to: to.clone(), opening: Opening::Bare }).unwrap();
        while ring.next_completion(Mono::ZERO).is_none() {
            ring.submit_and_wait(Duration::ZERO, CLOSE_WAIT).unwrap();
        }
        for (op, entries) in [(Op::Finish, 2), (Op::Exchange { to, request: Bytes::from_static(b"ping") }, 3)]
        {
            while ring.has_room(entries) {
                ring.push_entries(&[opcode::Nop::new().build()]);
            }
            assert_eq!(ring.push(slot, op.clone()), Err(Refused::Full(op)));
            ring.submit(Mono::ZERO);
        }
        assert_eq!(ring.push(slot, Op::Finish), Ok(()));
    }
}
