//! A shard of the engine: the tickers of many probes and their runs on one ring.

mod begin;
mod calls;
mod lookups;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use calls::{cut, errored};
use lookups::Asks;

use super::io::{Io, TIMERS_PER_SLOT, Timer};
use super::keep::Again;
use super::onces::{Once, Onces};
use super::places::{Holder, Places};
use super::run::{Effects, Pace, Run, Start};
use super::stats::{self, Counters, Stats};
use super::targets::{self, Job, State, Targets};
use crate::model::id::{ProbeKey, Ticket};
use crate::model::limits::{ENGINE_ONCES_MAX, ONCES_ONE_IN, UNWATCHED_MIN};
use crate::model::probe::{Arm, Phases, ProbeCmd, ProbeEvent, RunResult, Target, Verdict};
use crate::model::tally::{Tallied, TallyCursor};
use crate::model::time::{Mono, Now};
use crate::ring::{Completion, Ring, Slot};

/// While operations wait for room in the queue, the next turn comes after this.
const BACKLOG_WAKE: Duration = Duration::from_micros(50);
/// Most that the work for one completion, command or run takes, the kernel's part included. A turn that lasts longer
/// than all of its work was interrupted.
const WORK_MAX: Duration = Duration::from_micros(100);

/// One engine shard as a value: [`Shard::turn`] is all it does. A thread ([`super::Engine`]) or a simulation
/// calls it.
pub struct Shard<R> {
    io: Io<R>,
    targets: Targets,
    onces: Onces,
    places: Places,
    /// The run on each slot.
    runs: Vec<Option<Run>>,
    /// Due, waiting for a slot, in the order in which they came.
    waiting: VecDeque<Job>,
    /// The same for targets with a host name: only a part of the slots may wait for a resolver.
    waiting_names: VecDeque<Job>,
    /// The same for one-shot probes: only a part of the slots may be held by them.
    waiting_onces: VecDeque<Job>,
    /// Slots that hold one of those.
    once_slots: u32,
    /// Which of those that want a name looked up comes next.
    asks_next: Asks,
    fired: Vec<Timer>,
    /// Runs that this turn has begun, in the order in which the kernel gets them.
    started: Vec<Slot>,
    lateness_us: Histogram<u64>,
    /// Slots that hold a run.
    running: u32,
    /// Runs begun, and completions taken behind the first, in this turn.
    handled: u32,
    phase: Phase,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Phase {
    Serving,
    Stopping,
}

impl<R: Ring> Shard<R> {
    /// A shard without probes on `ring`; as many runs are in flight at once as it has slots.
    pub fn new(ring: R) -> Shard<R> {
        let slots = ring.capacity() as usize;
        let fired = Vec::with_capacity(slots * TIMERS_PER_SLOT);
        Shard {
            io: Io::new(ring),
            targets: Targets::default(),
            onces: Onces::default(),
            places: Places::default(),
            runs: std::iter::repeat_with(|| None).take(slots).collect(),
            waiting: VecDeque::new(),
            waiting_names: VecDeque::new(),
            waiting_onces: VecDeque::with_capacity(ENGINE_ONCES_MAX),
            once_slots: 0,
            asks_next: Asks::Hop,
            fired,
            started: Vec::with_capacity(slots),
            lateness_us: stats::lateness_histogram(),
            running: 0,
            handled: 0,
            phase: Phase::Serving,
        }
    }

    /// Takes what the ring has completed, then `inputs`, then the timers that are due at `now`, then starts
    /// what is due. In this order, so that a reply that is there is never a timeout. `inputs` is empty
    /// afterwards; outcomes and questions are appended to `out`. Returns when to call again at the latest.
    pub fn turn(&mut self, now: Now, inputs: &mut Vec<ProbeCmd>, out: &mut Vec<ProbeEvent>) -> Mono {
        let overdue = self.io.watch.begin_turn(now);
        self.miss(overdue);
        self.io.counters.turns += 1;
        let now = now.mono;
        let (began, mut work) = (now, 0);
        while let Some(completion) = self.io.ring.next_completion(now) {
            self.completed(now, completion, out);
            work += 1;
        }
        work += inputs.len() as u32;
        for command in inputs.drain(..) {
            self.command(now, command, out);
        }
        self.expire(now, out);
        self.start_calls(out);
        let now = self.start_waiting(now, out);
        for (slot, error) in self.io.flush() {
            self.with_run(now, slot, out, |run, io, effects| run.no_socket(io, now, error, effects));
        }
        // A thread is mostly interrupted in the middle of what it does.
        work += self.handled;
        self.handled = 0;
        self.miss(now.since(began).saturating_sub(WORK_MAX * work));
        let wake = self.next_wake(now);
        // What gathers meanwhile is not missed.
        self.io.watch.end_turn(now, wake.max(now.after(self.coalesce())));
        wake
    }

