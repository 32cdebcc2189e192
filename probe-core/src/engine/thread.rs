//! The thread around a shard: its inbox, its loop, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::{Counters, Shard, Stats};
use crate::model::limits::{
    ENGINE_INPUTS_PER_TURN_MAX, SCRAPE_PARTS_MAX, SCRAPES_MAX, SHARD_QUEUE_MAX, TALLIES_PER_TURN_MAX,
    UNWATCHED_MIN,
};
use crate::model::probe::{ProbeCmd, ProbeEvent};
use crate::model::tally::{Tallied, TallyCursor};
use crate::model::time::{Mono, Now};
use crate::ring::{Driver, Epoll, RingError, RingOptions, Uring, Waker};

/// How often a busy shard publishes its counters.
const STATS_EVERY: Duration = Duration::from_secs(1);
/// Missed time in a second that is worth a line in the log.
const MISSED_TOLD: Duration = Duration::from_millis(100);
/// When the receiver of events takes no more, it is asked again after this.
const DELIVER_AGAIN: Duration = Duration::from_millis(1);
/// An engine that has nothing else to do tells the next part of its tallies after this.
const TELL_AGAIN: Duration = Duration::from_millis(1);

/// An engine shard on its own thread.
pub struct Engine {
    inbox: Inbox,
    tallies: Tallies,
    stop: Arc<AtomicBool>,
    stats: Arc<Mutex<Stats>>,
    thread: JoinHandle<Result<(), RingError>>,
}

/// How a shard reads the time (`sys::clock`).
#[derive(Copy, Clone, Debug)]
pub struct Clocks {
    pub now: fn() -> Now,
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: fn() -> u64,
}

/// Where a shard gets its commands from. Clones feed the same shard.
#[derive(Clone, Debug)]
pub struct Inbox {
    sender: Sender<ProbeCmd>,
    waker: Waker,
}

/// A way to ask an engine what the runs of its probes came to. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Tallies {
    requests: Sender<Sender<Vec<Tallied>>>,
    waker: Waker,
}

/// An engine that could not be started, or that ended early.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(
        "cannot start the thread {name}: {source}; raise the limit of processes (RLIMIT_NPROC, pids.max)"
    )]
    Thread { name: String, source: std::io::Error },
    #[error("the engine thread panicked; see its message above")]
    Panicked,
}

/// What the loop of [`run`] works on besides the shard.
struct Loop<D> {
    commands: Receiver<ProbeCmd>,
    scrapes: Scrapes,
    clocks: Clocks,
    deliver: D,
    stop: Arc<AtomicBool>,
    stats: Arc<Mutex<Stats>>,
}

impl Engine {
    /// Starts a thread `name` with a ring of its own. `deliver` takes events out of the vector it is given;
    /// what it leaves is offered again, and while too much is left the shard does not turn. `clocks`
    /// read the time.
    ///
    /// # Errors
    /// The ring is refused, with the cure, or the thread.
    pub fn start(
        name: &str,
        options: RingOptions,
        clocks: Clocks,
        deliver: impl FnMut(&mut Vec<ProbeEvent>) + Send + 'static,
    ) -> Result<Engine, EngineError> {
        let now = clocks.now;
        match options {
            RingOptions::Uring(options) => {
                Engine::start_on(name, move || Uring::new(options, now), clocks, deliver)
            }
            RingOptions::Epoll { slots } => {
                Engine::start_on(name, move || Epoll::new(slots, now), clocks, deliver)
            }
        }
    }

