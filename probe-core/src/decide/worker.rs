//! The probe worker: thresholds, hold and gates of one probe of one container (kubelet-semantics 10).
//!
//! Kubelet runs a loop per probe. Here the loop is two questions: [`Worker::gate`] (may it run, and from
//! when?) is asked whenever the container's state changes, [`Worker::on_verdict`] takes what a run came to.

use std::time::Duration;

use super::view::ResultState;
use crate::model::id::{ContainerIx, InstanceId};
use crate::model::limits::INCONCLUSIVE_ROW;
use crate::model::pod::{PodSpec, RestartPolicy, Role};
use crate::model::probe::{ProbeKind, ProbeSpec, Verdict};
use crate::model::status::Phase;
use crate::model::time::Mono;

/// State of one probe. It lives as long as the pod and is bound to one instance after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Worker {
    kind: ProbeKind,
    initial_delay: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    resets_on_restart: bool,
    instance: Option<InstanceId>,
    /// The result cache's value for `instance`.
    cached: Option<ResultState>,
    /// Result of the last judged run; survives a new instance (10.5).
    last: Option<Judged>,
    /// Runs in a row with result `last`; survives a new instance, zeroed only by a hold.
    run: u32,
    /// Runs in a row that could not be judged because the engine did not run.
    inconclusive: u32,
    on_hold: bool,
}

/// Result of a run that could be judged.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Judged {
    Success,
    Failure,
}

/// Container and pod as the gate needs them.
#[derive(Copy, Clone, Debug)]
pub struct GateView {
    /// None while the pod has no status yet.
    pub phase: Option<Phase>,
    /// The pod has a deletion timestamp.
    pub deleting: bool,
    pub restart_policy: RestartPolicy,
    pub role: Role,
    /// None while the container has no instance.
    pub container: Option<Seen>,
}

/// The newest instance of the container.
#[derive(Copy, Clone, Debug)]
pub struct Seen {
    pub instance: InstanceId,
    pub state: SeenState,
    /// `started` of the container status ([`super::ready::started`]).
    pub started: bool,
}

/// The instance's process as the gate needs it.
#[derive(Copy, Clone, Debug)]
pub enum SeenState {
    /// It has an instance that neither runs nor has ended.
    Waiting,
    Running {
        started_at: Mono,
    },
    Terminated,
}

/// Whether the probe may run.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Gate {
    /// The worker ends; its cached result is removed with it ([`Worker::end`]).
    Stop,
    /// It does not run until something changes.
    Idle,
    /// It may run from this moment on (the end of the initial delay, possibly past).
    RunFrom(Mono),
}

/// What [`Worker::gate`] found.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Gated {
    pub gate: Gate,
    /// The cached result changed to this.
    pub update: Option<ResultState>,
}

/// Every worker that a pod gets: regular containers, then sidecars, in spec order; per container in the
/// order of [`ProbeKind::ALL`]. Ordinary init containers get none (10.1).
pub fn workers_of(spec: &PodSpec) -> Vec<(ContainerIx, ProbeKind)> {
    [Role::Regular, Role::Sidecar]
        .into_iter()
        .flat_map(|role| spec.indexed().filter(move |(_, container)| container.role == role))
        .flat_map(|(ix, container)| {
            let kinds = ProbeKind::ALL.into_iter().filter(|kind| container.probe(*kind).is_some());
            kinds.map(move |kind| (ix, kind))
        })
        .collect()
}

impl Worker {
    /// A worker that has seen no instance and no run.
    pub fn new(kind: ProbeKind, spec: &ProbeSpec) -> Worker {
        Worker {
            kind,
            initial_delay: Duration::from_secs(u64::from(spec.initial_delay_s)),
            success_threshold: spec.success_threshold.max(1),
            failure_threshold: spec.failure_threshold.max(1),
            resets_on_restart: spec.resets_on_restart,
            instance: None,
            cached: None,
            last: None,
            run: 0,
            inconclusive: 0,
            on_hold: false,
        }
    }

    /// Which probe of the container it is.
    pub fn kind(&self) -> ProbeKind {
        self.kind
    }

    /// The cached result for `instance`; None for any other instance than the bound one.
    pub fn result(&self, instance: InstanceId) -> Option<ResultState> {
        if self.instance == Some(instance) { self.cached } else { None }
    }

    /// The instance that it is bound to.
    pub fn instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// Whether it waits for a new instance (kubelet-semantics 10.3, step 15).
    pub fn on_hold(&self) -> bool {
        self.on_hold
    }

    /// Runs in a row with the same result; 0 after a hold.
    pub fn result_run(&self) -> u32 {
        self.run
    }

    /// Successes in a row that can still change something, for [`crate::model::probe::Arm`]: after any
    /// failure so many are needed, further ones may be folded.
    pub fn report_successes(&self) -> u32 {
        self.success_threshold
    }