    /// The shard should have run for so long, and did not.
    fn miss(&mut self, by: Duration) {
        self.io.watch.missed(by);
        if by < UNWATCHED_MIN {
            return;
        }
        self.io.counters.missed_turns += 1;
        self.io.counters.missed_us += by.as_micros() as u64;
    }

    /// The machine was suspended for so long: CLOCK_MONOTONIC stood still, and peers may have given up.
    pub fn was_suspended(&mut self, by: Duration) {
        self.io.watch.missed(by);
    }

    /// Whether runs are in flight, so that it pays to let their completions gather.
    pub fn is_busy(&self) -> bool {
        self.running > self.io.idle
    }

    /// Whether what completes may gather until the next turn at `now`.
    pub fn may_gather(&self, now: Mono) -> bool {
        self.is_busy() && !self.io.exact.is_asked(now)
    }

    /// How long completions and due probes may gather between two turns.
    pub fn coalesce(&self) -> Duration {
        self.targets.demand().coalesce()
    }

    /// What the runs of its probes came to, for [`super::Tallies`]: see there, and `Targets::tallies`.
    pub fn tallies(&self, from: TallyCursor, count: usize, into: &mut Vec<Tallied>) -> Option<TallyCursor> {
        self.targets.tallies(from, count, into)
    }

    /// Ends everything: probes are forgotten, runs cancelled, one-shot probes answered. Call
    /// [`Shard::turn`] until [`Shard::is_idle`].
    pub fn stop(&mut self, now: Now, out: &mut Vec<ProbeEvent>) {
        self.phase = Phase::Stopping;
        for key in self.targets.keys() {
            self.drop_probe(now.mono, key, out);
        }
        self.stop_onces(now.mono, out);
    }

    /// Nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// What the shard has counted so far. Copies a histogram of some kilobytes.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::new();
        self.tell(&mut stats);
        stats
    }

    /// Writes [`Shard::stats`] over earlier ones, which takes no memory.
    pub fn tell(&self, stats: &mut Stats) {
        stats.counters = Counters {
            enters: self.io.ring.enters(),
            stale_completions: self.io.ring.stale_completions(),
            ..self.io.counters.clone()
        };
        stats.set_lateness(&self.lateness_us);
        stats.armed = self.targets.len();
        stats.in_flight = (self.running - self.io.idle) as usize + self.places.in_flight();
        stats.kept = self.io.kept as usize;
        let for_slots = self.waiting.len() + self.waiting_names.len() + self.waiting_onces.len();
        stats.waiting = for_slots + self.places.waiting();
        stats.timers = self.io.wheel.len();
    }

    /// What was counted so far, without the ring's own figures.
    pub fn counters(&self) -> &Counters {
        &self.io.counters
    }

    /// Runs that have ended with a verdict so far.
    pub fn runs(&self) -> u64 {
        self.io.counters.runs()
    }

    /// The ring, to look at it from tests and for its waker.
    pub fn ring(&self) -> &R {
        &self.io.ring
    }

    /// The ring, for the thread that sleeps in it.
    pub fn ring_mut(&mut self) -> &mut R {
        &mut self.io.ring
    }

    fn next_wake(&self, now: Mono) -> Mono {
        // A run that ended in the middle of the turn may have begun another one.
        let may_resolve = self.io.may_resolve() && !self.waiting_names.is_empty();
        if self.io.may_resolve() && !self.io.unresolved.is_empty() {
            return now;
        }
        let may_start = may_resolve || self.may_start_once() || !self.waiting.is_empty();
        if self.running < self.io.ring.capacity() && may_start {
            return now;
        }
        let by_timer = self.io.wheel.next_wake();
        if self.io.has_backlog() {
            by_timer.min(now.after(BACKLOG_WAKE))
        } else if self.is_busy() {
            by_timer.min(now.after(self.io.watched.look_every()))
        } else {
            by_timer
        }
    }

