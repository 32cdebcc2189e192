//! Engines armed, waited for and stopped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use probe_core::engine::{Clocks, Engine, EngineError};
use probe_core::model::id::{ContainerIx, InstanceId, PodUid, ProbeKey};
use probe_core::model::limits::{BENCH_ARM_WAIT, ENGINE_SLOTS_DEFAULT, PROBE_ATTEMPTS};
use probe_core::model::probe::{Arm, ProbeCmd, ProbeEvent, ProbeKind};
use probe_core::model::time::Mono;
use probe_core::ring::{RingKind, RingOptions};
use probe_core::sys::clock;

use super::collect::Collected;
use super::interrupt;
use super::plan::{Load, Plan};
use super::progress::Point;
use super::report::Report;
use super::server::Server;
use crate::rings::Rings;

/// Between arming and the first due run: so much, and so much more for each target.
const LEAD: Duration = Duration::from_millis(100);
const LEAD_PER_TARGET: Duration = Duration::from_micros(10);
/// An engine that takes no more commands is asked again after this.
const ARM_AGAIN: Duration = Duration::from_millis(1);
/// Commands that are handed to an engine at once.
const ARM_BATCH: usize = 1_024;
/// After the last run was due the outcomes of those in flight are awaited for their timeout, in all attempts, and this.
const OUTCOME_GRACE: Duration = Duration::from_secs(1);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// After Ctrl-C runs count for so long, so that every engine knows of the new end before a run comes that it excludes.
const CUT_LEAD: Duration = Duration::from_millis(1);

/// What the waiting thread is woken for. Each comes once at most.
enum Wake {
    AllDone,
    Interrupted,
}
/// Wakes that wait: one of each.
const WAKES: usize = 2;

/// Ctrl-C came too early for any result.
#[derive(Debug, thiserror::Error)]
#[error("interrupted before a run was due: nothing was measured")]
pub struct Interrupted;

/// What engines and the waiting thread share.
struct Shared {
    /// One for each engine, so that none waits for another.
    collected: Vec<Mutex<Collected>>,
    /// Runs that count and have not ended.
    left: AtomicU64,
    wake: Sender<Wake>,
    /// Runs that are due before this moment of the clock count.
    end_ns: AtomicU64,
    is_interrupted: AtomicBool,
}

/// Runs the plan. `show` is called every second with the point before, this one, and everything since the start. Ctrl-C
/// makes the plan shorter: what was due until then is the result.
///
/// # Errors
/// The kernel refuses a ring, or a thread; or Ctrl-C comes before anything was due ([`Interrupted`]).
pub fn run(
    mut plan: Plan,
    server: Option<&Server>,
    mut show: impl FnMut(Point, Point, &Collected),
) -> anyhow::Result<Report> {
    let load = plan.load;
    let start = clock::mono().after(LEAD + LEAD_PER_TARGET * load.targets);
    let end = start.after(load.duration);
    let (wake, woken) = bounded(WAKES);
    let shared = Arc::new(Shared {
        collected: (0..plan.shards).map(|_| Mutex::new(Collected::new())).collect(),
        left: AtomicU64::new(load.due_runs()),
        wake,
        end_ns: AtomicU64::new(end.as_ns()),
        is_interrupted: AtomicBool::new(false),
    });
    let listener = Arc::clone(&shared);
    interrupt::listen(move || listener.interrupt()).context("listen for SIGINT")?;
    let mut rings = Rings::new(plan.engine, |text: &str| eprintln!("warning: {text}"));
    let engines = (0..plan.shards)
        .map(|shard| rings.with(|ring| start_engine(shard, ring, Arc::clone(&shared))))
        .collect::<anyhow::Result<Vec<Engine>>>()?;
    arm(&plan, &engines, start)?;

    wait(&woken, start, &shared);
    // A busy machine may let Ctrl-C overtake the start: then something was due.
    if shared.is_interrupted() && clock::mono() < start {
        return Err(Interrupted.into());
    }
    let cpu = || (clock::process_cpu(), server.map(Server::cpu));
    let (cpu_before, server_before) = cpu();
    watch(&woken, start, end, &shared, &mut show);
    let (cpu_after, server_after) = cpu();
    let cpu_runs = total(&shared).done();
    let cut = await_outcomes(&woken, (start, end), &plan, &shared);
    // Ctrl-C while the engines stop takes nothing away.
    let is_interrupted = cut.is_some();
    plan.load = cut.unwrap_or(load);
    for engine in engines {
        engine.stop()?;
    }
    let server_cpu = server_before.zip(server_after).map(|(before, after)| after.saturating_sub(before));
    let cpu = cpu_after.saturating_sub(cpu_before).saturating_sub(server_cpu.unwrap_or_default());
    let collected = total(&shared);
    let took = collected.last_submitted.since(start).max(plan.load.duration);
    Ok(Report { plan, is_interrupted, engine: rings.name(), collected, took, cpu, server_cpu, cpu_runs })
}

