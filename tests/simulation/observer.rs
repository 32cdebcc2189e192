//! Reads every message that goes into an executor or comes out of it, keeps books of its own, and fails at the
//! first one that the rules do not allow.

mod after_turn;
mod deadlines;
mod inputs;
mod outputs;
mod stops;

pub use deadlines::SCAN_EVERY;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use probe_core::model::event::Reason;
use probe_core::model::id::{InstanceId, PodUid, ProbeKey, Ticket};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::ProbeKind;
use probe_core::model::time::Mono;

use super::book::{ContainerBook, PodBook, ProbeBook};
use super::plan::{PodPlan, Weather};

pub struct Observer {
    pub pods: BTreeMap<PodUid, PodBook>,
    pub plans: BTreeMap<PodUid, Arc<PodPlan>>,
    pub weather: Weather,
    slack: Duration,
    keys: HashMap<ProbeKey, Owner>,
    generations: HashMap<ProbeKey, u32>,
    /// Exec runs of probes that are to be asked for in this turn, in order.
    to_ask: VecDeque<Asked>,
    asked: HashMap<(u16, Ticket), Asked>,
    /// Events of probe runs that this turn has to bring.
    expected: Vec<(PodUid, usize, Reason, String)>,
    /// Exec runs of probes that this turn has to report as ended.
    exec_ended: Vec<(ProbeKey, u32)>,
    /// Tickets of people who wait for a run.
    questions: BTreeSet<Ticket>,
    touched: BTreeSet<PodUid>,
    shown: BTreeSet<PodUid>,
    /// Instances whose end is among the inputs of this turn.
    ended_now: BTreeSet<InstanceId>,
    pub counts: Counts,
}

/// What a seed has seen: a simulation in which nothing happens proves nothing.
#[derive(Copy, Clone, Default, Debug)]
pub struct Counts {
    pub starts: u64,
    pub runs: u64,
    pub failures: u64,
    pub liveness_kills: u64,
    pub startup_kills: u64,
    pub refusals: u64,
    pub stale: u64,
    pub deletions: u64,
    pub child_ooms: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    pub pod: PodUid,
    pub container: usize,
    pub kind: ProbeKind,
}

/// An exec run that was asked for.
#[derive(Copy, Clone, Debug)]
enum Asked {
    Probe {
        key: ProbeKey,
        generation: u32,
        instance: InstanceId,
        attempt: u32,
    },
    /// Somebody wants to know; it counts for nothing.
    Now,
}

/// Ends the seed: `rule` is broken.
pub fn broken(rule: &str, what: impl std::fmt::Display) -> ! {
    panic!("{rule}: {what}")
}

impl Observer {
    pub fn new(weather: Weather) -> Observer {
        Observer {
            pods: BTreeMap::new(),
            plans: BTreeMap::new(),
            slack: weather.slack(),
            weather,
            keys: HashMap::new(),
            generations: HashMap::new(),
            to_ask: VecDeque::new(),
            asked: HashMap::new(),
            expected: Vec::new(),
            exec_ended: Vec::new(),
            questions: BTreeSet::new(),
            touched: BTreeSet::new(),
            shown: BTreeSet::new(),
            ended_now: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    fn add(&mut self, spec: Arc<PodSpec>, now: Mono) -> PodUid {
        let uid = spec.uid;
        let plan = Arc::clone(&self.plans[&uid]);
        self.pods.insert(uid, PodBook::new(plan, spec, now));
        uid
    }

    fn container(&mut self, instance: InstanceId) -> Option<&mut ContainerBook> {
        self.pods.get_mut(&instance.pod)?.containers.get_mut(instance.container.at())
    }

    fn probe(&mut self, owner: Owner) -> Option<&mut ProbeBook> {
        let container = self.pods.get_mut(&owner.pod)?.containers.get_mut(owner.container)?;
        container.probes[owner.kind as usize].as_mut()
    }

    /// Nobody is left waiting for an answer.
    pub fn assert_quiet(&self) {
        if !self.questions.is_empty() {
            broken("every question is answered", format_args!("{:?} are not", self.questions));
        }
        if let Some(uid) = self.pods.keys().next() {
            broken("every deleted pod ends", format_args!("{uid} is still there"));
        }
    }
}
