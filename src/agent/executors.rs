//! The executor threads: each calls the `turn` of its shard and carries the outputs to where they act.
//!
//! Queues are bounded, and who may wait for whom is fixed, so that no circle of full queues can lock up:
//! engines, runtime and sensor may wait for an executor; an executor never waits for them. What one of
//! them cannot take now stays with the [`Carrier`] and is offered again on the next turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use probe_core::engine::Inbox;
use probe_core::executor::{Input, Output, Shard};
use probe_core::model::id::{InstanceId, PodUid, ProbeKey, Ticket};
use probe_core::model::probe::{ProbeCmd, RunResult};
use probe_core::model::runtime::{RuntimeCmd, RuntimeEvent};
use probe_core::model::time::Mono;
use probe_core::sys::clock;

use crate::store::StoreUpdate;

/// Inputs handed to one turn: enough to make wake-ups cheap, few enough to keep a turn under a millisecond.
const TURN_INPUTS_MAX: usize = 1_024;
/// How soon a full queue is tried again.
const BACKLOG_RETRY: Duration = Duration::from_millis(1);

/// The inboxes of all executor shards; a pod's uid says which one owns it.
#[derive(Clone)]
pub struct Executors {
    inboxes: Arc<[Sender<Input>]>,
}

/// Whether a queue had room.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Handed {
    Over,
    Refused,
}

impl Executors {
    /// `inboxes[n]` feeds shard n.
    pub fn new(inboxes: Vec<Sender<Input>>) -> Executors {
        Executors { inboxes: inboxes.into() }
    }

    /// Hands over an input about `pod`. Waits while the shard's queue is full, so the control thread and
    /// the executors themselves must not call it; false when the shard has ended.
    pub fn send(&self, pod: PodUid, input: Input) -> bool {
        self.inboxes[self.shard_of(pod)].send(input).is_ok()
    }

    /// The same without waiting: a full queue refuses, and nothing has happened.
    pub fn try_send(&self, pod: PodUid, input: Input) -> Handed {
        match self.inboxes[self.shard_of(pod)].try_send(input) {
            Ok(()) => Handed::Over,
            Err(_) => Handed::Refused,
        }
    }

    /// Hands over to the shard with this number, which a probe's key or a ticket carries.
    pub fn send_to(&self, executor: u16, input: Input) -> bool {
        self.inboxes.get(usize::from(executor)).is_some_and(|inbox| inbox.send(input).is_ok())
    }

    fn shard_of(&self, pod: PodUid) -> usize {
        // Uids are random, so their low bits spread pods evenly.
        (pod.0 % self.inboxes.len() as u128) as usize
    }
}

/// Takes a command for the runtime, or gives it back when its queue is full.
pub type RuntimeDoor = Box<dyn Fn(RuntimeCmd) -> Result<(), RuntimeCmd> + Send>;
/// Takes the answer to a `ProbeNow`.
pub type ProbeNowDone = Box<dyn Fn(Ticket, Result<RunResult, Box<str>>) + Send>;

/// Where the outputs of a shard go.
pub struct Routes {
    pub executor: u16,
    pub engines: Vec<Inbox>,
    pub runtime: RuntimeDoor,
    pub store: tokio::sync::mpsc::Sender<StoreUpdate>,
    pub probe_now_done: ProbeNowDone,
}

/// Starts the thread of one shard. It ends when every sender of its inbox is gone.
///
/// # Errors
/// When the thread cannot be made.
pub fn start(shard: Shard, inbox: Receiver<Input>, routes: Routes) -> std::io::Result<JoinHandle<()>> {
    let name = format!("executor-{}", routes.executor);
    thread::Builder::new().name(name).spawn(move || run(shard, &inbox, routes))
}

