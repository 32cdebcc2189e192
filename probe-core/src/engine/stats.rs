//! What a shard counts, and how late it was.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::model::probe::Verdict;

/// A run that starts later than this after its due time counts as late (design section 6, promise 1).
pub const LATE_START: Duration = Duration::from_millis(5);
/// Lateness is kept from a microsecond to this, at two significant digits.
const LATENESS_MAX: Duration = Duration::from_secs(3_600);
const LATENESS_DIGITS: u8 = 2;

/// Counters of one shard since its start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Runs by verdict; attempts that were repeated are not among them.
    pub successes: u64,
    pub warnings: u64,
    pub failures: u64,
    pub errored: u64,
    /// Runs that nobody could judge, since the shard did not run meanwhile.
    pub inconclusive: u64,
    /// Turns, and calls of io_uring_enter that they made: some for each turn, however many runs share it.
    pub turns: u64,
    pub enters: u64,
    /// Turns that came late by more than [`UNWATCHED_MIN`](crate::model::limits::UNWATCHED_MIN), and their sum
    /// in microseconds.
    pub missed_turns: u64,
    pub missed_us: u64,
    /// Attempts that could not be judged since this host had no port, memory or descriptor for their connection.
    pub shortages: u64,
    /// Runs ended because their probe was held, dropped or armed anew.
    pub abandoned: u64,
    /// Attempts repeated because they could not be judged.
    pub repeated: u64,
    /// Runs that started more than [`LATE_START`] after they were due.
    pub late_starts: u64,
    /// Runs on a kept connection, and how many of those connections turned out to be dead.
    pub reused: u64,
    pub reconnected: u64,
    /// Sockets that the kernel would not disconnect, and that were closed.
    pub replaced_sockets: u64,
    /// Operations that had to wait for room in the submission queue.
    pub queue_full: u64,
    /// Completions for a slot that had moved on. Anything but zero is a bug.
    pub stale_completions: u64,
}

/// A snapshot of a shard for metrics and `top`.
#[derive(Clone, Debug)]
pub struct Stats {
    pub counters: Counters,
    /// Microseconds from due to submitted, of every run that got as far.
    pub lateness_us: Histogram<u64>,
    /// Probes armed, and runs in flight.
    pub armed: usize,
    pub in_flight: usize,
    /// Runs that have a place among the kept connections, whether or not they are in flight.
    pub kept: usize,
    /// Due probes that wait for a slot.
    pub waiting: usize,
    /// Timers pending.
    pub timers: usize,
}

impl Stats {
    pub(super) fn new() -> Stats {
        Stats {
            counters: Counters::default(),
            lateness_us: lateness_histogram(),
            armed: 0,
            in_flight: 0,
            kept: 0,
            waiting: 0,
            timers: 0,
        }
    }

    /// Copies a histogram of the same bounds.
    pub(super) fn set_lateness(&mut self, lateness_us: &Histogram<u64>) {
        self.lateness_us.reset();
        self.lateness_us.add(lateness_us).expect("both have the bounds of `lateness_histogram`");
    }
}

impl Counters {
    pub(super) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Success => self.successes += 1,
            Verdict::Warning => self.warnings += 1,
            Verdict::Failure => self.failures += 1,
            Verdict::Errored => self.errored += 1,
            Verdict::Inconclusive => self.inconclusive += 1,
        }
    }

    /// Runs that ended with a verdict.
    pub fn runs(&self) -> u64 {
        self.successes + self.warnings + self.failures + self.errored + self.inconclusive
    }
}

/// The histogram of [`Stats::lateness_us`].
pub(super) fn lateness_histogram() -> Histogram<u64> {
    let max_us = LATENESS_MAX.as_micros() as u64;
    Histogram::new_with_max(max_us, LATENESS_DIGITS).expect("the bounds are constants that it accepts")
}

/// Records how late a run started; longer than the histogram reaches counts as its end.
pub(super) fn record(histogram: &mut Histogram<u64>, lateness: Duration) {
    histogram.saturating_record(u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX));
}
