//! The probed server: one thread, one epoll, one connection per probe. It counts every request by target
//! and fails by script, so that what a prober reports can be compared with what was served. Some targets answer
//! after a given time; how long they really took is kept, from the kernel's receive time to the write.
//!
//! It is cheap, so that one core serves 20,000 connections a second: accept, read, write and close are all there
//! is, when the request comes with the handshake or right behind it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::clock;

/// Connections that wait to be accepted: more than probes that can be in flight at once.
const BACKLOG: i32 = 4_096;
const REQUEST_MAX_BYTES: usize = 2 * 1024;
const EVENTS_PER_TURN: usize = 256;
/// Connections accepted before others are looked at again.
const ACCEPTS_PER_TURN: usize = 64;
/// How often the thread looks whether it shall end.
const LOOK_EVERY_NS: i64 = 100_000_000;
/// Key of the listener; connections have the number of their descriptor.
const LISTENER: u64 = u64::MAX;
/// Waits kept: of the longest run there is.
const WAITS_MAX: usize = 200_000;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Which requests fail: of every `every`-th target, the requests whose number lies in the window, and again
/// after each `cycle` requests.
#[derive(Copy, Clone, Debug)]
pub struct Script {
    pub every: usize,
    pub cycle: u64,
    pub window_first: u64,
    pub window_length: u64,
}

impl Script {
    /// Whether the target ever fails.
    pub fn concerns(self, target: usize) -> bool {
        target % self.every == self.every / 2
    }

    fn fails(self, target: usize, request: u64) -> bool {
        let place = request % self.cycle;
        self.concerns(target) && (self.window_first..self.window_first + self.window_length).contains(&place)
    }
}

/// Which targets answer late, and after how long: of every `every` the one after a tenth of them, each in turn
/// with the next of `lengths`.
#[derive(Copy, Clone, Debug)]
pub struct Delays {
    pub every: usize,
    pub lengths: &'static [Duration],
}

impl Delays {
    /// Nobody waits.
    pub const NONE: Delays = Delays { every: usize::MAX, lengths: &[] };

    fn of(self, target: usize) -> Option<Duration> {
        let is_late = !self.lengths.is_empty() && target % self.every == self.every / 10;
        is_late.then(|| self.lengths[target / self.every % self.lengths.len()])
    }
}

/// How long a late target really took.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    pub target: usize,
    /// When the kernel had the request, on CLOCK_REALTIME.
    pub received_ns: i64,
    pub took_ns: i64,
}

/// What the server does with its targets.
#[derive(Copy, Clone, Debug)]
pub struct Plan {
    pub targets: usize,
    pub script: Script,
    pub delays: Delays,
}

/// Counters by target, shared with the thread.
pub struct Counts {
    pub requests: Vec<AtomicU64>,
    pub failed: Vec<AtomicU64>,
    /// Connections, for probes that ask for nothing.
    pub accepted: AtomicU64,
    /// Nothing fails by script while this is set.
    pub healed: AtomicBool,
    waits: Mutex<Vec<Wait>>,
    stop: AtomicBool,
}

pub struct Server {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Serves `/t/0` to `/t/<targets - 1>` on `listener`, on `cpu` if given.
    pub fn start(listener: TcpListener, plan: Plan, cpu: Option<usize>) -> Result<Server> {
        let zeros = || (0..plan.targets).map(|_| AtomicU64::new(0)).collect();
        let counts = Arc::new(Counts {
            requests: zeros(),
            failed: zeros(),
            accepted: AtomicU64::new(0),
            healed: AtomicBool::new(false),
            waits: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        });
        rustix::net::listen(&listener, BACKLOG).context("listen")?;
        listener.set_nonblocking(true).context("O_NONBLOCK")?;
        // Connections inherit it. While one socket has it, others that come and go switch nothing.
        setsockopt(&listener, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        let shared = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            if let Some(cpu) = cpu {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only).with_context(|| format!("pinning to CPU {cpu}"))?;
            }
            Loop::new(listener, shared, plan)?.run()
        });
        Ok(Server { counts, thread: Some(thread) })
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Ends the thread and gives its error, if it had one.
    pub fn stop(mut self) -> Result<()> {
        self.counts.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the server was stopped twice")?;
        thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    }
}