    /// A ring belongs to the thread that makes it.
    fn start_on<R: Driver>(
        name: &str,
        make: impl FnOnce() -> Result<R, RingError> + Send + 'static,
        clocks: Clocks,
        deliver: impl FnMut(&mut Vec<ProbeEvent>) + Send + 'static,
    ) -> Result<Engine, EngineError> {
        let (sender, commands) = bounded(SHARD_QUEUE_MAX);
        let (requests, asked) = bounded(SCRAPES_MAX);
        let (started, start) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let loop_stop = stop.clone();
        let body = move || {
            let shard = match make() {
                Ok(ring) => Shard::new(ring),
                Err(error) => {
                    let _ = started.send(Err(error));
                    return Ok(());
                }
            };
            let stats = Arc::new(Mutex::new(shard.stats()));
            let _ = started.send(Ok((shard.ring().waker(), stats.clone())));
            let scrapes = Scrapes { asked, current: None };
            run(shard, Loop { commands, scrapes, clocks, deliver, stop: loop_stop, stats })
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|source| EngineError::Thread { name: name.to_owned(), source })?;
        let (waker, stats) = start.recv().map_err(|_| EngineError::Panicked)??;
        let tallies = Tallies { requests, waker: waker.clone() };
        Ok(Engine { inbox: Inbox { sender, waker }, tallies, stop, stats, thread })
    }

    /// A way to send it commands; may be cloned and sent to other threads.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// A way to ask it what the runs of its probes came to; may be cloned and sent to other threads.
    pub fn tallies(&self) -> Tallies {
        self.tallies.clone()
    }

