//! One slot: its kept sockets, its connection, and the operations that are in flight on it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{SendFlags, Shutdown, SocketAddrAny};

use super::super::sockets::{self, SOCKETS_PER_SLOT, SocketKind};
use super::super::{Errno, OpKind, Opening, Peer, Refused, Slot};
use super::receive::Receiver;
use super::watch::{Direction, Watched};
use crate::model::limits::SLOT_BUFFER_BYTES;
use crate::model::time::Wall;

/// Told what has ended, how, and when the kernel had received it.
pub trait Publish: FnMut(OpKind, Result<u32, Errno>, Option<Wall>) {}

impl<F: FnMut(OpKind, Result<u32, Errno>, Option<Wall>)> Publish for F {}

pub struct SlotState {
    /// Connected to nothing, and outside epoll.
    kept: [Option<OwnedFd>; SOCKETS_PER_SLOT as usize],
    /// From the push of a connect to the end of a disconnect.
    connection: Option<Connection>,
    pending: Pending,
    request: Bytes,
    /// [`SLOT_BUFFER_BYTES`] from the first receive on, until then empty.
    buffer: Box<[u8]>,
    /// Bytes of the answer that are in the buffer.
    filled: usize,
    /// What the latest receive brings is dropped.
    is_unwanted: bool,
    /// Listed for another try of its connect.
    is_listed: bool,
    /// Wakes this slot.
    waker: Waker,
}

struct Connection {
    kind: SocketKind,
    to: SocketAddrAny,
    socket: Socket,
}

/// Into epoll comes a socket only when its connect has begun, since one that is connected to nothing counts as closed,
/// and tokio never forgets that.
enum Socket {
    Outside(OwnedFd),
    Watched(Watched<OwnedFd>),
}

impl Socket {
    fn fd(&self) -> &OwnedFd {
        match self {
            Socket::Outside(fd) => fd,
            Socket::Watched(watched) => watched.fd(),
        }
    }

    fn into_fd(self) -> OwnedFd {
        match self {
            Socket::Outside(fd) => fd,
            Socket::Watched(watched) => watched.into_fd(),
        }
    }
}

/// What was pushed and has not ended.
#[derive(Default)]
struct Pending {
    connect: Option<Connecting>,
    /// From which byte of the request on.
    send: Option<usize>,
    recv: Option<Start>,
    disconnect: Option<Start>,
    cancel: bool,
}

/// A connect whose end was not told yet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Connecting {
    Begun,
    /// At once. Asking a second time could find a Unix socket's server without room for another connection.
    Done,
    /// A Unix socket's server has no room for it. Nothing tells when it has, so it is begun again and again.
    NoRoom,
    /// At once, too.
    Failed(Errno),
}

/// When an operation may begin.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Start {
    Now,
    /// When the operation before it has ended: the receive of an exchange, the disconnect of a finish.
    Linked,
}

impl SlotState {
    /// `waker` leads to a call of [`SlotState::step`].
    pub fn new(waker: Waker) -> SlotState {
        SlotState {
            kept: [const { None }; SOCKETS_PER_SLOT as usize],
            connection: None,
            pending: Pending::default(),
            request: Bytes::new(),
            buffer: Box::default(),
            filled: 0,
            is_unwanted: false,
            is_listed: false,
            waker,
        }
    }

    /// Begins a connection. Call it inside the runtime.
    pub fn connect(&mut self, peer: &Peer, opening: Opening) -> Result<(), Refused> {
        assert!(self.connection.is_none(), "connect on a slot whose socket is still connected");
        let to = sockets::address_of(peer).map_err(|errno| Refused::Socket { call: "connect", errno })?;
        let kind = SocketKind::of(peer, opening);
        let socket = match self.kept[kind.at()].take() {
            Some(socket) => socket,
            None => make(kind).map_err(|(call, errno)| Refused::Socket { call, errno })?,
        };
        let begun = begin(&socket, kind, &to);
        let socket = match begun {
            Connecting::Begun | Connecting::Done => {
                let watched = Watched::new(socket);
                Socket::Watched(watched.map_err(|(_, errno)| Refused::Socket { call: "epoll_ctl", errno })?)
            }
            Connecting::NoRoom | Connecting::Failed(_) => Socket::Outside(socket),
        };
        self.connection = Some(Connection { kind, to, socket });
        self.filled = 0;
        self.pending.connect = Some(begun);
        Ok(())
    }

