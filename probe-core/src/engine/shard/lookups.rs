//! Who asks a resolver next: a run that holds a slot already, or the first one of a probe. They take turns, so that a
//! crowd of the one kind never keeps the other waiting.

use super::Shard;
use crate::model::probe::ProbeEvent;
use crate::model::time::Mono;
use crate::ring::Ring;

/// Whose turn it is. The other kind asks where this one has nothing to ask.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Asks {
    /// A hop of a redirect, or a further attempt.
    Hop,
    /// A probe of a host name that is due.
    Begins,
}

impl<R: Ring> Shard<R> {
    /// Has names looked up while there are places for that.
    pub(super) fn start_lookups(&mut self, now: Mono, out: &mut Vec<ProbeEvent>) {
        while self.io.may_resolve() {
            let is_begun = match self.asks_next {
                Asks::Hop => self.ask_for_hop(now, out) || self.ask_for_first(now, out),
                Asks::Begins => self.ask_for_first(now, out) || self.ask_for_hop(now, out),
            };
            if !is_begun {
                return;
            }
        }
    }

    /// False when none waits.
    fn ask_for_hop(&mut self, now: Mono, out: &mut Vec<ProbeEvent>) -> bool {
        let Some(slot) = self.io.unresolved.pop_front() else { return false };
        self.asks_next = Asks::Begins;
        self.with_run(now, slot, out, |run, io, effects| run.resolve_now(io, now, effects));
        true
    }

    /// False when none waits, or no slot is free.
    fn ask_for_first(&mut self, now: Mono, out: &mut Vec<ProbeEvent>) -> bool {
        let Some(job) = self.waiting_names.pop_front() else { return false };
        if !self.start(now, job, out) {
            self.waiting_names.push_front(job);
            return false;
        }
        self.asks_next = Asks::Hop;
        true
    }
}
