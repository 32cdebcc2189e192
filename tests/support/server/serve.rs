//! The loop of the server's thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size};
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use rustix::time::{ClockId, clock_gettime};

use super::ill::Manner;
use super::{Answer, Counts, FAILED, Ill, Plan, Wait};

const REQUEST_MAX_BYTES: usize = 2 * 1024;
const EVENTS_PER_TURN: usize = 256;
/// Connections accepted before others are looked at again.
const ACCEPTS_PER_TURN: usize = 64;
/// How often the thread looks whether it shall end.
const LOOK_EVERY_NS: i64 = 100_000_000;
/// Between two bytes of an answer that comes byte by byte.
const DRIP_EVERY_NS: i64 = 50_000_000;
/// Buffer for a flood, so that what nobody reads costs little.
const FLOOD_BUFFER_BYTES: usize = 16 * 1024;
/// Pieces of a flood that are sent before other connections are looked at.
const FLOOD_PIECES_PER_TURN: usize = 4;
/// Key of the listener; connections have the number of their descriptor.
const LISTENER: u64 = u64::MAX;

pub(super) struct Loop {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    /// What is due later: when, and on which connection, which is there until then.
    late: BinaryHeap<Reverse<(i64, usize)>>,
    control: Vec<u8>,
    counts: Arc<Counts>,
    plan: Plan,
}

/// A connection that could not be finished at once.
struct Connection {
    socket: OwnedFd,
    registered: Registered,
    doing: Doing,
}

enum Doing {
    /// So much of the request has come.
    Reading(Vec<u8>),
    Late {
        target: usize,
        received_ns: i64,
        answer: &'static [u8],
    },
    /// The next byte that drips or floods.
    Misbehaving {
        manner: Manner,
        at: usize,
    },
}

/// Whether the epoll knows the connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Registered {
    No,
    Yes,
}

/// What one read brought.
enum Read {
    /// So many bytes, and when the kernel had them.
    Bytes(usize, Option<i64>),
    NotYet,
    Over,
}