struct Loop {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    /// Answers that are due later: when, and on which connection.
    late: BinaryHeap<Reverse<(i64, usize)>>,
    control: Vec<u8>,
    counts: Arc<Counts>,
    plan: Plan,
}

/// A connection that could not be finished at once.
struct Connection {
    socket: OwnedFd,
    request: Vec<u8>,
    late: Option<Late>,
}

struct Late {
    target: usize,
    received_ns: i64,
    answer: &'static [u8],
}

/// What one read brought.
enum Read {
    /// So many bytes, and when the kernel had them.
    Bytes(usize, Option<i64>),
    NotYet,
    Over,
}

impl Loop {
    fn new(listener: TcpListener, counts: Arc<Counts>, plan: Plan) -> Result<Loop> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("epoll_create")?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).context("epoll_ctl")?;
        let (connections, late) = (Vec::new(), BinaryHeap::new());
        let control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        Ok(Loop { epoll, listener, connections, late, control, counts, plan })
    }

    fn run(mut self) -> Result<()> {
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
            self.answer_late();
        }
        Ok(())
    }

    fn next_look(&self) -> Timespec {
        let until_ns =
            self.late.peek().map_or(LOOK_EVERY_NS, |Reverse((due_ns, _))| due_ns - clock::wall_ns());
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
            self.serve(Connection { socket, request: Vec::new(), late: None }, Registered::No)?;
        }
        Ok(())
    }

    /// A connection that was registered can be read again.
    fn more(&mut self, key: usize) -> Result<()> {
        match self.connections.get_mut(key).and_then(Option::take) {
            Some(connection) => self.serve(connection, Registered::Yes),
            None => Ok(()),
        }
    }

    /// Reads what there is and answers a whole request; a finished or broken connection is closed.
    fn serve(&mut self, mut connection: Connection, registered: Registered) -> Result<()> {
        let mut chunk = [0; REQUEST_MAX_BYTES];
        let (count, received_ns) = match self.read(&connection.socket, &mut chunk) {
            Read::Bytes(count, received_ns) => (count, received_ns),
            Read::NotYet => return self.wait_for(connection, registered),
            Read::Over => return Ok(()),
        };
        let whole = if connection.request.is_empty() && chunk[..count].ends_with(b"\r\n\r\n") {
            &chunk[..count]
        } else {
            connection.request.extend_from_slice(&chunk[..count]);
            if !connection.request.windows(4).any(|four| four == b"\r\n\r\n") {
                let is_too_long = connection.request.len() > REQUEST_MAX_BYTES;
                return if is_too_long { Ok(()) } else { self.wait_for(connection, registered) };
            }
            &connection.request
        };
        let (target, answer) = self.counts.answer(self.plan.script, whole);
        let delay = target.and_then(|target| Some((target, self.plan.delays.of(target)?)));
        let Some((target, delay)) = delay else {
            reply(&connection.socket, answer);
            return Ok(());
        };
        let received_ns = received_ns.unwrap_or_else(clock::wall_ns);
        connection.late = Some(Late { target, received_ns, answer });
        let key = self.keep(connection);
        self.late.push(Reverse((received_ns + delay.as_nanos() as i64, key)));
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

    /// One shot: while an answer is due nothing is told of its connection.
    fn wait_for(&mut self, connection: Connection, registered: Registered) -> Result<()> {
        let key = self.keep(connection);
        let Some(Some(kept)) = self.connections.get(key) else { return Ok(()) };
        let (data, flags) = (EventData::new_u64(key as u64), EventFlags::IN | EventFlags::ONESHOT);
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

    fn answer_late(&mut self) {
        let now_ns = clock::wall_ns();
        while self.late.peek().is_some_and(|Reverse((due_ns, _))| *due_ns <= now_ns) {
            let Some(Reverse((_, key))) = self.late.pop() else { return };
            let Some(connection) = self.connections[key].take() else { continue };
            let Some(Late { target, received_ns, answer }) = connection.late else { continue };
            let took_ns = clock::wall_ns() - received_ns;
            reply(&connection.socket, answer);
            self.counts.waited(Wait { target, received_ns, took_ns });
        }
    }
}

/// Whether the epoll knows the connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Registered {
    No,
    Yes,
}

