//! Questions to the resolver and its answers, and who asks next: a run that holds a slot already, or the first one of a
//! probe. They take turns, so that a crowd of the one kind never keeps the other waiting.

use std::net::IpAddr;

use super::Shard;
use crate::engine::targets::Job;
use crate::model::id::Ticket;
use crate::model::probe::{LookupError, ProbeEvent};
use crate::model::time::Mono;
use crate::ring::{Ring, Slot};

/// Whose turn it is. The other kind asks where this one has nothing to ask.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Asks {
    /// A hop of a redirect, or a further attempt.
    Hop,
    /// A probe of a host name that is due.
    Begins,
}

/// Whose question had this ticket.
fn slot_of(ticket: Ticket) -> Slot {
    Slot { index: ticket.0 as u32, generation: (ticket.0 >> 32) as u32 }
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

    /// The question for the run on this slot, which the answer's ticket names.
    pub(super) fn question(&mut self, slot: Slot, host: Box<str>, until: Mono) -> ProbeEvent {
        let ticket = Ticket(u64::from(slot.generation) << 32 | u64::from(slot.index));
        let pod = match self.runs[slot.at()].as_ref().and_then(|run| run.owner) {
            Some(Job::Probe { key, .. }) => self.targets.get_mut(key).map(|entry| entry.instance.pod),
            Some(Job::Once { .. }) | None => None,
        };
        ProbeEvent::Resolve { ticket, host, until, pod }
    }

    /// Somebody looks the name up.
    pub(super) fn resolving(&mut self, now: Mono, ticket: Ticket, out: &mut Vec<ProbeEvent>) {
        self.with_run(now, slot_of(ticket), out, |run, io, _| run.resolving(io, now));
    }

    pub(super) fn resolved(
        &mut self,
        now: Mono,
        ticket: Ticket,
        addr: Result<IpAddr, LookupError>,
        out: &mut Vec<ProbeEvent>,
    ) {
        self.with_run(now, slot_of(ticket), out, |run, io, effects| run.resolved(io, now, addr, effects));
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
