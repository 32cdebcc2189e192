//! The probes of a shard and their tickers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::pace::Demand;
use super::wheel::TimerId;
use crate::model::id::{InstanceId, ProbeKey};
use crate::model::probe::{Arm, Host, Outcome, ProbeKind, RunResult, Target, Verdict};
use crate::model::tally::{Tallied, Tally, TallyCursor};
use crate::model::time::Mono;
use crate::ring::Slot;

/// Who waits for a slot or for an outcome.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Job {
    Probe { key: ProbeKey, generation: u32 },
    Once { index: u32, generation: u32 },
}

/// Armed probes, one table per executor shard, by index. An entry takes 176 bytes.
#[derive(Default)]
pub struct Targets {
    by_executor: Vec<Vec<Option<Entry>>>,
    armed: usize,
    demand: Demand,
}

/// One probe.
pub struct Entry {
    pub generation: u32,
    pub instance: InstanceId,
    pub target: Arc<Target>,
    pub kind: ProbeKind,
    pub state: State,
    pub tally: Tally,
    /// Where the connection of the latest run is kept, if it is.
    pub kept: Option<Slot>,
    /// When the latest run was due.
    pub due: Mono,
    timeout_ns: u64,
    period_ns: u64,
    /// The first tick that has not been taken.
    next_tick: Mono,
    report_successes: u32,
    /// Successes in a row that were reported.
    reported_row: u32,
    /// Successes not reported yet.
    folded: u32,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Not ticking, until the next `Arm`.
    Held,
    /// Waiting for the next tick.
    Waiting(TimerId),
    /// Due, without a slot yet.
    Queued,
    Running(Slot),
    /// The executor has it run.
    Exec,
    /// Called elsewhere (gRPC).
    Called,
}

impl Targets {
    /// Takes a probe in, or replaces it. Its ticker is to be started by the caller.
    pub fn arm(&mut self, arm: Arm) -> &mut Entry {
        let executor = usize::from(arm.probe.executor);
        let index = arm.probe.index as usize;
        if self.by_executor.len() <= executor {
            self.by_executor.resize_with(executor + 1, Vec::new);
        }
        let table = &mut self.by_executor[executor];
        if table.len() <= index {
            grow(table, index + 1);
            table.resize_with(index + 1, || None);
        }
        let mut entry = Entry::new(arm);
        match &table[index] {
            Some(earlier) => {
                earlier.withdraw_from(&mut self.demand);
                entry.tally = earlier.tally;
            }
            None => self.armed += 1,
        }
        entry.add_to(&mut self.demand);
        table[index].insert(entry)
    }

    pub fn remove(&mut self, key: ProbeKey) {
        let place = self
            .by_executor
            .get_mut(usize::from(key.executor))
            .and_then(|table| table.get_mut(key.index as usize));
        if let Some(entry) = place.and_then(Option::take) {
            self.armed -= 1;
            entry.withdraw_from(&mut self.demand);
        }
    }

    /// What all of them ask for, held ones included.
    pub fn demand(&self) -> Demand {
        self.demand
    }

    pub fn get_mut(&mut self, key: ProbeKey) -> Option<&mut Entry> {
        self.by_executor.get_mut(usize::from(key.executor))?.get_mut(key.index as usize)?.as_mut()
    }

    /// The probe if it is armed with this generation.
    pub fn current_mut(&mut self, key: ProbeKey, generation: u32) -> Option<&mut Entry> {
        self.get_mut(key).filter(|entry| entry.generation == generation)
    }

    /// Whether a run of this generation waits for a slot.
    pub fn is_queued(&self, key: ProbeKey, generation: u32) -> bool {
        let table = self.by_executor.get(usize::from(key.executor));
        let entry = table.and_then(|table| table.get(key.index as usize)?.as_ref());
        entry.is_some_and(|entry| entry.generation == generation && entry.state == State::Queued)
    }

    /// Probes known, held ones included.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// What the runs of every probe came to, from this place in the tables on, at most `count` places; the place to go on
    /// from, None at the end.
    pub fn tallies(&self, from: TallyCursor, count: usize, into: &mut Vec<Tallied>) -> Option<TallyCursor> {
        let TallyCursor { mut executor, mut index } = from;
        let mut left = count;
        while let Some(table) = self.by_executor.get(executor) {
            let end = table.len().min(index.saturating_add(left));
            let part = table.get(index..end).unwrap_or_default();
            into.extend(part.iter().flatten().map(Entry::tallied));
            left -= part.len();
            if left == 0 {
                return Some(TallyCursor { executor, index: end });
            }
            (executor, index) = (executor + 1, 0);
        }
        None
    }