    fn command(&mut self, now: Mono, command: ProbeCmd, out: &mut Vec<ProbeEvent>) {
        match command {
            ProbeCmd::Once { ticket, .. } if self.phase == Phase::Stopping => {
                out.push(errored(ticket, now, "the probe engine is stopping"));
            }
            ProbeCmd::Arm(_) if self.phase == Phase::Stopping => {}
            ProbeCmd::Arm(arm) => self.arm(now, *arm, out),
            ProbeCmd::Hold { probe, generation } => {
                if self.targets.current_mut(probe, generation).is_some() {
                    self.set_held(now, probe, out);
                }
            }
            ProbeCmd::Trigger { probe, generation } => self.trigger(now, probe, generation, out),
            ProbeCmd::Drop { probe } => self.drop_probe(now, probe, out),
            ProbeCmd::ExecDone { probe, generation, verdict, took } => {
                let entry = self.targets.current_mut(probe, generation);
                if let Some(entry) = entry.filter(|entry| entry.state == State::Exec) {
                    entry.tally.count(verdict, took);
                    self.tick_on(now, probe, out);
                }
            }
            ProbeCmd::CallDone { call, result } => self.called(now, call, result, out),
            ProbeCmd::Once { ticket, target, timeout } => self.once(now, ticket, target, timeout, out),
            ProbeCmd::CutOnce { ticket } => self.cut_once(now, ticket, out),
            ProbeCmd::Resolving { ticket } => self.resolving(now, ticket, out),
            ProbeCmd::Resolved { ticket, addr } => self.resolved(now, ticket, addr, out),
        }
    }

    fn arm(&mut self, now: Mono, arm: Arm, out: &mut Vec<ProbeEvent>) {
        let (key, first_due) = (arm.probe, arm.first_due);
        self.set_held(now, key, out);
        self.make_room(targets::has_name(&arm.target));
        let entry = self.targets.arm(arm);
        entry.state = State::Waiting(self.io.wheel.insert(first_due, Timer::Due(key)));
    }

    /// Takes the memory that all probes and one more may need at a time, so that their runs take none.
    fn make_room(&mut self, is_name: bool) {
        let armed = self.targets.len() + 1;
        let timers = armed + self.runs.len() * TIMERS_PER_SLOT;
        self.io.wheel.reserve(timers);
        targets::grow(&mut self.fired, timers);
        let queue = if is_name { &mut self.waiting_names } else { &mut self.waiting };
        targets::grow_queue(queue, armed);
    }

    fn drop_probe(&mut self, now: Mono, key: ProbeKey, out: &mut Vec<ProbeEvent>) {
        self.set_held(now, key, out);
        self.targets.remove(key);
    }

    /// Stops the ticker and the run in flight.
    fn set_held(&mut self, now: Mono, key: ProbeKey, out: &mut Vec<ProbeEvent>) {
        let Some(entry) = self.targets.get_mut(key) else { return };
        let kept = entry.kept.take();
        match std::mem::replace(&mut entry.state, State::Held) {
            State::Waiting(timer) => {
                self.io.wheel.cancel(timer);
            }
            State::Running(slot) => self.abandon(now, slot, out),
            State::Called => {
                self.io.counters.abandoned += 1;
                out.push(cut(key, entry.generation));
                self.places.give_back(calls::holder(entry));
            }
            State::Queued if matches!(*entry.target, Target::Grpc(_)) => {
                let job = Job::Probe { key, generation: entry.generation };
                self.places.forget(calls::holder(entry), job);
            }
            // A queued job finds its probe held; an exec run is the executor's to stop.
            State::Queued | State::Exec | State::Held => {}
        }
        if let Some(slot) = kept.filter(|slot| self.is_idle_on(*slot)) {
            self.with_run(now, slot, out, |run, io, effects| run.abandon(io, now, effects));
        }
    }

    fn abandon(&mut self, now: Mono, slot: Slot, out: &mut Vec<ProbeEvent>) {
        self.io.counters.abandoned += 1;
        self.with_run(now, slot, out, |run, io, effects| run.abandon(io, now, effects));
    }

