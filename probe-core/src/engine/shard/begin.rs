//! Runs on their way: what is due is started, handed to the kernel, and dated by when the kernel got it.

use std::time::Duration;

use super::{Shard, WORK_MAX};
use crate::engine::stats::{self, LATE_START};
use crate::model::limits::{UNWATCHED_MIN, UNWATCHED_PARTS};
use crate::model::probe::ProbeEvent;
use crate::model::time::Mono;
use crate::ring::{OpKind, Ring, Slot};

/// To send a request takes the kernel less, the peer's side of the loopback interface included.
const PASS_STEP_MAX: Duration = Duration::from_micros(25);
/// A run begins with connect, send and receive, and one pass over a ring runs so many of them (Linux 6.13; before that
/// all there are).
const OPS_PER_CHAIN: usize = 3;
const OPS_PER_PASS: usize = 20;

/// Whether a run with this timeout can be dated within a burst of this length: the thread may have been away for all of
/// it.
fn matters_little(burst: Duration, timeout: Duration) -> bool {
    burst * UNWATCHED_PARTS < timeout
}

impl<R: Ring> Shard<R> {
    /// Starts what is due while slots are free, hands it to the kernel, and returns the time afterwards.
    ///
    /// The kernel begins a connection while it takes its chain, so each run is dated by its place in the burst. (In
    /// groups of four, each with a time of its own, the probed server falls asleep between the groups, and waking it
    /// costs 5 µs a probe: docs/engine.md.)
    pub(super) fn start_waiting(&mut self, mut now: Mono, out: &mut Vec<ProbeEvent>) -> Mono {
        let is_nothing_due = self.waiting.is_empty() && self.waiting_names.is_empty();
        if is_nothing_due && self.waiting_onces.is_empty() && self.io.unresolved.is_empty() {
            return now;
        }
        now = self.io.ring.submit(now);
        // What was handed over has in part ended by now. It is not to wait for the end of a long burst.
        while let Some(completion) = self.io.ring.next_completion(now) {
            self.completed(now, completion, out);
            self.handled += 1;
        }
        // A resolver takes long, so its questions go first.
        self.start_lookups(now, out);
        self.start_onces(now, out);
        while let Some(job) = self.waiting.pop_front() {
            if !self.start(now, job, out) {
                self.waiting.push_front(job);
                break;
            }
        }
        let end = self.io.ring.submit(now);
        self.date_started(now, end);
        let end = self.settle(end, out);
        for at in 0..self.started.len() {
            self.note_begun(end, self.started[at]);
        }
        self.started.clear();
        end
    }

    fn start_onces(&mut self, now: Mono, out: &mut Vec<ProbeEvent>) {
        while self.may_start_once() {
            let Some(job) = self.waiting_onces.pop_front() else { return };
            if !self.start(now, job, out) {
                return self.waiting_onces.push_front(job);
            }
        }
    }

    /// Dates the runs that were submitted one after the other between `from` and `to`. Where that took much longer than
    /// the work, the thread was away, nobody knows when: then all of them were submitted at the end. So is a run to whose
    /// timeout the whole burst matters, since it may have been away for all of that.
    ///
    /// The kernel sends their requests only after the last of them was begun.
    fn date_started(&mut self, from: Mono, to: Mono) {
        let count = self.started.len() as u32;
        let was_away = to.since(from) > WORK_MAX * count + UNWATCHED_MIN;
        let each = to.since(from).checked_div(count).unwrap_or_default();
        let earliest = |place: u32| from.after(each.min(WORK_MAX) * place);
        let last = earliest(count.saturating_sub(1));
        for (place, slot) in (0_u32..).zip(&self.started) {
            let run = self.runs[slot.at()].as_mut().filter(|run| run.slot == *slot);
            if let Some(run) = run {
                let is_known = !was_away && matters_little(to.since(from), run.timeout);
                let at = if is_known { from.after(each * place) } else { to };
                run.date_connection(&self.io, at, earliest(place), last);
            }
        }
    }

    /// Sees the begun runs off: where the handshake was over at once, as on this host, the kernel sends the requests
    /// only after the last connection of the burst was begun. That wait is ours, so such a run is dated by its request.
    /// A handshake that takes longer than this is the target's and counts. Returns the time afterwards.
    fn settle(&mut self, mut now: Mono, out: &mut Vec<ProbeEvent>) -> Mono {
        let mut unsent = self.started.len();
        let passes_max = 2 + unsent * OPS_PER_CHAIN / OPS_PER_PASS;
        for _ in 0..passes_max {
            if unsent == 0 {
                break;
            }
            let Some((to, count)) = self.io.ring.settle(now) else { break };
            let each = to.since(now).checked_div(count).unwrap_or_default();
            // What the pass took beyond its work, the thread was away: nobody knows before which of these.
            let away = each.saturating_sub(PASS_STEP_MAX);
            let mut place = 0;
            while let Some(completion) = self.io.ring.next_completion(to) {
                place += 1;
                let run = self.runs[completion.slot.at()].as_mut().filter(|run| run.slot == completion.slot);
                let is_known = run.as_ref().is_none_or(|run| matters_little(to.since(now), run.timeout));
                let (at, within) = match completion.kind {
                    OpKind::Connect | OpKind::Send if is_known => {
                        (now.after(each * place).min(to), away * place)
                    }
                    _ => (to, to.since(now)),
                };
                if run.is_some_and(|run| run.note_off(&self.io, &completion, at, within)) {
                    unsent -= usize::from(self.note_begun(at, completion.slot));
                }
                self.completed(at, completion, out);
            }
            self.handled += place;
            now = to;
        }
        now
    }

    /// The run is on its way, as late as it is now dated: counts that. False when it was counted already.
    pub(super) fn note_begun(&mut self, now: Mono, slot: Slot) -> bool {
        let run = self.runs[slot.at()].as_mut().filter(|run| run.slot == slot);
        let Some(lateness) = run.and_then(|run| run.take_lateness(now)) else { return false };
        stats::record(&mut self.lateness_us, lateness);
        self.io.counters.late_starts += u64::from(lateness > LATE_START);
        true
    }
}