    /// What follows the connect of an exchange.
    pub fn exchange(&mut self, request: Bytes) {
        self.send(request, 0);
        self.is_unwanted = false;
        self.pending.recv = Some(Start::Linked);
    }

    pub fn send(&mut self, request: Bytes, from: usize) {
        self.request = request;
        self.pending.send = Some(from);
    }

    pub fn recv(&mut self) {
        assert!(self.filled < SLOT_BUFFER_BYTES, "receive on a slot whose buffer is full");
        self.is_unwanted = false;
        self.pending.recv = Some(Start::Now);
    }

    /// A last receive, and the end of the connection whatever comes of it.
    pub fn finish(&mut self) {
        self.filled = 0;
        self.is_unwanted = true;
        self.pending.recv = Some(Start::Now);
        self.pending.disconnect = Some(Start::Linked);
    }

    pub fn disconnect(&mut self) {
        self.pending.disconnect = Some(Start::Now);
    }

    pub fn cancel(&mut self) {
        self.pending.cancel = true;
    }

    /// Takes every step that is possible now, and tells what has ended.
    pub fn step(&mut self, receiver: &mut Receiver, mut publish: impl Publish) {
        if std::mem::take(&mut self.pending.cancel) {
            let count = self.cancel_all(&mut publish);
            publish(OpKind::Cancel, if count > 0 { Ok(count) } else { Err(Errno::NOENT) }, None);
        }
        self.transfer(receiver, &mut publish);
        // Alone, or behind its receive.
        if self.pending.recv.is_none() && self.pending.disconnect.take().is_some() {
            publish(OpKind::Disconnect, self.end_connection(), None);
        }
    }

    /// Connect, send and receive.
    fn transfer(&mut self, receiver: &mut Receiver, publish: &mut impl Publish) {
        if self.pending.connect == Some(Connecting::NoRoom) {
            self.begin_again();
        }
        let Some(Connection { kind, to, socket }) = &self.connection else { return };
        let cx = &mut Context::from_waker(&self.waker);
        if let Some(connecting) = self.pending.connect {
            let ended = match (connecting, socket) {
                (Connecting::Begun, Socket::Watched(socket)) => poll_connect(cx, socket, to),
                (Connecting::Begun | Connecting::NoRoom, _) => return,
                (Connecting::Done, _) => Poll::Ready(Ok(0)),
                (Connecting::Failed(errno), _) => Poll::Ready(Err(errno)),
            };
            let Poll::Ready(result) = ended else { return };
            self.pending.connect = None;
            publish(OpKind::Connect, result, None);
            if result.is_err() {
                self.cancel_all(publish);
                return;
            }
        }
        // A connection that is not in epoll has nothing to transfer.
        let Socket::Watched(socket) = socket else { return };
        if let Some(from) = self.pending.send
            && let Poll::Ready(result) = poll_send(cx, socket, &self.request[from..])
        {
            self.pending.send = None;
            publish(OpKind::Send, result, None);
        }
        let may_receive = match self.pending.recv {
            None => false,
            Some(Start::Now) => true,
            Some(Start::Linked) => self.pending.send.is_none(),
        };
        if may_receive {
            if self.buffer.is_empty() {
                self.buffer = vec![0; SLOT_BUFFER_BYTES].into();
            }
            let room = &mut self.buffer[self.filled..];
            let received = socket.attempt(cx, Direction::Read, |socket| match kind {
                SocketKind::Unix => Receiver::receive_plain(socket, room),
                SocketKind::V4(_) | SocketKind::V6(_) => receiver.receive(socket, room),
            });
            if let Poll::Ready(result) = received {
                self.pending.recv = None;
                let at = result.ok().and_then(|(_, at)| at).filter(|_| !self.is_unwanted);
                publish(OpKind::Recv, result.map(|(count, _)| count), at);
            }
        }
    }

    /// Whether its connect is to be tried again, and was not listed for that yet.
    pub fn list_for_retry(&mut self) -> bool {
        let has_no_room = self.pending.connect == Some(Connecting::NoRoom);
        has_no_room && !std::mem::replace(&mut self.is_listed, true)
    }

    /// The next step is a try.
    pub fn unlist(&mut self) {
        self.is_listed = false;
    }