    /// A new instance: the old one's result goes, the initial value is cached, a hold ends. The run and its
    /// result stay (10.3 step 4, 10.5), unless the annotation `reset-on-restart` says otherwise. The same instance again
    /// changes nothing.
    pub fn bind(&mut self, instance: InstanceId) -> Option<ResultState> {
        if self.instance == Some(instance) {
            return None;
        }
        self.instance = Some(instance);
        self.on_hold = false;
        self.cached = None;
        if self.resets_on_restart {
            (self.last, self.run) = (None, 0);
        }
        self.set(match self.kind {
            ProbeKind::Readiness => ResultState::Failure,
            ProbeKind::Liveness => ResultState::Success,
            ProbeKind::Startup => ResultState::Unknown,
        })
    }

    /// Steps 1 to 9 of 10.3, in that order.
    pub fn gate(&mut self, view: &GateView) -> Gated {
        match view.phase {
            None => return Gated { gate: Gate::Idle, update: None },
            Some(Phase::Failed | Phase::Succeeded) => return Gated { gate: Gate::Stop, update: None },
            Some(Phase::Pending | Phase::Running) => {}
        }
        let Some(seen) = view.container else { return Gated { gate: Gate::Idle, update: None } };
        let bound = self.bind(seen.instance);
        if self.on_hold {
            return Gated { gate: Gate::Idle, update: bound };
        }
        let (gate, update) = match seen.state {
            SeenState::Waiting => (Gate::Idle, self.set(ResultState::Failure)),
            SeenState::Terminated => {
                let restarts = view.restart_policy != RestartPolicy::Never || view.role == Role::Sidecar;
                let gate = if restarts { Gate::Idle } else { Gate::Stop };
                (gate, self.set(ResultState::Failure))
            }
            SeenState::Running { .. } if view.deleting && self.kind != ProbeKind::Readiness => {
                (Gate::Stop, self.set(ResultState::Success))
            }
            SeenState::Running { started_at } => (self.gate_running(started_at, seen.started), None),
        };
        Gated { gate, update: update.or(bound) }
    }

    /// Steps 8 and 9. Whole seconds since the start reach the delay exactly when the time itself does.
    fn gate_running(&self, started_at: Mono, started: bool) -> Gate {
        let is_startup = self.kind == ProbeKind::Startup;
        if started == is_startup {
            return Gate::Idle;
        }
        Gate::RunFrom(started_at.after(self.initial_delay))
    }

    /// Steps 10 to 15 for one finished run. Returns the cached result if it changed.
    ///
    /// An errored or inconclusive run moves nothing. A run that ends while the worker holds, or before it was bound, is
    /// too late to count.
    pub fn on_verdict(&mut self, verdict: Verdict) -> Option<ResultState> {
        self.inconclusive =
            if verdict == Verdict::Inconclusive { self.inconclusive.saturating_add(1) } else { 0 };
        match verdict {
            Verdict::Errored | Verdict::Inconclusive => None,
            Verdict::Success | Verdict::Warning => self.count(Judged::Success, 1),
            Verdict::Failure => self.count(Judged::Failure, 1),
        }
    }

    /// Successes that the engine kept back, all older than the outcome that carries them.
    pub fn on_folded(&mut self, successes: u32) -> Option<ResultState> {
        if successes == 0 {
            return None;
        }
        self.inconclusive = 0;
        self.count(Judged::Success, successes)
    }

    /// Runs in a row up to now that nobody could judge, where their number calls for an event: the tenth, the
    /// twentieth and so on. Nothing else follows from them: the starved node may be the reason for everything.
    pub fn inconclusive_row(&self) -> Option<u32> {
        let row = self.inconclusive;
        (row > 0 && row.is_multiple_of(INCONCLUSIVE_ROW)).then_some(row)
    }

    /// The worker ends (stopped, or its pod is gone): its cached result goes with it.
    pub fn end(&mut self) {
        self.instance = None;
        self.cached = None;
    }

    fn count(&mut self, judged: Judged, runs: u32) -> Option<ResultState> {
        if self.on_hold || self.instance.is_none() {
            return None;
        }
        self.run = if self.last == Some(judged) { self.run.saturating_add(runs) } else { runs };
        self.last = Some(judged);
        let (threshold, result) = match judged {
            Judged::Success => (self.success_threshold, ResultState::Success),
            Judged::Failure => (self.failure_threshold, ResultState::Failure),
        };
        if self.run < threshold {
            return None;
        }
        let update = self.set(result);
        let holds = match self.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => judged == Judged::Failure,
            ProbeKind::Readiness => false,
        };
        if holds {
            self.on_hold = true;
            self.run = 0;
        }
        update
    }

    /// The result cache's `set`: an equal value is no update (9).
    fn set(&mut self, result: ResultState) -> Option<ResultState> {
        let changed = self.cached != Some(result);
        self.cached = Some(result);
        changed.then_some(result)
    }
}