/// Runs that were due in time may end later; the load goes on meanwhile, as it was. Returns the shorter load that Ctrl-C
/// has left; None: it did not come in time, and the result is complete.
fn await_outcomes(
    woken: &Receiver<Wake>,
    (start, end): (Mono, Mono),
    plan: &Plan,
    shared: &Shared,
) -> Option<Load> {
    if !shared.is_interrupted() {
        wait(woken, end.after(plan.timeout * PROBE_ATTEMPTS + OUTCOME_GRACE), shared);
    }
    if !shared.is_interrupted() {
        return None;
    }
    let cut = shared.cut(plan.load, start, end);
    wait(woken, clock::mono().after(OUTCOME_GRACE), shared);
    Some(cut)
}

/// Waits until `until`, until every run that counts has ended, or for Ctrl-C.
fn wait(woken: &Receiver<Wake>, until: Mono, shared: &Shared) {
    while shared.left.load(Ordering::Acquire) > 0 {
        match woken.recv_timeout(until.since(clock::mono())) {
            Ok(Wake::AllDone) => {}
            Ok(Wake::Interrupted) | Err(_) => return,
        }
    }
}

/// Waits until the last run was due or Ctrl-C comes, showing what has come every second.
fn watch(
    woken: &Receiver<Wake>,
    start: Mono,
    end: Mono,
    shared: &Shared,
    show: &mut impl FnMut(Point, Point, &Collected),
) {
    let mut before = Point::default();
    loop {
        let now = clock::mono();
        // Its wake may have been taken before the start.
        if now >= end || shared.is_interrupted() {
            return;
        }
        let next = start.after(before.at + PROGRESS_EVERY).min(end);
        match woken.recv_timeout(next.since(now)) {
            // Everything that was due has ended; the time goes on to its end, so that rates are per second of it.
            Ok(Wake::AllDone) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Interrupted) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let collected = total(shared);
        let now = Point { at: clock::mono().since(start), done: collected.done() };
        show(before, now, &collected);
        before = now;
    }
}

fn total(shared: &Shared) -> Collected {
    let mut total = Collected::new();
    for collected in &shared.collected {
        total.add(&collected.lock().unwrap_or_else(PoisonError::into_inner));
    }
    total
}

fn start_engine(shard: u16, ring: RingKind, shared: Arc<Shared>) -> Result<Engine, EngineError> {
    let options = RingOptions::best(ring, ENGINE_SLOTS_DEFAULT);
    let clocks = Clocks { now: clock::now, boot_ns: clock::boot_ns };
    let deliver = move |events: &mut Vec<ProbeEvent>| shared.take(usize::from(shard), events);
    Engine::start(&format!("bench-{shard}"), options, clocks, deliver)
}

impl Shared {
    /// Called on the engine's thread with what one turn brought.
    fn take(&self, shard: usize, events: &mut Vec<ProbeEvent>) {
        let mut counted = 0;
        let end = Mono::from_ns(self.end_ns.load(Ordering::Acquire));
        let mut collected = self.collected[shard].lock().unwrap_or_else(PoisonError::into_inner);
        for event in events.drain(..) {
            // Nothing but outcomes comes: targets are addresses, and nothing is asked for once.
            if let ProbeEvent::Outcome(outcome) = event
                && collected.note(&outcome.result, end)
            {
                counted += 1;
            }
        }
        drop(collected);
        if counted > 0 && self.left.fetch_sub(counted, Ordering::AcqRel) == counted {
            let _ = self.wake.try_send(Wake::AllDone);
        }
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Acquire)
    }

    /// Called on the thread that listens for signals.
    fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Release);
        let _ = self.wake.try_send(Wake::Interrupted);
    }

    /// The load up to now; what is due later counts no more.
    fn cut(&self, load: Load, start: Mono, end: Mono) -> Load {
        let end = clock::mono().after(CUT_LEAD).min(end);
        self.end_ns.store(end.as_ns(), Ordering::Release);
        let cut = Load { duration: end.since(start), ..load };
        self.left.fetch_sub(load.due_runs() - cut.due_runs(), Ordering::AcqRel);
        cut
    }
}