    /// The counters as they were at most a second ago.
    pub fn stats(&self) -> Stats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cancels everything, waits until nothing is in flight and ends the thread. Returns the final counters.
    ///
    /// # Errors
    /// The ring broke before.
    pub fn stop(self) -> Result<Stats, EngineError> {
        self.stop.store(true, Ordering::Release);
        self.inbox.waker.wake();
        self.thread.join().map_err(|_| EngineError::Panicked)??;
        Ok(self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Inbox {
    /// Hands over as many commands as there is room for, in order, and wakes the shard. What is left in
    /// `commands` afterwards is to be offered again.
    pub fn send(&self, commands: &mut Vec<ProbeCmd>) {
        let mut left = Vec::new();
        for command in commands.drain(..) {
            if !left.is_empty() {
                left.push(command);
                continue;
            }
            if let Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) =
                self.sender.try_send(command)
            {
                left.push(command);
            }
        }
        *commands = left;
        self.waker.wake();
    }
}

impl Tallies {
    /// Every probe of the engine, in parts, which come as the engine turns; the channel ends after the last one. None
    /// while as many ask as may.
    pub fn ask(&self) -> Option<Receiver<Vec<Tallied>>> {
        let (parts, told) = bounded(SCRAPE_PARTS_MAX);
        self.requests.try_send(parts).ok()?;
        self.waker.wake();
        Some(told)
    }
}

/// Requests for tallies, one after the other and a part each turn: probes do not wait for them.
struct Scrapes {
    asked: Receiver<Sender<Vec<Tallied>>>,
    current: Option<Scrape>,
}

struct Scrape {
    parts: Sender<Vec<Tallied>>,
    /// Where the next part begins; None behind the last one.
    from: Option<TallyCursor>,
    /// A part for which there was no room yet.
    untold: Option<Vec<Tallied>>,
}

impl Scrapes {
    /// Tells a part. False when there is no more to tell.
    fn tell<R: Driver>(&mut self, shard: &Shard<R>) -> bool {
        let Some(mut scrape) = self.current.take().or_else(|| self.first()) else { return false };
        let part = scrape.untold.take().unwrap_or_else(|| scrape.next_part(shard));
        // A channel whose reader has gone away may still call itself full: only sending tells.
        let is_over = match scrape.parts.try_send(part) {
            Ok(()) => scrape.from.is_none(),
            Err(TrySendError::Full(part)) => {
                scrape.untold = Some(part);
                false
            }
            Err(TrySendError::Disconnected(_)) => true,
        };
        if is_over {
            return !self.asked.is_empty();
        }
        self.current = Some(scrape);
        true
    }

    fn first(&self) -> Option<Scrape> {
        let parts = self.asked.try_recv().ok()?;
        Some(Scrape { parts, from: Some(TallyCursor::default()), untold: None })
    }
}

impl Scrape {
    fn next_part<R: Driver>(&mut self, shard: &Shard<R>) -> Vec<Tallied> {
        let mut part = Vec::with_capacity(TALLIES_PER_TURN_MAX);
        self.from = self.from.and_then(|from| shard.tallies(from, TALLIES_PER_TURN_MAX, &mut part));
        part
    }
}

/// Turns the shard until it is stopped and nothing is in flight.
fn run<R, D>(mut shard: Shard<R>, mut work: Loop<D>) -> Result<(), RingError>
where
    R: Driver,
    D: FnMut(&mut Vec<ProbeEvent>),
{
    let waker = shard.ring().waker();
    // A turn ends as many runs as there are slots.
    let (mut inputs, mut out) = (Vec::new(), Vec::with_capacity(shard.ring().capacity() as usize));
    let (mut published_at, mut published_runs) = (Mono::ZERO, 0);
    let mut missed = Missed::default();
    let mut suspension = Suspension::new((work.clocks.boot_ns)(), (work.clocks.now)().mono);
    let mut is_stopping = false;
    loop {
        let now = (work.clocks.now)();
        if let Some(by) = suspension.look((work.clocks.boot_ns)(), now.mono) {
            shard.was_suspended(by);
        }
        let mut wake = Mono::MAX;
        if out.len() < SHARD_QUEUE_MAX {
            inputs.extend(work.commands.try_iter().take(ENGINE_INPUTS_PER_TURN_MAX));
            if !is_stopping && work.stop.load(Ordering::Acquire) {
                is_stopping = true;
                shard.stop(now, &mut out);
            }
            wake = shard.turn(now, &mut inputs, &mut out);
        }
        if work.scrapes.tell(&shard) {
            wake = wake.min(now.mono.after(TELL_AGAIN));
        }
        if !out.is_empty() {
            (work.deliver)(&mut out);
        }
        if !out.is_empty() {
            wake = wake.min(now.mono.after(DELIVER_AGAIN));
        }
        if is_stopping && shard.is_idle() {
            shard.tell(&mut work.stats.lock().unwrap_or_else(PoisonError::into_inner));
            return Ok(());
        }
        if shard.runs() != published_runs {
            if now.mono.since(published_at) >= STATS_EVERY {
                published_at = now.mono;
                // Whoever reads them at this moment is not waited for: they are published a second later.
                if let Ok(mut stats) = work.stats.try_lock() {
                    shard.tell(&mut stats);
                    published_runs = shard.runs();
                }
                missed.tell(shard.counters());
            }
            if shard.runs() != published_runs {
                wake = wake.min(published_at.after(STATS_EVERY));
            }
        }
        waker.fall_asleep();
        // While the receiver of events takes none, there is nothing to hurry for.
        let has_more = out.len() < SHARD_QUEUE_MAX
            && (!work.commands.is_empty() || (!is_stopping && work.stop.load(Ordering::Acquire)));
        let at = (work.clocks.now)().mono;
        let (quiet, sleep) =
            if has_more { (Duration::ZERO, Duration::ZERO) } else { naps(&shard, now.mono, wake, at) };
        shard.ring_mut().submit_and_wait(quiet, sleep)?;
        waker.awake();
    }
}

/// How long to sleep whatever completes, and how long at most. A shard turns once in [`Shard::coalesce`]: what
/// completes or falls due meanwhile shares the next turn. One that has slept longer than that anyway is not held back, nor
/// one that a run goes through step by step.
fn naps<R: Driver>(shard: &Shard<R>, turned: Mono, wake: Mono, at: Mono) -> (Duration, Duration) {
    let next = turned.after(shard.coalesce());
    let quiet = if shard.may_gather(at) { next.since(at) } else { Duration::ZERO };
    (quiet, wake.max(next).since(at))
}

/// Says once a second at most that turns were missed, or that this host lacks what a connection needs: nobody else would
/// notice a starved prober.
#[derive(Default)]
struct Missed {
    us: u64,
    inconclusive: u64,
    shortages: u64,
}

impl Missed {
    fn tell(&mut self, counters: &Counters) {
        let (us, inconclusive) = (counters.missed_us - self.us, counters.inconclusive - self.inconclusive);
        if us >= MISSED_TOLD.as_micros() as u64 || inconclusive > 0 {
            tracing::warn!(
                missed_ms = us / 1_000,
                inconclusive,
                "the engine did not run when it should have: give the agent more CPU"
            );
        }
        let shortages = counters.shortages - self.shortages;
        if shortages > 0 {
            tracing::warn!(
                shortages,
                "connections could not be begun: no port, memory or descriptor is left on this host"
            );
        }
        (self.us, self.inconclusive) = (counters.missed_us, counters.inconclusive);
        self.shortages = counters.shortages;
    }
}

/// Sees a suspended machine: CLOCK_BOOTTIME goes on meanwhile, CLOCK_MONOTONIC does not.
struct Suspension {
    slept_ns: u64,
}

impl Suspension {
    fn new(boot_ns: u64, mono: Mono) -> Suspension {
        Suspension { slept_ns: boot_ns.saturating_sub(mono.as_ns()) }
    }

    fn look(&mut self, boot_ns: u64, mono: Mono) -> Option<Duration> {
        let slept_ns = boot_ns.saturating_sub(mono.as_ns());
        let more = Duration::from_nanos(slept_ns.saturating_sub(self.slept_ns));
        if more < UNWATCHED_MIN {
            return None;
        }
        self.slept_ns = slept_ns;
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{ContainerIx, InstanceId, PodUid, ProbeKey};
    use crate::model::probe::{Arm, ProbeKind, Target};
    use crate::model::time::Wall;

    /// More than a channel holds.
    const PARTS: u32 = 2 * SCRAPE_PARTS_MAX as u32;

    fn epoch() -> Now {
        Now { mono: Mono::ZERO, wall: Wall::default() }
    }

    /// A probe in each part.
    fn shard() -> Shard<Epoll> {
        let arm = |part: u32| Arm {
            probe: ProbeKey { executor: 0, index: part * TALLIES_PER_TURN_MAX as u32 },
            kind: ProbeKind::Liveness,
            generation: 1,
            instance: InstanceId { pod: PodUid(part.into()), container: ContainerIx(0), restart_count: 0 },
            target: Arc::new(Target::Exec),
            first_due: Mono::MAX,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            report_successes: 0,
        };
        let mut shard = Shard::new(Epoll::new(8, epoch).unwrap());
        let mut inputs = (0..PARTS).map(|part| ProbeCmd::Arm(Box::new(arm(part)))).collect();
        shard.turn(epoch(), &mut inputs, &mut Vec::new());
        shard
    }

    fn ask(requests: &Sender<Sender<Vec<Tallied>>>) -> Receiver<Vec<Tallied>> {
        let (parts, told) = bounded(SCRAPE_PARTS_MAX);
        requests.send(parts).unwrap();
        told
    }

    /// Tells until the reader has to take something first.
    fn fill(scrapes: &mut Scrapes, shard: &Shard<Epoll>, told: &Receiver<Vec<Tallied>>) {
        for _ in 0..=SCRAPE_PARTS_MAX {
            assert!(scrapes.tell(shard));
        }
        assert!(told.is_full());
    }

    #[test]
    fn a_slow_reader_is_told_every_probe_once() {
        let shard = shard();
        let (requests, asked) = bounded(SCRAPES_MAX);
        let mut scrapes = Scrapes { asked, current: None };
        let told = ask(&requests);
        fill(&mut scrapes, &shard, &told);
        let mut pods = Vec::new();
        while let Ok(part) = told.try_recv() {
            pods.extend(part.iter().map(|probe| probe.pod));
            scrapes.tell(&shard);
        }
        assert_eq!(pods, (0..PARTS).map(|part| PodUid(part.into())).collect::<Vec<_>>());
        assert!(!scrapes.tell(&shard), "there is no more to tell");
    }

    #[test]
    fn a_reader_that_leaves_a_full_channel_makes_way_for_the_next() {
        let shard = shard();
        let (requests, asked) = bounded(SCRAPES_MAX);
        let mut scrapes = Scrapes { asked, current: None };
        let told = ask(&requests);
        fill(&mut scrapes, &shard, &told);
        let next = ask(&requests);
        drop(told);
        assert!(scrapes.tell(&shard), "somebody waits");
        fill(&mut scrapes, &shard, &next);
        drop(next);
        assert!(!scrapes.tell(&shard), "nobody waits");
    }
}
