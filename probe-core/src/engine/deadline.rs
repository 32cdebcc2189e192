//! The timeout of a run: from when it counts, when it stands still, and what has come in time.

use std::time::Duration;

use super::io::{Io, Timer};
use super::run::{Effects, Reached, Run, Stage, Then, Winding};
use super::text;
use crate::model::probe::{Host, HttpTarget, Verdict};
use crate::model::time::Mono;
use crate::ring::Ring;

/// The timeout stands still.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Pause {
    since: Mono,
    /// [`super::watch::Absences::sum`] at that moment.
    unwatched: Duration,
}

impl Run {
    /// The kernel got the first connection of this run at `at`; the timeout counts from there.
    pub fn date<R: Ring>(&mut self, io: &Io<R>, at: Mono) {
        if self.phases.submitted.is_some() {
            self.has_asked(io);
            self.phases.submitted = Some(at);
            self.phases.connected = self.phases.connected.map(|seen| seen.max(at));
            self.deadline_at = at.after(self.timeout);
        }
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
            Stage::Resolving => {
                io.resolving -= 1;
                self.ended(io, now, effects);
            }
            Stage::Working => self.wind_down(io, now, Winding::Cancelled, effects),
            Stage::Parting | Stage::Idle | Stage::Finishing | Stage::Winding(_) | Stage::Disconnecting => {}
        }
    }

    /// This connection ends, and the run goes on elsewhere.
    pub(super) fn go_on<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, hop: Box<HttpTarget>) {
        self.hop = Some(hop);
        self.then = Then::NextHop;
        let unwatched = io.watch.absences(self.timeout).sum();
        self.paused = Some(Pause { since: self.received_at.unwrap_or(now), unwatched });
        if let Some(id) = self.deadline.take() {
            io.wheel.cancel(id);
        }
    }

    pub(super) fn resume<R: Ring>(&mut self, io: &mut Io<R>, now: Mono) {
        let Some(pause) = self.paused.take() else { return };
        let by = now.since(pause.since);
        // What was missed meanwhile took nothing of the timeout.
        self.unwatched_before += io.watch.absences(self.timeout).sum().saturating_sub(pause.unwatched);
        self.deadline_at = self.deadline_at.after(by);
        self.deadline = Some(io.wheel.insert(self.deadline_at, Timer::Deadline(self.slot)));
    }

    /// Time of the timeout that was ours.
    pub(super) fn give_back(&mut self, time: Duration) {
        self.deadline_at = self.deadline_at.after(time);
    }

    /// The answer is complete, but the kernel received the end of it after the deadline.
    pub(super) fn is_late(&self) -> bool {
        self.received_at.is_some_and(|at| at > self.deadline_at)
    }

    pub(super) fn timeout_outcome(&self) -> (Verdict, String) {
        let dial = match (self.stage, self.host(), self.peer()) {
            (Stage::Resolving, Some(Host::Name(name)), _) => Some(text::lookup_timeout(name)),
            (_, _, Some(peer)) if self.reached == Reached::Nothing => Some(text::dial_timeout(&peer)),
            _ => None,
        };
        match (self.request(), dial) {
            (None, dial) => (Verdict::Failure, dial.unwrap_or_default()),
            (Some(_), None) if self.is_in_body() && self.then == Then::Free => {
                (Verdict::Errored, text::BODY_TIMEOUT.to_owned())
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