fn arm(plan: &Plan, engines: &[Engine], start: Mono) -> anyhow::Result<()> {
    let inboxes: Vec<_> = engines.iter().map(Engine::inbox).collect();
    for (shard, inbox) in (0..).zip(&inboxes) {
        let mine: Vec<u32> = (shard..plan.load.targets).step_by(inboxes.len()).collect();
        for batch in mine.chunks(ARM_BATCH) {
            let mut commands: Vec<ProbeCmd> =
                batch.iter().map(|target| arm_of(plan, *target, start)).collect();
            let give_up = clock::mono().after(BENCH_ARM_WAIT);
            inbox.send(&mut commands);
            while !commands.is_empty() {
                if clock::mono() >= give_up {
                    anyhow::bail!(
                        "the engine took none of the probes for {BENCH_ARM_WAIT:?}: see its message above"
                    );
                }
                thread::park_timeout(ARM_AGAIN);
                inbox.send(&mut commands);
            }
        }
    }
    Ok(())
}

fn arm_of(plan: &Plan, target: u32, start: Mono) -> ProbeCmd {
    ProbeCmd::Arm(Box::new(Arm {
        probe: ProbeKey { executor: 0, index: target },
        kind: ProbeKind::Liveness,
        generation: 1,
        instance: InstanceId { pod: PodUid(0), container: ContainerIx(0), restart_count: 0 },
        target: Arc::clone(&plan.target),
        first_due: start.after(plan.load.first_due(target)),
        period: plan.load.period,
        timeout: plan.timeout,
        // Every run is told of by itself, with its phases.
        report_successes: u32::MAX,
    }))
}

#[cfg(test)]
mod tests {
    use probe_core::model::probe::Target;

    use super::*;
    use crate::cli::args::EngineKind;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A load of one run that has ended already.
    fn ended() -> (Plan, Shared, Receiver<Wake>) {
        let load = Load { targets: 1, period: HOUR, duration: HOUR };
        let (target, engine) = (Arc::new(Target::Exec), EngineKind::Auto);
        let plan =
            Plan { name: String::new(), is_built_in: false, target, load, timeout: HOUR, engine, shards: 1 };
        let (wake, woken) = bounded(WAKES);
        let shared = Shared {
            collected: vec![Mutex::new(Collected::new())],
            left: AtomicU64::new(0),
            wake,
            end_ns: AtomicU64::new(u64::MAX),
            is_interrupted: AtomicBool::new(false),
        };
        (plan, shared, woken)
    }

    #[test]
    fn only_ctrl_c_that_came_in_time_makes_a_result_shorter() {
        let now = clock::mono();
        let (plan, shared, woken) = ended();
        assert_eq!(await_outcomes(&woken, (now, now), &plan, &shared), None, "nobody has pressed it");
        let (plan, shared, woken) = ended();
        shared.interrupt();
        let cut = await_outcomes(&woken, (now, now.after(HOUR)), &plan, &shared).expect("it came in time");
        assert!(cut.duration < HOUR, "{cut:?}");
        assert_eq!(shared.end_ns.load(Ordering::Acquire), now.after(cut.duration).as_ns());
    }

    #[test]
    fn ctrl_c_before_the_time_is_watched_ends_it() {
        let now = clock::mono();
        let (_, shared, woken) = ended();
        shared.interrupt();
        // Its wake was taken before.
        assert!(woken.try_recv().is_ok());
        watch(&woken, now, now.after(HOUR), &shared, &mut |_, _, _| panic!("no second has passed"));
    }
}
