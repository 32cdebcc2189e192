//! Runs that somebody else makes for the shard (gRPC): it keeps their time, and knows whether an outcome still counts.

use std::sync::Arc;
use std::time::Duration;

use super::{Shard, State};
use crate::engine::onces::Once;
use crate::model::id::{ProbeKey, Ticket};
use crate::model::probe::{CallId, Phases, ProbeEvent, RunResult, Target, Verdict};
use crate::model::time::Mono;
use crate::ring::Ring;

impl<R: Ring> Shard<R> {
    /// A call of the probe is due.
    pub(super) fn call(&mut self, key: ProbeKey, out: &mut Vec<ProbeEvent>) {
        let Some(entry) = self.targets.get_mut(key) else { return };
        entry.state = State::Called;
        out.push(ProbeEvent::CallDue {
            call: CallId::Probe { probe: key, generation: entry.generation },
            target: entry.target.clone(),
            timeout: entry.timeout,
            due: entry.due,
        });
    }

    /// The same outside any schedule.
    pub(super) fn call_once(
        &mut self,
        now: Mono,
        ticket: Ticket,
        target: Arc<Target>,
        timeout: Duration,
        out: &mut Vec<ProbeEvent>,
    ) {
        let once = Once { ticket, target: target.clone(), timeout, due: now, slot: None };
        out.push(match self.onces.add(once) {
            Some(_) => ProbeEvent::CallDue { call: CallId::Once { ticket }, target, timeout, due: now },
            None => errored(ticket, now, "too many one-shot probes at a time"),
        });
    }

    /// A call has ended. One that was cut, or of an older generation, changes nothing.
    pub(super) fn called(&mut self, now: Mono, call: CallId, result: RunResult, out: &mut Vec<ProbeEvent>) {
        match call {
            CallId::Probe { probe, generation } => {
                let entry = self.targets.current_mut(probe, generation);
                if entry.is_some_and(|entry| entry.state == State::Called) {
                    self.report_probe(now, probe, result, out);
                }
            }
            CallId::Once { ticket } => {
                if self.onces.take_called(ticket) {
                    self.io.counters.count(result.verdict);
                    out.push(ProbeEvent::OnceDone { ticket, outcome: result });
                }
            }
        }
    }

    /// Answers all one-shot probes and ends their runs.
    pub(super) fn stop_onces(&mut self, now: Mono, out: &mut Vec<ProbeEvent>) {
        for once in self.onces.drain() {
            let ticket = once.ticket;
            out.push(errored(ticket, now, "the probe engine is stopping"));
            if matches!(*once.target, Target::Grpc(_)) {
                out.push(ProbeEvent::CallCut { call: CallId::Once { ticket } });
            }
            if let Some(slot) = once.slot {
                self.abandon(now, slot, out);
            }
        }
    }
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