    /// All keys, for the end of the shard.
    pub fn keys(&self) -> Vec<ProbeKey> {
        let tables = self.by_executor.iter().enumerate();
        tables
            .flat_map(|(executor, table)| {
                let known = table.iter().enumerate().filter(|(_, entry)| entry.is_some());
                known.map(move |(index, _)| ProbeKey { executor: executor as u16, index: index as u32 })
            })
            .collect()
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes room for `len` entries and an eighth more: doubling would hold twice the memory that is in use.
pub fn grow<T>(table: &mut Vec<T>, len: usize) {
    if table.capacity() < len {
        table.reserve_exact(len + len / 8 - table.len());
    }
}

/// The same for a queue.
pub fn grow_queue<T>(queue: &mut VecDeque<T>, len: usize) {
    if queue.capacity() < len {
        queue.reserve_exact(len + len / 8 - queue.len());
    }
}

impl Entry {
    fn new(arm: Arm) -> Entry {
        Entry {
            generation: arm.generation,
            instance: arm.instance,
            target: arm.target,
            kind: arm.kind,
            state: State::Held,
            tally: Tally::default(),
            kept: None,
            due: arm.first_due,
            timeout_ns: ns(arm.timeout),
            period_ns: ns(arm.period).max(1),
            next_tick: arm.first_due,
            report_successes: arm.report_successes,
            reported_row: 0,
            folded: 0,
        }
    }

    /// What it asks of the ring: exec and gRPC probes nothing.
    fn add_to(&self, demand: &mut Demand) {
        if matches!(*self.target, Target::Http(_) | Target::Tcp(_)) {
            demand.add(self.period(), self.timeout());
        }
    }

    fn withdraw_from(&self, demand: &mut Demand) {
        if matches!(*self.target, Target::Http(_) | Target::Tcp(_)) {
            demand.remove(self.period(), self.timeout());
        }
    }

    fn tallied(&self) -> Tallied {
        let InstanceId { pod, container, .. } = self.instance;
        Tallied { pod, container, kind: self.kind, tally: self.tally }
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_nanos(self.timeout_ns)
    }

    fn period(&self) -> Duration {
        Duration::from_nanos(self.period_ns)
    }

    pub fn next_tick(&self) -> Mono {
        self.next_tick
    }

    /// Takes the tick that has come. Those missed while nobody looked are dropped, as Go's ticker does, whose
    /// channel holds one: the next tick is the first one after `now`.
    pub fn take_tick(&mut self, now: Mono) {
        self.due = self.next_tick;
        let missed = now.since(self.next_tick).as_nanos() as u64 / self.period_ns;
        let step_ns = self.period_ns.saturating_mul(missed + 1);
        self.next_tick = self.next_tick.after(Duration::from_nanos(step_ns));
    }

    /// Whether a tick came while the run was going on. It is taken, and is due now, not when it came: the
    /// target's slowness is not our lateness.
    pub fn take_pending_tick(&mut self, now: Mono) -> bool {
        if self.next_tick > now {
            return false;
        }
        self.take_tick(now);
        self.due = now;
        true
    }

    /// A manual trigger: the run is due now and the ticker starts anew (kubelet-semantics 10.2).
    pub fn restart_ticker(&mut self, now: Mono) {
        self.due = now;
        self.next_tick = now.after(self.period());
    }

    /// What to report of a run: None when it is folded into the next report.
    pub fn fold(&mut self, probe: ProbeKey, result: RunResult) -> Option<Outcome> {
        self.tally.count(result.verdict, result.phases.took());
        match result.verdict {
            Verdict::Success if self.reported_row >= self.report_successes => {
                self.folded = self.folded.saturating_add(1);
                return None;
            }
            Verdict::Success | Verdict::Warning => self.reported_row = self.reported_row.saturating_add(1),
            Verdict::Failure => self.reported_row = 0,
            Verdict::Errored | Verdict::Inconclusive => {}
        }
        let folded_successes = std::mem::take(&mut self.folded);
        Some(Outcome {
            probe,
            generation: self.generation,
            instance: self.instance,
            folded_successes,
            result,
        })
    }
}

/// Whether its host is to be looked up first.
pub fn has_name(target: &Target) -> bool {
    match target {
        Target::Http(http) => matches!(http.host, Host::Name(_)),
        Target::Tcp(tcp) => matches!(tcp.host, Host::Name(_)),
        Target::Grpc(_) | Target::Exec | Target::Broken { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{ContainerIx, PodUid};
    use crate::model::probe::Phases;

    const KEY: ProbeKey = ProbeKey { executor: 1, index: 3 };

    fn arm(first_due_s: u64, period_s: u64, report_successes: u32) -> Arm {
        Arm {
            probe: KEY,
            kind: ProbeKind::Liveness,
            generation: 1,
            instance: InstanceId { pod: PodUid(1), container: ContainerIx(0), restart_count: 0 },
            target: Arc::new(Target::Exec),
            first_due: at(first_due_s),
            period: Duration::from_secs(period_s),
            timeout: Duration::from_secs(1),
            report_successes,
        }
    }

    fn at(seconds: u64) -> Mono {
        Mono::from_ns(seconds * 1_000_000_000)
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Option<Entry>>() <= 176, "{} bytes", size_of::<Option<Entry>>());
    }

    #[test]
    fn wrkx_08_missed_ticks_are_dropped_and_one_is_pending() {
        let mut entry = Entry::new(arm(0, 10, 0));
        entry.take_tick(at(0));
        // The run takes 25 s: ticks at 10 (kept) and 20 (dropped).
        assert!(entry.take_pending_tick(at(25)));
        assert_eq!((entry.due, entry.next_tick()), (at(25), at(30)));
        assert!(!entry.take_pending_tick(at(26)));
    }

    #[test]
    fn a_tick_taken_late_drops_the_ones_behind_it() {
        let mut entry = Entry::new(arm(5, 10, 0));
        entry.take_tick(at(37));
        assert_eq!((entry.due, entry.next_tick()), (at(5), at(45)));
        entry.take_tick(at(45));
        assert_eq!((entry.due, entry.next_tick()), (at(45), at(55)));
    }

    #[test]
    fn successes_beyond_the_wanted_row_are_folded() {
        let mut entry = Entry::new(arm(0, 1, 2));
        let mut run = |verdict| {
            let result = RunResult { verdict, detail: None, phases: Phases::default() };
            entry.fold(KEY, result).map(|outcome| outcome.folded_successes)
        };
        let runs = [
            (Verdict::Success, Some(0)),
            (Verdict::Success, Some(0)),
            (Verdict::Success, None),
            (Verdict::Success, None),
            (Verdict::Errored, Some(2)),
            (Verdict::Success, None),
            (Verdict::Warning, Some(1)),
            (Verdict::Success, None),
            (Verdict::Failure, Some(1)),
            (Verdict::Success, Some(0)),
            (Verdict::Success, Some(0)),
            (Verdict::Success, None),
        ];
        for (n, (verdict, expected)) in runs.into_iter().enumerate() {
            assert_eq!(run(verdict), expected, "run {n}");
        }
    }

    #[test]
    fn tallies_outlive_an_instance_and_are_told_in_parts() {
        let mut targets = Targets::default();
        for (executor, index) in [(0, 0), (0, 2), (2, 1)] {
            let entry = targets.arm(Arm { probe: ProbeKey { executor, index }, ..arm(0, 1, 0) });
            entry.tally.count(Verdict::Failure, Duration::ZERO);
        }
        let again = Arm { probe: ProbeKey { executor: 0, index: 2 }, generation: 2, ..arm(0, 1, 0) };
        targets.arm(again).tally.count(Verdict::Failure, Duration::ZERO);
        for part in [1, 2, 3, 4, 5, 100] {
            let (mut told, mut from) = (Vec::new(), Some(TallyCursor::default()));
            while let Some(place) = from {
                from = targets.tallies(place, part, &mut told);
            }
            let failed: Vec<u64> = told.iter().map(|told| told.tally.failed()).collect();
            assert_eq!(failed, [1, 2, 1], "parts of {part}");
        }
    }

    #[test]
    fn the_table_counts_what_it_holds() {
        let mut targets = Targets::default();
        targets.arm(arm(0, 1, 0));
        targets.arm(arm(0, 1, 0));
        assert_eq!((targets.len(), targets.keys()), (1, vec![KEY]));
        assert!(targets.current_mut(KEY, 2).is_none());
        targets.remove(KEY);
        targets.remove(KEY);
        assert_eq!(targets.len(), 0);
    }
}