    fn trigger(&mut self, now: Mono, key: ProbeKey, generation: u32, out: &mut Vec<ProbeEvent>) {
        let Some(entry) = self.targets.current_mut(key, generation) else { return };
        let State::Waiting(timer) = entry.state else { return };
        self.io.wheel.cancel(timer);
        entry.restart_ticker(now);
        self.begin(now, key, out);
    }

    fn once(
        &mut self,
        now: Mono,
        ticket: Ticket,
        target: Arc<Target>,
        timeout: Duration,
        out: &mut Vec<ProbeEvent>,
    ) {
        match &*target {
            Target::Exec => out.push(errored(ticket, now, "exec probes are run by the container runtime")),
            Target::Broken { error } => out.push(errored(ticket, now, error)),
            Target::Http(_) | Target::Tcp(_) | Target::Grpc(_) => {
                let is_call = matches!(*target, Target::Grpc(_));
                let once = Once { ticket, target, timeout, due: now, slot: None, is_called: false };
                match self.onces.add(once) {
                    Some(job) if is_call => self.places.ask(Holder::Onces, job),
                    Some(job) => self.waiting_onces.push_back(job),
                    None => out.push(errored(ticket, now, "too many one-shot probes at a time")),
                }
            }
        }
    }

    fn expire(&mut self, now: Mono, out: &mut Vec<ProbeEvent>) {
        let mut fired = std::mem::take(&mut self.fired);
        self.io.wheel.expire(now, &mut fired);
        for timer in fired.drain(..) {
            match timer {
                Timer::Due(key) => {
                    if let Some(entry) = self.targets.get_mut(key) {
                        entry.take_tick(now);
                        self.begin(now, key, out);
                    }
                }
                Timer::Deadline(slot) => {
                    self.with_run(now, slot, out, |run, io, effects| run.timed_out(io, now, effects));
                }
                Timer::Closing(slot) => {
                    self.with_run(now, slot, out, |run, io, effects| run.closing_due(io, now, effects));
                }
            }
        }
        self.fired = fired;
    }

    /// A run of the probe is due.
    fn begin(&mut self, now: Mono, key: ProbeKey, out: &mut Vec<ProbeEvent>) {
        let Some(entry) = self.targets.get_mut(key) else { return };
        let generation = entry.generation;
        match &*entry.target {
            Target::Exec => {
                entry.state = State::Exec;
                out.push(ProbeEvent::ExecDue { probe: key, generation, instance: entry.instance });
            }
            Target::Grpc(_) => self.call(key),
            Target::Broken { error } => {
                let phases = Phases { due: entry.due, done: now, ..Phases::default() };
                let detail = Some(error.clone());
                let result = RunResult { verdict: Verdict::Errored, detail, phases };
                self.report_probe(now, key, result, out);
            }
            Target::Http(_) | Target::Tcp(_) => {
                entry.state = State::Queued;
                let is_name = targets::has_name(&entry.target);
                self.enqueue(key, generation, is_name);
            }
        }
    }

    /// While no slot is free, probes that are held and armed again leave jobs behind that nobody wants. Each probe waits once,
    /// so a queue that is longer than all of them has such jobs.
    fn enqueue(&mut self, key: ProbeKey, generation: u32, is_name: bool) {
        let queue = if is_name { &mut self.waiting_names } else { &mut self.waiting };
        if queue.len() >= self.targets.len() {
            queue.retain(|job| matches!(*job, Job::Probe { key, generation } if self.targets.is_queued(key, generation)));
        }
        queue.push_back(Job::Probe { key, generation });
    }

    /// Whether a one-shot probe waits for a slot and may have one.
    fn may_start_once(&self) -> bool {
        let most = (self.io.ring.capacity() / ONCES_ONE_IN).max(1);
        !self.waiting_onces.is_empty() && self.once_slots < most
    }

