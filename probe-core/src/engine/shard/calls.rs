//! Runs that somebody else makes for the shard (gRPC): it keeps their time, and knows whether an outcome still counts.

use super::{Shard, State};
use crate::engine::onces::Once;
use crate::engine::places::Holder;
use crate::engine::stats::{self, LATE_START};
use crate::engine::targets::{Entry, Job};
use crate::model::id::{ProbeKey, Ticket};
use crate::model::probe::{CallId, Phases, ProbeEvent, RunResult, Target, Verdict};
use crate::model::time::Mono;
use crate::ring::Ring;

impl<R: Ring> Shard<R> {
    /// A call of the probe is due: it begins when there is a place for it.
    pub(super) fn call(&mut self, key: ProbeKey) {
        let Some(entry) = self.targets.get_mut(key) else { return };
        entry.state = State::Queued;
        self.places.ask(holder(entry), Job::Probe { key, generation: entry.generation });
    }

    /// Begins due calls while there are places.
    pub(super) fn start_calls(&mut self, out: &mut Vec<ProbeEvent>) {
        while let Some((holder, job)) = self.places.take() {
            match self.start_call(job) {
                Some(event) => out.push(event),
                None => self.places.give_back(holder),
            }
        }
    }

    /// None for a call that nobody wants any more.
    fn start_call(&mut self, job: Job) -> Option<ProbeEvent> {
        match job {
            Job::Probe { key, generation } => {
                let entry = self.targets.current_mut(key, generation)?;
                if entry.state != State::Queued {
                    return None;
                }
                entry.state = State::Called;
                let (target, timeout, due) = (entry.target.clone(), entry.timeout(), entry.due);
                let call = CallId::Probe { probe: key, generation };
                Some(ProbeEvent::CallDue { call, target, timeout, due })
            }
            Job::Once { .. } => {
                let once = self.onces.get_mut(job)?;
                once.is_called = true;
                let call = CallId::Once { ticket: once.ticket };
                let (target, timeout, due) = (once.target.clone(), once.timeout, once.due);
                Some(ProbeEvent::CallDue { call, target, timeout, due })
            }
        }
    }

    /// A call has ended. One that was cut, or of an older generation, changes nothing.
    pub(super) fn called(&mut self, now: Mono, call: CallId, result: RunResult, out: &mut Vec<ProbeEvent>) {
        match call {
            CallId::Probe { probe, generation } => {
                let entry = self.targets.current_mut(probe, generation);
                let Some(entry) = entry.filter(|entry| entry.state == State::Called) else { return };
                self.places.give_back(holder(entry));
                self.note_called(&result.phases);
                self.report_probe(now, probe, result, out);
            }
            CallId::Once { ticket } => {
                if self.onces.take_called(ticket).is_some() {
                    self.places.give_back(Holder::Onces);
                    self.note_called(&result.phases);
                    self.io.counters.count(result.verdict);
                    out.push(ProbeEvent::OnceDone { ticket, outcome: result });
                }
            }
        }
    }

    /// Counts how late the call began: it has waited for a place, and for the thread that makes it.
    fn note_called(&mut self, phases: &Phases) {
        let Some(submitted) = phases.submitted else { return };
        let lateness = submitted.since(phases.due);
        stats::record(&mut self.lateness_us, lateness);
        self.io.counters.late_starts += u64::from(lateness > LATE_START);
    }

    /// Whoever asked for the one-shot probe has gone away.
    pub(super) fn cut_once(&mut self, now: Mono, ticket: Ticket, out: &mut Vec<ProbeEvent>) {
        if let Some((job, once)) = self.onces.take_ticket(ticket) {
            self.end_once(now, job, &once, out);
        }
    }

    /// Answers all one-shot probes and ends their runs.
    pub(super) fn stop_onces(&mut self, now: Mono, out: &mut Vec<ProbeEvent>) {
        for (job, once) in self.onces.drain() {
            out.push(errored(once.ticket, now, "the probe engine is stopping"));
            self.end_once(now, job, &once, out);
        }
    }

    /// Ends the run of a one-shot probe that was taken out, or its wait.
    fn end_once(&mut self, now: Mono, job: Job, once: &Once, out: &mut Vec<ProbeEvent>) {
        if let Some(slot) = once.slot {
            self.abandon(now, slot, out);
        } else if once.is_called {
            self.io.counters.abandoned += 1;
            out.push(ProbeEvent::CallCut { call: CallId::Once { ticket: once.ticket } });
            self.places.give_back(Holder::Onces);
        } else if matches!(*once.target, Target::Grpc(_)) {
            self.places.forget(Holder::Onces, job);
        } else {
            self.waiting_onces.retain(|waiting| *waiting != job);
        }
    }
}

/// Whose share of the places the probe's calls are part of.
pub(super) fn holder(entry: &Entry) -> Holder {
    Holder::Pod(entry.instance.pod)
}

/// Nobody wants the call of this generation any more.
pub(super) fn cut(probe: ProbeKey, generation: u32) -> ProbeEvent {
    ProbeEvent::CallCut { call: CallId::Probe { probe, generation } }
}

pub(super) fn errored(ticket: Ticket, now: Mono, error: &str) -> ProbeEvent {
    let phases = Phases { due: now, done: now, ..Phases::default() };
    let outcome = RunResult { verdict: Verdict::Errored, detail: Some(error.into()), phases };
    ProbeEvent::OnceDone { ticket, outcome }
}
