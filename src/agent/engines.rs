//! The engine threads, and the way of their events: outcomes to the executor that owns the probe,
//! look-ups to the resolver.

use std::sync::Arc;

use probe_core::executor::Input;
use probe_core::model::probe::{ProbeCmd, ProbeEvent};

use super::executors::{Executors, local_ticket};
use super::resolver::{Question, Resolver};

/// Where one engine's events go.
pub struct EventRoutes {
    pub executors: Executors,
    pub resolver: Resolver,
    /// The engine's own inbox, for the answers of the resolver.
    pub answer_to: Arc<dyn Fn(ProbeCmd) + Send + Sync>,
}

impl EventRoutes {
    /// Hands over what one turn of the engine brought. May wait for an executor.
    pub fn deliver(&self, events: &mut Vec<ProbeEvent>) {
        for event in events.drain(..) {
            match event {
                ProbeEvent::Outcome(outcome) => {
                    let executor = outcome.probe.executor;
                    self.to(executor, ProbeEvent::Outcome(outcome));
                }
                ProbeEvent::ExecDue { probe, generation, instance } => {
                    self.to(probe.executor, ProbeEvent::ExecDue { probe, generation, instance });
                }
                ProbeEvent::OnceDone { ticket, outcome } => {
                    let (executor, ticket) = local_ticket(ticket);
                    self.to(executor, ProbeEvent::OnceDone { ticket, outcome });
                }
                ProbeEvent::Resolve { ticket, host } => {
                    let answer_to = Arc::clone(&self.answer_to);
                    let answer_to = Box::new(move |answer| answer_to(answer));
                    self.resolver.ask(Question { ticket, host, answer_to });
                }
            }
        }
    }

    fn to(&self, executor: u16, event: ProbeEvent) {
        // False only when the executors have ended, at the end of the agent: nobody is left to tell.
        let _ = self.executors.send_to(executor, Input::Probe(event));
    }
}
