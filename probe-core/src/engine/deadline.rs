//! The timeout of a run: from when it counts, when it stands still, and what has come in time.

use std::time::Duration;

use super::io::{Io, Timer};
use super::keep::Keeping;
use super::run::{Effects, Reached, Run, Stage, Then, Winding};
use super::text;
use crate::model::probe::{Host, HttpTarget, Verdict};
use crate::model::time::Mono;
use crate::ring::{Completion, OpKind, Ring};

/// From a request to its answer takes longer, on any host.
const TURN_MIN: Duration = Duration::from_micros(5);

/// The timeout stands still.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Pause {
    since: Mono,
    /// [`super::watch::Absences::sum`] at that moment.
    unwatched: Duration,
}

impl Run {
    /// The kernel got the first connection of this run at `at`, and not before `earliest`; the timeout counts from `at`.
    /// A new connection's request goes out from `asks_from` on.
    pub fn date_connection<R: Ring>(&mut self, io: &Io<R>, at: Mono, earliest: Mono, asks_from: Mono) {
        let asks_at_once = self.outgoing().is_none() || self.keeping == Keeping::Reused;
        self.dated_from = if asks_at_once { earliest } else { asks_from };
        self.date(io, at, at.since(earliest));
    }

    /// Its request went out at about `at`, where the thread was away in between up to `within` before.
    pub(super) fn date<R: Ring>(&mut self, io: &Io<R>, at: Mono, within: Duration) {
        if self.phases.submitted.is_some() {
            self.dated_within = within;
            self.has_asked(io);
            self.phases.submitted = Some(at);
            self.phases.connected = self.phases.connected.map(|seen| seen.max(at));
            self.deadline_at = at.after(self.timeout);
        }
    }

    /// True when this completion says that a new run's request, or its bare connection, is on its way. Its request then
    /// dates the run.
    pub fn note_off<R: Ring>(
        &mut self,
        io: &Io<R>,
        completion: &Completion,
        at: Mono,
        within: Duration,
    ) -> bool {
        match completion.kind {
            OpKind::Send if self.is_new && completion.result.is_ok() => {
                self.date(io, at, within);
                true
            }
            OpKind::Connect => self.is_new && (completion.result.is_err() || self.outgoing().is_none()),
            _ => false,
        }
    }

    /// How late it was begun, `now` where its connection has to wait for a name; once.
    pub fn take_lateness(&mut self, now: Mono) -> Option<Duration> {
        let is_new = std::mem::replace(&mut self.is_new, false);
        is_new.then(|| self.phases.submitted.unwrap_or(now).since(self.phases.due))
    }

    /// The answer tells more of when the run was begun. The timeout goes on counting from the later moment.
    pub(super) fn redate(&mut self, answered: Mono) {
        let within = std::mem::take(&mut self.dated_within);
        let (from, first) = (self.dated_from, self.dated_first);
        self.phases.submitted =
            self.phases.submitted.map(|dated| begun(dated, within, [from, first], answered));
    }