impl Loop {
    pub(super) fn new(listener: TcpListener, counts: Arc<Counts>, plan: Plan) -> Result<Loop> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("epoll_create")?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).context("epoll_ctl")?;
        let (connections, late) = (Vec::new(), BinaryHeap::new());
        let control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        Ok(Loop { epoll, listener, connections, late, control, counts, plan })
    }

    pub(super) fn run(mut self) -> Result<()> {
        let mut space = [MaybeUninit::<Event>::uninit(); EVENTS_PER_TURN];
        while !self.counts.stop.load(Ordering::Relaxed) {
            let timeout = self.next_look();
            let ready = match epoll::wait(&self.epoll, &mut space, Some(&timeout)) {
                Err(Errno::INTR) => continue,
                other => other.context("epoll_wait")?.0,
            };
            for event in ready.iter() {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    key => self.more(key as usize)?,
                }
            }
            self.do_late();
        }
        Ok(())
    }

    fn next_look(&self) -> Timespec {
        let until_ns = self.late.peek().map_or(LOOK_EVERY_NS, |Reverse((due_ns, _))| due_ns - wall_ns());
        Timespec { tv_sec: 0, tv_nsec: until_ns.clamp(0, LOOK_EVERY_NS) }
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                // Without a descriptor they wait in the queue until others are closed.
                Err(Errno::WOULDBLOCK | Errno::MFILE) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error).context("accept"),
            };
            self.counts.accepted.fetch_add(1, Ordering::Relaxed);
            // The request often came with the handshake.
            self.serve(Connection { socket, registered: Registered::No, doing: Doing::Reading(Vec::new()) })?;
        }
        Ok(())
    }

    /// Something happened on a connection that was registered.
    fn more(&mut self, key: usize) -> Result<()> {
        match self.connections.get_mut(key).and_then(Option::take) {
            Some(connection) if matches!(connection.doing, Doing::Misbehaving { .. }) => {
                self.misbehave(connection)
            }
            Some(connection) => self.serve(connection),
            None => Ok(()),
        }
    }

    /// Reads what there is and answers a whole request; a finished or broken connection is closed.
    fn serve(&mut self, mut connection: Connection) -> Result<()> {
        let mut chunk = [0; REQUEST_MAX_BYTES];
        let (count, received_ns) = match self.read(&connection.socket, &mut chunk) {
            Read::Bytes(count, received_ns) => (count, received_ns),
            Read::NotYet => return self.wait_for(connection, EventFlags::IN),
            Read::Over => return Ok(()),
        };
        let Doing::Reading(request) = &mut connection.doing else { return Ok(()) };
        let whole = if request.is_empty() && chunk[..count].ends_with(b"\r\n\r\n") {
            &chunk[..count]
        } else {
            request.extend_from_slice(&chunk[..count]);
            if !request.windows(4).any(|four| four == b"\r\n\r\n") {
                let is_too_long = request.len() > REQUEST_MAX_BYTES;
                return if is_too_long { Ok(()) } else { self.wait_for(connection, EventFlags::IN) };
            }
            request
        };
        let (target, answer) = match self.counts.answer(self.plan.script, whole) {
            Answer::Of { target, bytes } => (target, bytes),
            Answer::Unknown => {
                reply(&connection.socket, FAILED);
                return Ok(());
            }
            Answer::Ill(ill) => return self.fall_ill(connection, ill),
        };
        let Some(delay) = self.plan.delays.of(target) else {
            reply(&connection.socket, answer);
            return Ok(());
        };
        let received_ns = received_ns.unwrap_or_else(wall_ns);
        connection.doing = Doing::Late { target, received_ns, answer };
        self.keep_until(connection, received_ns + delay.as_nanos() as i64);
        Ok(())
    }

    fn read(&mut self, socket: &OwnedFd, chunk: &mut [u8]) -> Read {
        let mut parts = [IoSliceMut::new(chunk)];
        let received =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut self.control), MsgFlags::empty());
        match received {
            Ok(message) if message.bytes == 0 => Read::Over,
            Ok(message) => {
                let stamp = message.cmsgs().ok().and_then(|mut all| {
                    all.find_map(|one| match one {
                        ControlMessageOwned::ScmTimestampns(at) => {
                            Some(at.tv_sec() * 1_000_000_000 + at.tv_nsec())
                        }
                        _ => None,
                    })
                });
                Read::Bytes(message.bytes, stamp)
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Read::NotYet,
            Err(_) => Read::Over,
        }
    }

    /// The first bytes of an ill target, and what comes after them.
    fn fall_ill(&mut self, mut connection: Connection, ill: Ill) -> Result<()> {
        let (first, manner) = ill.manner();
        reply(&connection.socket, first);
        connection.doing = Doing::Misbehaving { manner, at: 0 };
        match manner {
            Manner::Close => return Ok(()),
            Manner::Reset => {
                // Closed with this, a connection is reset.
                return set_socket_linger(&connection.socket, Some(Duration::ZERO)).context("SO_LINGER");
            }
            Manner::Drip(_) => self.keep_until(connection, wall_ns() + DRIP_EVERY_NS),
            Manner::Flood(_) => {
                set_socket_send_buffer_size(&connection.socket, FLOOD_BUFFER_BYTES).context("SO_SNDBUF")?;
                return self.misbehave(connection);
            }
            Manner::Hold => return self.wait_for(connection, EventFlags::IN),
        }
        Ok(())
    }

    /// Goes on with an ill connection until the prober has had enough.
    fn misbehave(&mut self, mut connection: Connection) -> Result<()> {
        let Doing::Misbehaving { manner, at } = &mut connection.doing else { return Ok(()) };
        let Manner::Flood(bytes) = *manner else {
            return match self.read(&connection.socket, &mut [0; REQUEST_MAX_BYTES]) {
                Read::Bytes(..) | Read::NotYet => self.wait_for(connection, EventFlags::IN),
                Read::Over => Ok(()),
            };
        };
        for _ in 0..FLOOD_PIECES_PER_TURN {
            match send(&connection.socket, &bytes[*at..], SendFlags::NOSIGNAL) {
                Ok(count) => *at = (*at + count) % bytes.len(),
                Err(Errno::WOULDBLOCK | Errno::INTR) => break,
                Err(_) => return Ok(()),
            }
        }
        self.wait_for(connection, EventFlags::OUT)
    }

    /// One shot: while something is due later nothing is told of its connection.
    fn wait_for(&mut self, mut connection: Connection, flags: EventFlags) -> Result<()> {
        let registered = std::mem::replace(&mut connection.registered, Registered::Yes);
        let key = self.keep(connection);
        let Some(Some(kept)) = self.connections.get(key) else { return Ok(()) };
        let (data, flags) = (EventData::new_u64(key as u64), flags | EventFlags::ONESHOT);
        match registered {
            Registered::No => epoll::add(&self.epoll, &kept.socket, data, flags),
            Registered::Yes => epoll::modify(&self.epoll, &kept.socket, data, flags),
        }
        .context("epoll_ctl")
    }

    fn keep(&mut self, connection: Connection) -> usize {
        let key = connection.socket.as_raw_fd() as usize;
        if self.connections.len() <= key {
            self.connections.resize_with(key + 1, || None);
        }
        self.connections[key] = Some(connection);
        key
    }

    fn keep_until(&mut self, connection: Connection, due_ns: i64) {
        let key = self.keep(connection);
        self.late.push(Reverse((due_ns, key)));
    }

    fn do_late(&mut self) {
        let now_ns = wall_ns();
        while self.late.peek().is_some_and(|Reverse((due_ns, _))| *due_ns <= now_ns) {
            let Some(Reverse((_, key))) = self.late.pop() else { return };
            let Some(mut connection) = self.connections[key].take() else { continue };
            match &mut connection.doing {
                Doing::Late { target, received_ns, answer } => {
                    let took_ns = wall_ns() - *received_ns;
                    reply(&connection.socket, answer);
                    self.counts.waited(Wait { target: *target, received_ns: *received_ns, took_ns });
                }
                Doing::Misbehaving { manner: Manner::Drip(bytes), at } => {
                    let byte = &bytes[*at..=*at];
                    *at = (*at + 1) % bytes.len();
                    match send(&connection.socket, byte, SendFlags::NOSIGNAL) {
                        Ok(_) | Err(Errno::WOULDBLOCK | Errno::INTR) => {
                            self.keep_until(connection, now_ns + DRIP_EVERY_NS);
                        }
                        Err(_) => {}
                    }
                }
                Doing::Misbehaving { .. } | Doing::Reading(_) => {}
            }
        }
    }
}

fn reply(socket: &OwnedFd, answer: &[u8]) {
    if !answer.is_empty() {
        // A prober that has given up meanwhile has counted it as its own failure.
        let _ = send(socket, answer, SendFlags::NOSIGNAL);
    }
}

/// CLOCK_REALTIME in nanoseconds: what receive timestamps count in.
fn wall_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