fn reply(socket: &OwnedFd, answer: &[u8]) {
    // A prober that has given up meanwhile has counted it as its own failure.
    let _ = send(socket, answer, SendFlags::NOSIGNAL);
}

impl Counts {
    fn answer(&self, script: Script, request: &[u8]) -> (Option<usize>, &'static [u8]) {
        let Some(target) = target_of(request).filter(|target| *target < self.requests.len()) else {
            return (None, FAILED);
        };
        let number = self.requests[target].fetch_add(1, Ordering::Relaxed);
        if script.fails(target, number) && !self.healed.load(Ordering::Relaxed) {
            self.failed[target].fetch_add(1, Ordering::Relaxed);
            return (Some(target), FAILED);
        }
        (Some(target), OK)
    }

    fn waited(&self, wait: Wait) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.len() < WAITS_MAX {
            waits.push(wait);
        }
    }

    /// Takes what late targets have really taken since the last call.
    pub fn take_waits(&self) -> Vec<Wait> {
        std::mem::take(&mut *self.waits.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The number in `GET /t/<number> HTTP/1.1`.
fn target_of(request: &[u8]) -> Option<usize> {
    let rest = request.strip_prefix(b"GET /t/")?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn one_target_in_a_hundred_fails_in_its_windows() {
        let script = Script { every: 100, cycle: 40, window_first: 20, window_length: 3 };
        let concerned: Vec<usize> = (0..300).filter(|target| script.concerns(*target)).collect();
        assert_eq!(concerned, [50, 150, 250]);
        let failing: Vec<u64> = (0..80).filter(|request| script.fails(50, *request)).collect();
        assert_eq!(failing, [20, 21, 22, 60, 61, 62]);
        assert!(!(0..80).any(|request| script.fails(51, request)));
    }

    #[test]
    fn the_target_is_the_number_in_the_path() {
        assert_eq!(target_of(b"GET /t/17 HTTP/1.1\r\n\r\n"), Some(17));
        assert_eq!(target_of(b"GET /t/x HTTP/1.1\r\n\r\n"), None);
        assert_eq!(target_of(b"GET / HTTP/1.1\r\n\r\n"), None);
    }

    #[test]
    fn requests_are_counted_and_fail_by_script() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { every: 2, cycle: 3, window_first: 1, window_length: 1 };
        let server =
            Server::start(listener, Plan { targets: 2, script, delays: Delays::NONE }, None).unwrap();
        let get = |target: usize| {
            let mut client = TcpStream::connect(address).unwrap();
            write!(client, "GET /t/{target} HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer.split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!([get(1), get(1), get(1), get(1), get(1)], ["200", "503", "200", "200", "503"]);
        assert_eq!(get(0), "200");
        server.counts().healed.store(true, Ordering::Relaxed);
        assert_eq!([get(1), get(1), get(1)], ["200", "200", "200"]);
        let read =
            |counters: &[AtomicU64]| counters.iter().map(|c| c.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(read(&server.counts().requests), [1, 8]);
        assert_eq!(read(&server.counts().failed), [0, 2]);
        server.stop().unwrap();
    }

    #[test]
    fn late_targets_answer_after_their_time_and_say_how_long_it_was() {
        const LENGTH: Duration = Duration::from_millis(30);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { every: 100, cycle: 40, window_first: 20, window_length: 3 };
        let delays = Delays { every: 20, lengths: &[LENGTH] };
        let server = Server::start(listener, Plan { targets: 20, script, delays }, None).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        // In two parts, so that the connection is registered and found again.
        client.write_all(b"GET /t/2 HTTP/1.1\r\n").unwrap();
        client.write_all(b"\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let counts = Arc::clone(&server.counts);
        server.stop().unwrap();
        let waits = counts.take_waits();
        assert_eq!((waits.len(), waits[0].target), (1, 2));
        assert!(waits[0].took_ns >= LENGTH.as_nanos() as i64, "{waits:?}");
        assert_eq!(counts.accepted.load(Ordering::Relaxed), 1);
    }
}
