//! What silence of a target means: a failure, or that nobody can tell.
//!
//! A run and its target take turns. While the run owes the next step, each moment in which the shard did not run may be
//! what the target had too little of. Once everything is said, the kernel alone takes what comes: then a shard that
//! comes late, however often, hides nothing. Only a long absence says something still: that the machine may have been
//! away as a whole, target and all.

use std::time::Duration;

use super::io::Io;
use super::run::{Effects, Run};
use crate::model::limits::UNWATCHED_PARTS;
use crate::model::probe::Verdict;
use crate::model::time::Mono;
use crate::ring::Ring;

/// The target has the turn.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    /// What the shard has missed of this attempt until then.
    missed: Duration,
    /// [`super::watch::Absences::count`] at that moment.
    mark: u64,
}

impl Run {
    /// Everything is said: whatever is missing now is the target's to send.
    pub(super) fn has_asked<R: Ring>(&mut self, io: &Io<R>) {
        self.asked = Some(Asked { missed: self.missed(io), mark: io.watch.absences(self.timeout).count() });
    }

    /// What the shard has missed of this attempt.
    fn missed<R: Ring>(&self, io: &Io<R>) -> Duration {
        io.watch.absences(self.timeout).sum().saturating_sub(self.unwatched_before)
    }

    /// What of that may have kept the target from answering in time. What was missed after the deadline did not.
    fn excused<R: Ring>(&self, io: &Io<R>, now: Mono) -> Duration {
        let overdue = now.since(self.deadline_at);
        let Some(asked) = self.asked else { return self.missed(io).saturating_sub(overdue) };
        let since_asked = self.missed(io).saturating_sub(asked.missed).saturating_sub(overdue);
        let longest = io.watch.absences(self.timeout).longest_since(asked.mark).min(since_asked);
        // Many short ones add up to nothing: the target had all the time between them.
        if longest * UNWATCHED_PARTS < self.timeout { asked.missed } else { asked.missed + longest }
    }

    /// The attempt ends because nothing came, or the connection broke. That is the target's doing only if the
    /// shard was there: a request that it should have sent on and did not looks the same.
    pub(super) fn fell_silent<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        verdict: Verdict,
        text: String,
        effects: &mut Effects,
    ) {
        let excused = self.excused(io, now);
        if excused * UNWATCHED_PARTS < self.timeout {
            return self.finish(io, now, verdict, text, effects);
        }
        let missed_ms = self.missed(io).as_millis();
        let text = format!("{text}; not judged: the prober itself did not run for {missed_ms} ms of it");
        self.report(io, now, Verdict::Inconclusive, Some(text.into()), effects);
    }
}
