//! The only io_uring code, and its in-memory twin for simulation.
//!
//! [`Ring`] is the closed set of operations that a probe needs, safe to call. A caller takes a [`Slot`],
//! pushes operations on it, takes completions, and gives the slot back when nothing of it is in flight.
//! Socket addresses, request bytes and receive buffers live in the ring, per slot, until their completions
//! are in; so the interface has no pointers.
//!
//! A slot keeps its sockets: one per address family and [`Opening`], made on first use by plain system calls
//! and registered in the ring's file table. A connection is ended by connect(AF_UNSPEC), after which the
//! socket serves the next connection. Every probe is a new connection all the same. A Unix socket cannot be
//! disconnected (net/unix/af_unix.c, unix_validate_addr): [`Op::Disconnect`] fails, and the slot's socket is
//! replaced.
//!
//! What the kernel requires and both implementations check:
//! * one operation of a kind per slot at a time;
//! * a slot is released, and its socket disconnected, only when nothing else of it is in flight;
//! * bytes of an answer are dropped only while no receive is in flight.
//!
//! A breach is a bug of the caller that could hand one probe's bytes to another, so it panics.

mod arena;
mod driver;
mod epoll;
mod error;
mod messages;
mod peer;
mod setup;
mod slots;
mod sockets;
pub mod twin;
mod uring;
mod wake;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use bytes::Bytes;
pub use rustix::io::Errno;

use crate::model::time::{Mono, Wall};

pub use driver::{Driver, RingKind, RingOptions};
pub use epoll::Epoll;
pub use error::RingError;
pub use peer::Peer;
pub use slots::{InFlight, Slot};
pub use uring::{TaskRun, Uring, UringOptions, Waiting};
pub use wake::Waker;

/// What a probe needs of the kernel.
pub trait Ring {
    /// Number of slots.
    fn capacity(&self) -> u32;

    /// Takes a free slot; None when all are taken.
    fn acquire(&mut self) -> Option<Slot>;

    /// Gives a slot back. Its buffers and its request are free again.
    ///
    /// # Panics
    /// Something of the slot is in flight, or the slot is not taken.
    fn release(&mut self, slot: Slot);

    /// What of the slot has been pushed and not yet completed.
    fn in_flight(&self, slot: Slot) -> InFlight;

    /// Queues an operation. It reaches the kernel with the next submission of the owner's loop.
    ///
    /// # Errors
    /// [`Refused::Full`] gives the operation back: push it again after a submission. [`Refused::Socket`]:
    /// no socket could be made for it.
    ///
    /// # Panics
    /// The rules of the module are broken.
    fn push(&mut self, slot: Slot, op: Op) -> Result<(), Refused>;

    /// Hands what was pushed to the kernel now, without waiting for anything. Returns the time afterwards, so that
    /// the operations can be dated; `now` is the time of the turn, which the twin gives back.
    fn submit(&mut self, now: Mono) -> Mono;

    /// Runs some of what has gone on since the submission, without waiting, so that its completions can be taken and
    /// dated. Returns the time afterwards and about how many there are; None when there was nothing to run.
    fn settle(&mut self, now: Mono) -> Option<(Mono, u32)>;

    /// The next completion that is there, to be handled before another is taken: what is in flight, and what was received,
    /// change with each. `now` is the time of the turn; only the twin looks at it.
    fn next_completion(&mut self, now: Mono) -> Option<Completion>;

    /// The bytes received so far on the slot's connection and not yet dropped: at most
    /// [`crate::model::limits::SLOT_BUFFER_BYTES`].
    fn answer(&self, slot: Slot) -> &[u8];

    /// Drops the first `count` bytes of the answer, so that there is room for more.
    ///
    /// # Panics
    /// A receive is in flight, or the answer is shorter than `count`.
    fn drop_answer(&mut self, slot: Slot, count: usize);

    /// Closes the slot's current socket; the next connection makes a new one. For a socket that the kernel
    /// would not disconnect.
    ///
    /// # Panics
    /// Something of the slot is in flight.
    fn replace_socket(&mut self, slot: Slot);

    /// Ends our half of the slot's connection: the peer sees the end of the stream, behind everything that was sent.
    /// A system call of its own, since the kernel hands the entry for it to a worker thread.
    ///
    /// # Errors
    /// The connection is not open any more.
    fn shutdown(&mut self, slot: Slot) -> Result<(), Errno>;

    /// Whether a connection was begun on the slot and not yet ended by [`Op::Disconnect`] or
    /// [`Ring::replace_socket`].
    fn is_connected(&self, slot: Slot) -> bool;

    /// Local address of the slot's current socket, for error texts. A Unix socket has none.
    fn local_addr(&self, slot: Slot) -> Option<SocketAddr>;

    /// Whether this host has an address to reach `to` from. System calls.
    fn has_source(&self, to: &Peer) -> bool;

    /// The earliest that the last bytes on the slot's connection can have come, if its peer has closed since: the kernel
    /// may have joined its FIN to them, and dates both with the FIN then. None where the peer has not closed, and for a
    /// Unix socket. A system call; `now` as in [`Ring::submit`].
    fn last_data_at(&self, slot: Slot, now: Mono) -> Option<Mono>;

    /// Calls of io_uring_enter so far; 0 for a ring that makes others.
    fn enters(&self) -> u64;

    /// Completions whose slot has moved on. Always zero unless the rules of the module are broken.
    fn stale_completions(&self) -> u64;
}

/// One operation on a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Connect, send and receive as one linked submission: three completions, in this order. When the
    /// connect fails, the other two complete with ECANCELED. A failed or short send does not stop the
    /// receive, since a server may answer before it has read everything.
    Exchange {
        to: Peer,
        request: Bytes,
    },
    Connect {
        to: Peer,
        opening: Opening,
    },
    /// Sends `request` from byte `from` on. May send less.
    Send {
        request: Bytes,
        from: usize,
    },
    /// Receives what is there, behind the answer so far. A result of 0 is the end of the stream.
    Recv,
    /// Receives once more, into the empty buffer, and whatever comes of it (the server's FIN, more bytes, an
    /// error, a cancel) ends the connection: two completions, receive and disconnect, in this order.
    Finish,
    /// Ends the connection, whatever its state; a peer that has not closed sees a reset.
    Disconnect,
    /// Cancels what is in flight on the slot's socket. Cancelled operations complete with ECANCELED, or with
    /// their result when that was faster. May find nothing while an operation is between two states of the
    /// kernel: look at [`Ring::in_flight`] and cancel again.
    Cancel,
}

/// Who speaks first on a connection.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Opening {
    /// The client (HTTP): the last packet of the handshake waits for the request and travels with it
    /// (TCP_DEFER_ACCEPT on the client's side).
    ClientSpeaks,
    /// Nobody: the handshake is the whole probe.
    Bare,
}

/// The kinds of operations that complete.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum OpKind {
    Connect,
    Send,
    Recv,
    Disconnect,
    Cancel,
}

/// An operation has ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    pub slot: Slot,
    pub kind: OpKind,
    /// Bytes for send and receive, else without meaning.
    pub result: Result<u32, Errno>,
    /// When the kernel received the last segment of these bytes. Only receives have it, and not that of
    /// [`Op::Finish`]; the end of a stream has none. CLOCK_REALTIME, so a clock step shows.
    pub received_at: Option<Wall>,
}

/// Why an operation was not queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The submission queue has no room for it: here it is again.
    Full(Op),
    /// No socket for the connection: the system call and its error.
    Socket { call: &'static str, errno: Errno },
}
