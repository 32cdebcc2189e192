//! What belongs to the shard as a whole: settings, random ids, tickets, timers, the probe table, and the
//! outputs of the turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::msg::Output;
use crate::decide::backoff::BackoffParams;
use crate::model::event::{PodEvent, Reason};
use crate::model::id::{ContainerId, ContainerIx, InstanceId, PodUid, ProbeKey, Ticket};
use crate::model::pod::PodSpec;
use crate::model::probe::ProbeKind;
use crate::model::runtime::{ExecResult, RuntimeCmd};
use crate::model::time::{Mono, Now};

/// How long a start that failed without leaving a record waits for its next attempt: kubelet's
/// `backOffPeriod` of a pod whose sync failed.
pub(super) const FAILED_SYNC_RETRY: Duration = Duration::from_secs(10);

/// Settings of one shard.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The number of this shard: `ProbeKey::executor` of its probes.
    pub executor: u16,
    /// Pod IP of every pod: containers of the process runtime share the host's network.
    pub pod_ip: IpAddr,
    pub backoff: BackoffParams,
    /// Seed of the container ids: random in production, fixed in a simulation.
    pub id_seed: [u64; 4],
}

/// Everything of a shard but its pods.
pub(super) struct Context {
    pub(super) config: ShardConfig,
    pub(super) now: Now,
    pub(super) out: Vec<Output>,
    pub(super) probes: ProbeTable,
    ids: IdSource,
    next_ticket: u64,
    asked: HashMap<Ticket, Question>,
    timers: BinaryHeap<Reverse<(Mono, PodUid)>>,
}

/// What an answer with a ticket is about.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// An exec run of a scheduled probe.
    Probe {
        instance: InstanceId,
        kind: ProbeKind,
        /// A changed definition gives the probe another key, whose generation may be the same number.
        key: ProbeKey,
        generation: u32,
    },
    PostStart {
        instance: InstanceId,
    },
    PreStop {
        instance: InstanceId,
    },
    /// Somebody asked for this run; `reply_to` is their own ticket.
    Now {
        instance: InstanceId,
        kind: ProbeKind,
        reply_to: Ticket,
        asked: Mono,
        /// An engine makes it, not the container runtime.
        is_engines: bool,
    },
}

impl Question {
    pub(super) fn instance(&self) -> InstanceId {
        match self {
            Question::Probe { instance, .. }
            | Question::PostStart { instance }
            | Question::PreStop { instance }
            | Question::Now { instance, .. } => *instance,
        }
    }
}

impl Context {
    pub(super) fn new(config: ShardConfig) -> Context {
        Context {
            now: Now::default(),
            out: Vec::new(),
            probes: ProbeTable::new(config.executor),
            ids: IdSource { state: config.id_seed },
            next_ticket: 0,
            asked: HashMap::new(),
            timers: BinaryHeap::new(),
            config,
        }
    }

    pub(super) fn new_container_id(&mut self) -> ContainerId {
        self.ids.container_id()
    }

