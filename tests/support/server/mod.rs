//! The probed server: one thread, one epoll, one connection per probe. It counts every request by target
//! and fails by script, so that what a prober reports can be compared with what was served. Some targets answer
//! after a given time; how long they really took is kept, from the kernel's receive time to the write. Any target
//! can fall ill while it runs ([`Ill`]), and get well again.
//!
//! It is cheap, so that one core serves 20,000 connections a second: accept, read, write and close are all there
//! is, when the request comes with the handshake or right behind it.

mod ill;
mod script;
mod serve;

pub use ill::Ill;
pub use script::{Delays, Script, Wait};

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::thread::{CpuSet, sched_setaffinity};

use serve::Loop;

/// Connections that wait to be accepted: more than probes that can be in flight at once.
const BACKLOG: i32 = 4_096;
/// Waits kept: of the longest run there is.
const WAITS_MAX: usize = 200_000;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

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
    /// Requests that met an ill target.
    pub met_ill: Vec<AtomicU64>,
    /// Connections, for probes that ask for nothing.
    pub accepted: AtomicU64,
    /// Nothing fails by script while this is set.
    pub healed: AtomicBool,
    /// [`Ill::code`] of each target.
    ills: Vec<AtomicU8>,
    waits: Mutex<Vec<Wait>>,
    stop: AtomicBool,
}

/// A server at work. Dropped without [`Server::stop`], it ends by itself a moment later.
pub struct Server {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Serves `/t/0` to `/t/<targets - 1>` on `listener`, on `cpu` if given.
    ///
    /// # Errors
    /// The listener does not take an option.
    pub fn start(listener: TcpListener, plan: Plan, cpu: Option<usize>) -> Result<Server> {
        let counts = Arc::new(Counts::new(plan.targets));
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
    ///
    /// # Errors
    /// Whatever the thread has ended with.
    pub fn stop(mut self) -> Result<()> {
        self.counts.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the server was stopped twice")?;
        thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
    }
}

impl Counts {
    fn new(targets: usize) -> Counts {
        let zeros = || (0..targets).map(|_| AtomicU64::new(0)).collect();
        Counts {
            requests: zeros(),
            failed: zeros(),
            met_ill: zeros(),
            accepted: AtomicU64::new(0),
            healed: AtomicBool::new(false),
            ills: (0..targets).map(|_| AtomicU8::new(Ill::code(None))).collect(),
            waits: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        }
    }

    /// Requests of all targets so far.
    pub fn requests(&self) -> u64 {
        self.requests.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// From its next request on the target does this; None: it is well.
    pub fn set_ill(&self, target: usize, ill: Option<Ill>) {
        self.ills[target].store(Ill::code(ill), Ordering::Relaxed);
    }

    /// Takes what late targets have really taken since the last call.
    pub fn take_waits(&self) -> Vec<Wait> {
        std::mem::take(&mut *self.waits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request, and says what it gets.
    fn answer(&self, script: Script, request: &[u8]) -> Answer {
        let Some(target) = target_of(request).filter(|target| *target < self.requests.len()) else {
            return Answer::Unknown;
        };
        let number = self.requests[target].fetch_add(1, Ordering::Relaxed);
        if let Some(ill) = Ill::of_code(self.ills[target].load(Ordering::Relaxed)) {
            self.met_ill[target].fetch_add(1, Ordering::Relaxed);
            return Answer::Ill(ill);
        }
        if script.fails(target, number) && !self.healed.load(Ordering::Relaxed) {
            self.failed[target].fetch_add(1, Ordering::Relaxed);
            return Answer::Of { target, bytes: FAILED };
        }
        Answer::Of { target, bytes: OK }
    }

    fn waited(&self, wait: Wait) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.len() < WAITS_MAX {
            waits.push(wait);
        }
    }
}

/// What a request gets.
enum Answer {
    /// A request for no target.
    Unknown,
    Of {
        target: usize,
        bytes: &'static [u8],
    },
    Ill(Ill),
}

/// The number in `GET /t/<number> HTTP/1.1`.
fn target_of(request: &[u8]) -> Option<usize> {
    let rest = request.strip_prefix(b"GET /t/")?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
