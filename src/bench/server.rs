//! The built-in server: one thread on the loopback, one answer to everything that ends like a request head.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use probe_core::model::limits::BENCH_SERVER_CONNECTIONS_MAX;
use probe_core::sys::clock;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::thread::{CpuSet, sched_setaffinity};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
/// Connections that wait to be accepted; the kernel has a limit of its own (net.core.somaxconn).
const BACKLOG: i32 = 4_096;
/// A longer request is answered early.
const REQUEST_MAX_BYTES: usize = 2 * 1024;
const EVENTS_PER_TURN: usize = 256;
/// How often the thread looks whether it shall end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Key of the listener; connections count from 0.
const LISTENER: u64 = u64::MAX;

/// A server that serves until it is stopped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    cpu_ns: AtomicU64,
}

impl Server {
    /// Serves a free port of 127.0.0.1, on `cpu` if given.
    ///
    /// # Errors
    /// No port, no thread.
    pub fn start(cpu: Option<usize>) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let body = move || {
            if let Some(cpu) = cpu {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only)?;
            }
            Loop::new(listener)?.run(&of_thread)
        };
        let thread = std::thread::Builder::new().name("bench-server".to_owned()).spawn(body)?;
        Ok(Server { address, shared, thread })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// CPU time of the thread, as it was at most a tenth of a second ago.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.shared.cpu_ns.load(Ordering::Relaxed))
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the built-in server panicked"))?
    }
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
}

struct Loop {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: HashMap<u64, Connection>,
    next_key: u64,
}

impl Loop {
    fn new(listener: TcpListener) -> io::Result<Loop> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Loop { epoll, listener, connections: HashMap::new(), next_key: 0 })
    }

    fn run(mut self, shared: &Shared) -> io::Result<()> {
        let mut buffer = [MaybeUninit::<Event>::uninit(); EVENTS_PER_TURN];
        while !shared.stop.load(Ordering::Relaxed) {
            let events = match epoll::wait(self.epoll.as_fd(), &mut buffer, Some(&LOOK_EVERY)) {
                Ok((events, _)) => events,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events.iter() {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    key => self.serve(key),
                }
            }
            let cpu_ns = u64::try_from(clock::thread_cpu().as_nanos()).unwrap_or(u64::MAX);
            shared.cpu_ns.store(cpu_ns, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes what waits. Beyond the limit the rest stays in the kernel's queue until a connection ends.
    fn accept(&mut self) -> io::Result<()> {
        while self.connections.len() < BENCH_SERVER_CONNECTIONS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    // It was reset before it was accepted.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    // No descriptor is left: the rest waits in the kernel's queue until a connection ends.
                    _ if error.raw_os_error() == Some(libc::EMFILE) => return Ok(()),
                    _ => return Err(error),
                },
            };
            stream.set_nonblocking(true)?;
            let key = self.next_key;
            self.next_key += 1;
            epoll::add(&self.epoll, &stream, EventData::new_u64(key), EventFlags::IN)?;
            self.connections.insert(key, Connection { stream, request: Vec::new() });
            // The request is mostly there already.
            self.serve(key);
        }
        Ok(())
    }

    /// Answers when the head is whole. Dropping the connection closes it and takes it out of the epoll.
    fn serve(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let mut piece = [0; REQUEST_MAX_BYTES];
        match connection.stream.read(&mut piece) {
            Ok(count @ 1..) => connection.request.extend_from_slice(&piece[..count]),
            Ok(0) => {
                self.connections.remove(&key);
                return;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => {
                self.connections.remove(&key);
                return;
            }
        }
        let request = &connection.request;
        if request.ends_with(b"\r\n\r\n") || request.len() >= REQUEST_MAX_BYTES {
            // A client that has gone has no use for it.
            let _ = connection.stream.write_all(ANSWER);
            self.connections.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_whole_heads_and_ends() {
        let server = Server::start(None).unwrap();
        for pieces in [&["GET / HTTP/1.1\r\n\r\n"][..], &["GET / HTTP/1.1\r\nA: b\r\n", "\r\n"]] {
            let mut client = TcpStream::connect(server.address()).unwrap();
            client.set_nodelay(true).unwrap();
            for piece in pieces {
                client.write_all(piece.as_bytes()).unwrap();
            }
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, ANSWER);
        }
        drop(TcpStream::connect(server.address()).unwrap());
        server.stop().unwrap();
    }
}