    /// A ticket for a question, remembered until [`Context::answered`].
    pub(super) fn ask(&mut self, question: Question) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.asked.insert(ticket, question);
        ticket
    }

    /// What was asked under this ticket; None for an answer that comes twice.
    pub(super) fn answered(&mut self, ticket: Ticket) -> Option<Question> {
        self.asked.remove(&ticket)
    }

    /// Takes back the question of somebody who has gone away, and returns its ticket. None when it was answered, and
    /// for an exec run, which ends by itself.
    pub(super) fn forget_now(&mut self, reply: Ticket) -> Option<Ticket> {
        let is_it = |question: &Question| match question {
            Question::Now { reply_to, is_engines, .. } => *is_engines && *reply_to == reply,
            Question::Probe { .. } | Question::PostStart { .. } | Question::PreStop { .. } => false,
        };
        let ticket = self.asked.iter().find_map(|(ticket, question)| is_it(question).then_some(*ticket))?;
        self.asked.remove(&ticket);
        Some(ticket)
    }

    /// Questions that wait for an answer.
    pub(super) fn open_questions(&self) -> usize {
        self.asked.len()
    }

    /// Syncs the pod at this moment, or soon after.
    pub(super) fn wake_at(&mut self, at: Mono, pod: PodUid) {
        self.timers.push(Reverse((at, pod)));
    }

    /// The next pod whose timer is due.
    pub(super) fn take_due(&mut self) -> Option<PodUid> {
        let Reverse((at, _)) = self.timers.peek()?;
        if *at > self.now.mono {
            return None;
        }
        self.timers.pop().map(|Reverse((_, pod))| pod)
    }

    /// When the next timer is due.
    pub(super) fn next_wake(&self) -> Mono {
        self.timers.peek().map_or(Mono::MAX, |Reverse((at, _))| *at)
    }

    pub(super) fn runtime(&mut self, cmd: RuntimeCmd) {
        self.out.push(Output::Runtime(cmd));
    }

    /// An event about one container of the pod.
    pub(super) fn event(&mut self, pod: &PodSpec, container: ContainerIx, reason: Reason, message: String) {
        let about = pod.containers.get(container.at()).map(|spec| (spec.role, spec.name.clone()));
        self.pod_event(pod, about, reason, message);
    }

    /// An event about the pod, or about what `container` names.
    pub(super) fn pod_event(
        &mut self,
        pod: &PodSpec,
        container: Option<(crate::model::pod::Role, Box<str>)>,
        reason: Reason,
        message: String,
    ) {
        self.out.push(Output::Event(PodEvent {
            pod: pod.uid,
            namespace: pod.namespace.clone(),
            pod_name: pod.name.clone(),
            container,
            reason,
            message: message.into(),
            at: self.now,
        }));
    }
}

/// xoshiro256++: container ids need to be unique and replayable, not secret.
struct IdSource {
    state: [u64; 4],
}

impl IdSource {
    fn container_id(&mut self) -> ContainerId {
        let mut id = [0; 32];
        for chunk in id.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes());
        }
        ContainerId(id)
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }
}

/// Which worker a probe key belongs to. Generations go on growing when a place is used again, so an outcome
/// for its former owner never matches.
pub(super) struct ProbeTable {
    executor: u16,
    places: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    owner: Option<(PodUid, ContainerIx, ProbeKind)>,
    generation: u32,
}

impl ProbeTable {
    fn new(executor: u16) -> ProbeTable {
        ProbeTable { executor, places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, pod: PodUid, container: ContainerIx, kind: ProbeKind) -> ProbeKey {
        let owner = Some((pod, container, kind));
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index as usize].owner = owner;
                index
            }
            None => {
                self.places.push(Place { owner, generation: 0 });
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        ProbeKey { executor: self.executor, index }
    }

    pub(super) fn remove(&mut self, probe: ProbeKey) {
        if let Some(place) = self.places.get_mut(probe.index as usize)
            && place.owner.take().is_some()
        {
            self.free.push(probe.index);
        }
    }

    /// The next generation of a probe, for a new `Arm`.
    pub(super) fn next_generation(&mut self, probe: ProbeKey) -> u32 {
        match self.places.get_mut(probe.index as usize) {
            Some(place) => {
                place.generation = place.generation.wrapping_add(1);
                place.generation
            }
            None => 0,
        }
    }

    pub(super) fn owner(&self, probe: ProbeKey) -> Option<(PodUid, ContainerIx, ProbeKind)> {
        if probe.executor != self.executor {
            return None;
        }
        self.places.get(probe.index as usize)?.owner
    }

    /// Probes that have an owner.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

/// An exec answer, on its way to whoever asked.
pub(super) struct ExecAnswer {
    pub(super) question: Question,
    pub(super) result: ExecResult,
}
