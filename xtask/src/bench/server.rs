//! The probed server: one thread, one epoll, one connection per probe. It counts every request by target
//! and fails by script, so that what defib reports can be compared with what was served.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Connections that wait to be accepted: more than probes that can be in flight at once.
const BACKLOG: i32 = 4_096;
const REQUEST_MAX_BYTES: usize = 2 * 1024;
const EVENTS_PER_TURN: usize = 256;
/// How often the thread looks whether it shall end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Key of the listener; connections count from 0.
const LISTENER: u64 = u64::MAX;

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

/// Counters by target, shared with the thread.
pub struct Counts {
    pub requests: Vec<AtomicU64>,
    pub failed: Vec<AtomicU64>,
    /// From here on nothing fails by script.
    pub healed: AtomicBool,
    stop: AtomicBool,
}

pub struct Server {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Serves `/t/0` to `/t/<targets - 1>` on `listener`, on `cpu` if given.
    pub fn start(
        listener: TcpListener,
        targets: usize,
        script: Script,
        cpu: Option<usize>,
    ) -> Result<Server> {
        let zeros = || (0..targets).map(|_| AtomicU64::new(0)).collect();
        let counts = Arc::new(Counts {
            requests: zeros(),
            failed: zeros(),
            healed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        rustix::net::listen(&listener, BACKLOG).context("listen")?;
        listener.set_nonblocking(true).context("O_NONBLOCK")?;
        let shared = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            if let Some(cpu) = cpu {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only).with_context(|| format!("pinning to CPU {cpu}"))?;
            }
            Loop::new(listener, shared, script)?.run()
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
    connections: HashMap<u64, Connection>,
    next_key: u64,
    counts: Arc<Counts>,
    script: Script,
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
}

impl Loop {
    fn new(listener: TcpListener, counts: Arc<Counts>, script: Script) -> Result<Loop> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("epoll_create")?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).context("epoll_ctl")?;
        Ok(Loop { epoll, listener, connections: HashMap::new(), next_key: 0, counts, script })
    }

    fn run(mut self) -> Result<()> {
        let mut space = [MaybeUninit::<Event>::uninit(); EVENTS_PER_TURN];
        while !self.counts.stop.load(Ordering::Relaxed) {
            let ready = match epoll::wait(&self.epoll, &mut space, Some(&LOOK_EVERY)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.context("epoll_wait")?.0,
            };
            for event in ready.iter() {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    key => self.read(key),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nonblocking(true).context("O_NONBLOCK")?;
            let key = self.next_key;
            self.next_key += 1;
            epoll::add(&self.epoll, stream.as_fd(), EventData::new_u64(key), EventFlags::IN)
                .context("epoll_ctl")?;
            self.connections.insert(key, Connection { stream, request: Vec::new() });
            // The request often came with the handshake.
            self.read(key);
        }
    }

    /// Reads what there is and answers a whole request; a finished or broken connection is closed.
    fn read(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let mut chunk = [0; REQUEST_MAX_BYTES];
        let is_over = match connection.stream.read(&mut chunk) {
            Ok(0) => true,
            Ok(read) => {
                connection.request.extend_from_slice(&chunk[..read]);
                let whole = connection.request.windows(4).any(|four| four == b"\r\n\r\n");
                if whole {
                    let answer = self.counts.answer(self.script, &connection.request);
                    // A prober that has given up meanwhile has counted it as its own failure.
                    let _ = connection.stream.write_all(answer);
                }
                whole || connection.request.len() > REQUEST_MAX_BYTES
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if is_over {
            self.connections.remove(&key);
        }
    }
}

impl Counts {
    fn answer(&self, script: Script, request: &[u8]) -> &'static [u8] {
        let Some(target) = target_of(request).filter(|target| *target < self.requests.len()) else {
            return FAILED;
        };
        let number = self.requests[target].fetch_add(1, Ordering::Relaxed);
        if script.fails(target, number) && !self.healed.load(Ordering::Relaxed) {
            self.failed[target].fetch_add(1, Ordering::Relaxed);
            return FAILED;
        }
        OK
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
        let server = Server::start(listener, 2, script, None).unwrap();
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
}
