//! The engine threads, and the way of their events: outcomes to the executor that owns the probe,
//! look-ups to the resolver, gRPC calls to their thread.

use std::sync::{Arc, OnceLock};

use probe_core::engine::{Clocks, Engine, EngineError, Inbox};
use probe_core::executor::Input;
use probe_core::model::limits::ENGINE_SLOTS_DEFAULT;
use probe_core::model::probe::{ProbeCmd, ProbeEvent};
use probe_core::ring::{RingKind, RingOptions};
use probe_core::sys::clock;

use super::executors::{Executors, local_ticket};
use super::resolver::{Question, Resolver};
use crate::grpc::{Call, CallDoor, Order};

/// Starts engine number `n`: a thread with a ring of its own, of this kind.
///
/// # Errors
/// The ring is refused (with the cure), or the thread.
pub fn start(
    n: u16,
    ring: RingKind,
    executors: Executors,
    resolver: Resolver,
    calls: CallDoor,
) -> Result<Engine, EngineError> {
    // The thread needs its own inbox, for the resolver's answers, before it can have one.
    let inbox = Arc::new(OnceLock::<Inbox>::new());
    let routes = EventRoutes { executors, resolver, calls, inbox: Arc::clone(&inbox) };
    let options = RingOptions::best(ring, ENGINE_SLOTS_DEFAULT);
    let clocks = Clocks { now: clock::now, boot_ns: clock::boot_ns };
    let deliver = move |events: &mut Vec<ProbeEvent>| routes.deliver(events);
    let engine = Engine::start(&format!("engine-{n}"), options, clocks, deliver)?;
    // Nothing else sets it, so it cannot be set already.
    let _ = inbox.set(engine.inbox());
    Ok(engine)
}

/// Where one engine's events go.
struct EventRoutes {
    executors: Executors,
    resolver: Resolver,
    calls: CallDoor,
    inbox: Arc<OnceLock<Inbox>>,
}

impl EventRoutes {
    /// Hands over what one turn of the engine brought. May wait for an executor or for the thread of gRPC calls.
    fn deliver(&self, events: &mut Vec<ProbeEvent>) {
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
                ProbeEvent::CallDue { call, target, timeout, due } => {
                    let inbox = Arc::clone(&self.inbox);
                    self.calls.give(Order::Call(Call { id: call, target, timeout, due, inbox }));
                }
                ProbeEvent::CallCut { call } => self.calls.give(Order::Cut(call)),
                ProbeEvent::Resolve { ticket, host, until, pod } => {
                    let inbox = Arc::clone(&self.inbox);
                    let answer_to = Box::new(move |answer| send(&inbox, answer));
                    self.resolver.ask(Question { ticket, host, until, pod, answer_to });
                }
            }
        }
    }

    fn to(&self, executor: u16, event: ProbeEvent) {
        // False only when the executors have ended, at the end of the agent: nobody is left to tell.
        let _ = self.executors.send_to(executor, Input::Probe(event));
    }
}

/// Hands what the resolver says to the engine that asked.
fn send(inbox: &OnceLock<Inbox>, answer: ProbeCmd) {
    let mut answers = vec![answer];
    if let Some(inbox) = inbox.get() {
        inbox.send(&mut answers);
    }
    // An answer that does not fit is dropped: the run ends by its own timeout.
}