    /// The timeout of the attempt has passed, and no completion was there before it.
    pub fn timed_out<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.deadline = None;
        if now < self.deadline_at {
            // It was submitted a little after its timer was set.
            self.deadline = Some(io.wheel.insert(self.deadline_at, Timer::Deadline(self.slot)));
            return;
        }
        self.received_at = None;
        let was = self.stage;
        let (verdict, text) = self.timeout_outcome();
        self.fell_silent(io, now, verdict, text, effects);
        match was {
            Stage::Unresolved | Stage::Asked | Stage::Resolving => {
                self.end_resolving(io);
                self.ended(io, now, effects);
            }
            Stage::Working => self.wind_down(io, now, Winding::Cancelled, effects),
            Stage::Parting | Stage::Idle | Stage::Finishing | Stage::Winding(_) | Stage::Disconnecting => {}
        }
    }

    /// This connection ends, and the run goes on elsewhere.
    pub(super) fn go_on<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, hop: Box<HttpTarget>) {
        if self.host() != Some(&hop.host) {
            self.ip = None;
            self.phases.resolved = None;
        }
        // The next step is ours again.
        self.asked = None;
        self.hop = Some(hop);
        self.then = Then::NextHop;
        // Phases are told of the last hop.
        (self.phases.connected, self.phases.sent, self.phases.first_byte) = (None, None, None);
        let since = self.received_at.take().unwrap_or(now);
        self.pause(io, since);
        if let Some(id) = self.deadline.take() {
            io.wheel.cancel(id);
        }
    }

    /// The timeout stands still from `since` on.
    pub(super) fn pause<R: Ring>(&mut self, io: &Io<R>, since: Mono) {
        let unwatched = io.watch.absences(self.timeout).sum();
        self.paused = Some(Pause { since, unwatched });
    }

    pub(super) fn resume<R: Ring>(&mut self, io: &mut Io<R>, now: Mono) {
        let Some(pause) = self.paused.take() else { return };
        let by = now.since(pause.since);
        // What was missed meanwhile took nothing of the timeout.
        self.unwatched_before += io.watch.absences(self.timeout).sum().saturating_sub(pause.unwatched);
        self.deadline_at = self.deadline_at.after(by);
        if let Some(id) = self.deadline.take() {
            io.wheel.cancel(id);
        }
        self.deadline = Some(io.wheel.insert(self.deadline_at, Timer::Deadline(self.slot)));
    }

    /// The time until now that was ours. What the shard was away of it excuses no more.
    pub(super) fn give_back<R: Ring>(&mut self, io: &Io<R>, time: Duration) {
        self.deadline_at = self.deadline_at.after(time);
        self.unwatched_before += io.watch.overdue(self.timeout).min(time);
    }

    /// The answer is complete, but the kernel received the end of it after the deadline.
    pub(super) fn is_late(&self) -> bool {
        self.received_at.is_some_and(|at| at > self.deadline_at)
    }

    pub(super) fn timeout_outcome(&self) -> (Verdict, String) {
        if let (Stage::Unresolved | Stage::Asked, Some(Host::Name(name))) = (self.stage, self.host()) {
            return (Verdict::Errored, self.in_context(text::crowded_lookup(name)));
        }
        let dial = match (self.stage, self.host(), self.peer()) {
            (Stage::Resolving, Some(Host::Name(name)), _) => Some(text::lookup_timeout(name)),
            (_, _, Some(peer)) if self.reached == Reached::Nothing => Some(text::dial_timeout(&peer)),
            _ => None,
        };
        match (self.request(), dial) {
            (None, dial) => (Verdict::Failure, dial.unwrap_or_default()),
            (Some(_), None) if self.is_in_body() && self.then == Then::Free => {
                (self.broken_body(), text::BODY_TIMEOUT.to_owned())
            }
            (Some(request), Some(dial)) => (Verdict::Failure, text::get_dial_timeout(&request.url, &dial)),
            (Some(request), None) => (Verdict::Failure, text::get_timeout(&request.url)),
        }
    }

    /// Whether the deadline met an answer whose headers were in.
    fn is_in_body(&self) -> bool {
        if self.is_late() {
            return self.phases.first_byte.is_some_and(|at| at <= self.deadline_at);
        }
        self.answer.in_body()
    }
}

/// When a run was begun that was `dated` so, or up to `within` earlier, and whose answer came at `answered`. Where the
/// uncertainty is all there is of the response time, the thread was away while the kernel worked: then the earlier moment
/// counts, lest an answer seem to have come at once. Hardly one was begun before `from`, and none before `first`: then an
/// answer to what was not sent yet was asked for.
fn begun(dated: Mono, within: Duration, [from, first]: [Mono; 2], answered: Mono) -> Mono {
    let from = dated.min(if answered.since(from) < TURN_MIN { first } else { from });
    match answered.since(dated) {
        took if took < TURN_MIN => from,
        took if took < within => {
            Mono::from_ns(dated.as_ns().saturating_sub(within.as_nanos() as u64)).max(from)
        }
        _ => dated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_come_before_its_request() {
        let us = |us: u64| Mono::from_ns(us * 1_000);
        // (uncertain by, answered, begun): dated 1,000, its connection 600, its burst 400.
        let cases = [
            (0, 1_010, 1_000),
            (0, 1_004, 600),
            (0, 990, 600),
            (300, 990, 600),
            (300, 1_299, 700),
            (300, 1_300, 1_000),
            (500, 1_100, 600),
            (0, 604, 400),
            (500, 590, 400),
        ];
        for (within_us, answered, expected) in cases {
            let within = Duration::from_micros(within_us);
            let begun = begun(us(1_000), within, [us(600), us(400)], us(answered));
            assert_eq!(begun, us(expected), "{within_us} {answered}");
        }
        assert_eq!(begun(us(1_000), Duration::ZERO, [us(2_000); 2], us(900)), us(1_000), "of an earlier run");
    }
}