    /// Tries once more to begin a connection for which the server had no room.
    fn begin_again(&mut self) {
        let Some(Connection { kind, to, socket }) = self.connection.take() else { return };
        let fd = socket.into_fd();
        let mut begun = begin(&fd, kind, &to);
        let socket = match begun {
            Connecting::Begun | Connecting::Done => match Watched::new(fd) {
                Ok(watched) => Socket::Watched(watched),
                Err((fd, errno)) => {
                    begun = Connecting::Failed(errno);
                    Socket::Outside(fd)
                }
            },
            Connecting::NoRoom | Connecting::Failed(_) => Socket::Outside(fd),
        };
        self.pending.connect = Some(begun);
        self.connection = Some(Connection { kind, to, socket });
    }

    /// Ends connect, send and receive; returns how many there were.
    fn cancel_all(&mut self, publish: &mut impl Publish) -> u32 {
        let Pending { connect, send, recv, disconnect, .. } = std::mem::take(&mut self.pending);
        self.pending.disconnect = disconnect;
        let kinds = [
            (connect.is_some(), OpKind::Connect),
            (send.is_some(), OpKind::Send),
            (recv.is_some(), OpKind::Recv),
        ];
        let mut count = 0;
        for (_, kind) in kinds.into_iter().filter(|(is_pending, _)| *is_pending) {
            publish(kind, Err(Errno::CANCELED), None);
            count += 1;
        }
        count
    }

    /// Disconnects the socket and keeps it. One that the kernel does not disconnect stays the connection's.
    fn end_connection(&mut self) -> Result<u32, Errno> {
        let Some(connection) = self.connection.take() else { return Ok(0) };
        if let Err(errno) = rustix::net::connect_unspec(connection.socket.fd()) {
            self.connection = Some(connection);
            return Err(errno);
        }
        self.kept[connection.kind.at()] = Some(connection.socket.into_fd());
        Ok(0)
    }

    /// A receive of `count` bytes was delivered.
    pub fn received(&mut self, count: usize) {
        if !self.is_unwanted {
            self.filled += count;
        }
    }

    pub fn answer(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    pub fn drop_answer(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
    }

    /// Closes the socket of the connection.
    pub fn close(&mut self) {
        self.connection = None;
    }

    /// Ends our half of the connection.
    pub fn shutdown(&mut self) -> Result<(), Errno> {
        let connection = self.connection.as_ref().ok_or(Errno::NOTCONN)?;
        rustix::net::shutdown(connection.socket.fd(), Shutdown::Write)
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        let connection = self.connection.as_ref()?;
        SocketAddr::try_from(rustix::net::getsockname(connection.socket.fd()).ok()?).ok()
    }

    /// See [`sockets::last_data_age`].
    pub fn last_data_age(&self) -> Option<Duration> {
        let connection = self.connection.as_ref().filter(|connection| connection.kind != SocketKind::Unix)?;
        sockets::last_data_age(connection.socket.fd())
    }

    pub fn release(&mut self, slot: Slot) {
        assert!(self.connection.is_none(), "release of {slot:?}, whose socket is still connected");
        self.request = Bytes::new();
        self.filled = 0;
    }
}

/// A socket as the real ring has it, but one that does not block.
fn make(kind: SocketKind) -> Result<OwnedFd, (&'static str, Errno)> {
    let socket = sockets::make(kind)?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| ("ioctl", errno))?;
    Ok(socket)
}

/// The first call for a connection.
fn begin(socket: &OwnedFd, kind: SocketKind, to: &SocketAddrAny) -> Connecting {
    match rustix::net::connect(socket, to) {
        Ok(()) => Connecting::Done,
        Err(Errno::INPROGRESS | Errno::INTR) => Connecting::Begun,
        // Of an Internet socket this is our own lack of ports or memory.
        Err(Errno::AGAIN) if kind == SocketKind::Unix => Connecting::NoRoom,
        Err(errno) => Connecting::Failed(errno),
    }
}

/// Connecting once more tells how the first call went, whatever epoll has said: 0 when it is done (EISCONN
/// from then on), EALREADY while it goes on, else its error.
fn poll_connect(
    cx: &mut Context<'_>,
    socket: &Watched<OwnedFd>,
    to: &SocketAddrAny,
) -> Poll<Result<u32, Errno>> {
    socket.attempt(cx, Direction::Write, |socket| match rustix::net::connect(socket, to) {
        Ok(()) | Err(Errno::ISCONN) => Ok(0),
        Err(errno) => Err(errno),
    })
}

fn poll_send(cx: &mut Context<'_>, socket: &Watched<OwnedFd>, bytes: &[u8]) -> Poll<Result<u32, Errno>> {
    socket.attempt(cx, Direction::Write, |socket| {
        rustix::net::send(socket, bytes, SendFlags::NOSIGNAL).map(|count| count as u32)
    })
}