    /// Starts a run; false when no slot is free. A job that nobody wants any more counts as started.
    fn start(&mut self, now: Mono, job: Job, out: &mut Vec<ProbeEvent>) -> bool {
        let wanted = match job {
            Job::Probe { key, generation } => {
                self.targets.current_mut(key, generation).filter(|entry| entry.state == State::Queued).map(
                    |entry| {
                        let kept = entry.kept.take();
                        (entry.target.clone(), Pace::Chained, entry.due, entry.timeout(), kept)
                    },
                )
            }
            Job::Once { .. } => self
                .onces
                .get_mut(job)
                .map(|once| (once.target.clone(), Pace::Stepped, once.due, once.timeout, None)),
        };
        let Some((target, pace, due, timeout, kept)) = wanted else { return true };
        let kept = kept.filter(|slot| self.is_idle_on(*slot));
        let Some(slot) = kept.or_else(|| self.io.ring.acquire()) else { return false };
        match job {
            Job::Probe { key, generation } => {
                if let Some(entry) = self.targets.current_mut(key, generation) {
                    entry.state = State::Running(slot);
                }
            }
            Job::Once { .. } => {
                self.once_slots += 1;
                if let Some(once) = self.onces.get_mut(job) {
                    once.slot = Some(slot);
                }
            }
        }
        self.handled += 1;
        if kept.is_some() {
            let again = Again { owner: job, due, timeout };
            self.with_run(now, slot, out, |run, io, effects| run.again(again, io, now, effects));
            self.started.push(slot);
            return true;
        }
        let mut effects = Effects::default();
        let start = Start { slot, owner: job, target, pace, due, timeout };
        let run = Run::start(start, &mut self.io, now, &mut effects);
        self.runs[slot.at()] = Some(run);
        self.running += 1;
        self.started.push(slot);
        self.apply(now, slot, effects, out);
        true
    }

    /// Whether a run waits on this slot, on an open connection, for its probe's next turn.
    fn is_idle_on(&self, slot: Slot) -> bool {
        let run = self.runs.get(slot.at()).and_then(Option::as_ref);
        run.is_some_and(|run| run.slot == slot && run.is_idle())
    }

    fn completed(&mut self, now: Mono, completion: Completion, out: &mut Vec<ProbeEvent>) {
        let slot = completion.slot;
        self.with_run(now, slot, out, |run, io, effects| run.completed(io, now, completion, effects));
    }

    /// Lets the run on this slot take a step, if it is still that run.
    fn with_run(
        &mut self,
        now: Mono,
        slot: Slot,
        out: &mut Vec<ProbeEvent>,
        step: impl FnOnce(&mut Run, &mut Io<R>, &mut Effects),
    ) {
        let run = self.runs.get_mut(slot.at()).and_then(Option::as_mut).filter(|run| run.slot == slot);
        let Some(run) = run else { return };
        let mut effects = Effects::default();
        step(run, &mut self.io, &mut effects);
        self.apply(now, slot, effects, out);
    }

    fn apply(&mut self, now: Mono, slot: Slot, effects: Effects, out: &mut Vec<ProbeEvent>) {
        if let Some((host, until)) = effects.resolve {
            out.push(self.question(slot, host, until));
        }
        if effects.is_free {
            let run = &mut self.runs[slot.at()];
            self.once_slots -= u32::from(run.as_ref().is_some_and(|run| !run.is_repeated()));
            *run = None;
            self.running -= 1;
            self.io.ring.release(slot);
        }
        match effects.report {
            Some((Job::Probe { key, generation }, result)) => {
                let kept = self.is_idle_on(slot).then_some(slot);
                let entry = self.targets.current_mut(key, generation);
                if let Some(entry) = entry.filter(|entry| entry.state == State::Running(slot)) {
                    entry.kept = kept;
                    self.report_probe(now, key, result, out);
                }
            }
            Some((job @ Job::Once { .. }, outcome)) => {
                if let Some(ticket) = self.onces.take(job) {
                    self.io.counters.count(outcome.verdict);
                    out.push(ProbeEvent::OnceDone { ticket, outcome });
                }
            }
            None => {}
        }
    }

    fn report_probe(&mut self, now: Mono, key: ProbeKey, result: RunResult, out: &mut Vec<ProbeEvent>) {
        self.io.counters.count(result.verdict);
        if let Some(entry) = self.targets.get_mut(key) {
            out.extend(entry.fold(key, result).map(ProbeEvent::Outcome));
        }
        self.tick_on(now, key, out);
    }

    /// A run has ended: the next one begins with the next tick, or now when one has come meanwhile.
    fn tick_on(&mut self, now: Mono, key: ProbeKey, out: &mut Vec<ProbeEvent>) {
        let Some(entry) = self.targets.get_mut(key) else { return };
        if entry.take_pending_tick(now) {
            return self.begin(now, key, out);
        }
        entry.state = State::Waiting(self.io.wheel.insert(entry.next_tick(), Timer::Due(key)));
    }
}