fn run(mut shard: Shard, inbox: &Receiver<Input>, routes: Routes) {
    let mut carrier = Carrier::new(routes);
    let mut inputs = Vec::with_capacity(TURN_INPUTS_MAX);
    let mut outputs = Vec::new();
    let mut next = Mono::ZERO;
    loop {
        if carrier.has_backlog() {
            next = next.min(clock::now().mono.after(BACKLOG_RETRY));
        }
        let wait = next.since(clock::now().mono);
        match inbox.recv_timeout(wait) {
            Ok(input) => inputs.push(input),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        inputs.extend(inbox.try_iter().take(TURN_INPUTS_MAX - inputs.len()));
        let ends = ends_to_time(&inputs);
        next = shard.turn(clock::now(), &mut inputs, &mut outputs);
        say_decided(&ends);
        carrier.carry(&mut outputs);
    }
}

/// What `DEFIB_LOG=defib::decided=trace` shows: `cargo xtask bench sensor` reads it.
const DECIDED: &str = "defib::decided";

/// The ends among the inputs, when somebody measures.
fn ends_to_time(inputs: &[Input]) -> Vec<InstanceId> {
    if !tracing::enabled!(target: DECIDED, tracing::Level::TRACE) {
        return Vec::new();
    }
    let end = |input: &Input| match input {
        Input::Runtime(RuntimeEvent::Exited { instance, .. }) => Some(*instance),
        _ => None,
    };
    inputs.iter().filter_map(end).collect()
}

/// The turn is over: what follows from these ends is decided.
fn say_decided(ends: &[InstanceId]) {
    if ends.is_empty() {
        return;
    }
    let at_ns = clock::now().mono.as_ns();
    for InstanceId { pod, container, restart_count } in ends {
        tracing::trace!(target: DECIDED, %pod, container = container.0, restart_count, at_ns, "an end is decided");
    }
}

/// What a full queue could not take waits here, in order. It is bounded by what one shard can have
/// outstanding: a few commands per probe and container it owns.
struct Carrier {
    routes: Routes,
    engines: Vec<Vec<ProbeCmd>>,
    runtime: VecDeque<RuntimeCmd>,
}

impl Carrier {
    fn new(routes: Routes) -> Carrier {
        let engines = routes.engines.iter().map(|_| Vec::new()).collect();
        Carrier { routes, engines, runtime: VecDeque::new() }
    }

    fn has_backlog(&self) -> bool {
        !self.runtime.is_empty() || self.engines.iter().any(|backlog| !backlog.is_empty())
    }

    fn carry(&mut self, outputs: &mut Vec<Output>) {
        for output in outputs.drain(..) {
            match output {
                Output::Probe(cmd) => {
                    let (engine, cmd) = self.address(cmd);
                    self.engines[engine].push(cmd);
                }
                Output::Runtime(cmd) => self.runtime.push_back(cmd),
                Output::Event(event) => self.store(StoreUpdate::Event(event)),
                Output::Status(snapshot) => self.store(StoreUpdate::Status(snapshot)),
                Output::PodGone(pod) => self.store(StoreUpdate::PodGone(pod)),
                Output::ProbeNowDone { ticket, result } => (self.routes.probe_now_done)(ticket, result),
            }
        }
        while let Some(cmd) = self.runtime.pop_front() {
            if let Err(cmd) = (self.routes.runtime)(cmd) {
                self.runtime.push_front(cmd);
                break;
            }
        }
        for (backlog, engine) in self.engines.iter_mut().zip(&self.routes.engines) {
            if !backlog.is_empty() {
                engine.send(backlog);
            }
        }
    }

    /// Which engine a command goes to. Tickets are made unique over all executors on the way.
    fn address(&self, cmd: ProbeCmd) -> (usize, ProbeCmd) {
        let engines = self.engines.len();
        match cmd {
            ProbeCmd::Once { ticket, target, timeout } => {
                let engine = ticket.0 as usize % engines;
                let ticket = global_ticket(self.routes.executor, ticket);
                (engine, ProbeCmd::Once { ticket, target, timeout })
            }
            ProbeCmd::CutOnce { ticket } => {
                let engine = ticket.0 as usize % engines;
                (engine, ProbeCmd::CutOnce { ticket: global_ticket(self.routes.executor, ticket) })
            }
            ProbeCmd::Arm(arm) => (engine_of(arm.probe, engines), ProbeCmd::Arm(arm)),
            ProbeCmd::Hold { probe, generation } => {
                (engine_of(probe, engines), ProbeCmd::Hold { probe, generation })
            }
            ProbeCmd::Trigger { probe, generation } => {
                (engine_of(probe, engines), ProbeCmd::Trigger { probe, generation })
            }
            ProbeCmd::Drop { probe } => (engine_of(probe, engines), ProbeCmd::Drop { probe }),
            ProbeCmd::ExecDone { probe, generation, verdict, took } => {
                (engine_of(probe, engines), ProbeCmd::ExecDone { probe, generation, verdict, took })
            }
            // Answers of the resolver and of gRPC calls go to the engine that asked, never through an executor.
            answer @ (ProbeCmd::CallDone { .. } | ProbeCmd::Resolving { .. } | ProbeCmd::Resolved { .. }) => {
                (0, answer)
            }
        }
    }

    fn store(&self, update: StoreUpdate) {
        // The control thread never waits for an executor, so waiting for it here cannot lock up. It has
        // ended only when the whole agent is ending: nobody is left to show the update to.
        let _ = self.routes.store.blocking_send(update);
    }
}

/// The engine that owns a probe: a probe stays on one engine for its life.
fn engine_of(probe: ProbeKey, engines: usize) -> usize {
    (probe.index as usize + usize::from(probe.executor)) % engines
}

const TICKET_EXECUTOR_SHIFT: u32 = 48;

/// Puts the executor's number into the top 16 bits of its ticket.
fn global_ticket(executor: u16, ticket: Ticket) -> Ticket {
    Ticket(u64::from(executor) << TICKET_EXECUTOR_SHIFT | ticket.0)
}

/// The executor that gave out a global ticket, and the ticket as it knows it.
pub fn local_ticket(ticket: Ticket) -> (u16, Ticket) {
    let executor = (ticket.0 >> TICKET_EXECUTOR_SHIFT) as u16;
    (executor, Ticket(ticket.0 & ((1 << TICKET_EXECUTOR_SHIFT) - 1)))
}
