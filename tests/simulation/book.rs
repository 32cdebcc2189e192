//! What the observer has written down about each pod, from the messages that passed by. Nothing in here asks
//! the code under test; rules are those of kubelet-semantics, written a second time.

use std::sync::Arc;
use std::time::Duration;

use probe_core::model::id::InstanceId;
use probe_core::model::pod::{ContainerSpec, PodSpec, RestartPolicy, Role};
use probe_core::model::probe::{ProbeKind, ProbeSpec};
use probe_core::model::status::{Phase, PodStatus};
use probe_core::model::time::Mono;

use super::plan::PodPlan;
use super::waits::Waits;

pub struct PodBook {
    pub plan: Arc<PodPlan>,
    pub spec: Arc<PodSpec>,
    pub deletion: Option<DeletionBook>,
    pub is_rejected: bool,
    /// It stops all its containers though nobody has deleted it.
    pub stops_itself: bool,
    /// Initialisation was complete once.
    pub initialized: bool,
    pub containers: Vec<ContainerBook>,
    pub status: Option<PodStatus>,
}

#[derive(Copy, Clone)]
pub struct DeletionBook {
    pub at: Mono,
    pub grace_s: u32,
}

pub struct ContainerBook {
    /// The newest instance that was created.
    pub newest: Option<Run>,
    pub previous_ended: Option<Mono>,
    /// The instance that `Start` was last sent for, until it is gone.
    pub attempt: Option<(InstanceId, Attempt)>,
    /// Hash of the definition that this `Start` carried.
    pub sent_hash: u64,
    pub idle_since: Mono,
    /// Nothing but back-off has kept it from being started since.
    pub could_start_since: Option<Mono>,
    /// A start that failed before anything was created.
    pub failed_at: Option<Mono>,
    pub waits: Waits,
    pub kill: Option<Kill>,
    /// This instance is to be stopped since a process of its pod was killed for memory.
    pub dies_of_oom: Option<InstanceId>,
    pub last_child_oom: Option<Mono>,
    /// A start that belongs to a kill has not been tried yet: its back-off looks at this end.
    pub restart: Option<Option<Mono>>,
    /// The step of the back-off that was refused last, and when.
    pub refused: Option<(Mono, Duration)>,
    /// It was started (its startup probe passed) once: the next init container may go.
    pub passed: bool,
    pub probes: [Option<ProbeBook>; 3],
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Attempt {
    Sent,
    Running,
    Ended,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub instance: InstanceId,
    pub spec_hash: u64,
    pub started_at: Option<Mono>,
    pub ended: Option<(Mono, i32)>,
}

impl Run {
    pub fn is_running(&self) -> bool {
        self.started_at.is_some() && self.ended.is_none()
    }
}

#[derive(Clone, Debug)]
pub struct Kill {
    pub instance: InstanceId,
    pub at: Mono,
    pub cause: Cause,
    pub is_stopped: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    Liveness,
    Startup,
    Definition,
    PodStops,
    PostStart,
    ChildOom,
}

/// One probe, counted a second time.
#[derive(Clone, Debug)]
pub struct ProbeBook {
    pub kind: ProbeKind,
    pub armed: Option<ArmedBook>,
    pub exec_attempt: Option<u32>,
    last: Option<bool>,
    run: u32,
    /// The result that counts, for the newest instance.
    pub result: Option<bool>,
    pub result_since: Mono,
    pub on_hold: bool,
    /// Runs in a row when the failure threshold was reached.
    pub failed_after: Option<u32>,
    /// Runs in a row that could not be judged.
    pub inconclusive: u32,
}

#[derive(Copy, Clone, Debug)]
pub struct ArmedBook {
    pub generation: u32,
    pub instance: InstanceId,
    pub since: Mono,
    pub first_due: Mono,
}

impl PodBook {
    pub fn new(plan: Arc<PodPlan>, spec: Arc<PodSpec>, now: Mono) -> PodBook {
        let containers = spec.containers.iter().map(|spec| ContainerBook::new(spec, now)).collect();
        PodBook {
            plan,
            spec,
            deletion: None,
            is_rejected: false,
            stops_itself: false,
            initialized: false,
            containers,
            status: None,
        }
    }

    pub fn is_finished(&self) -> bool {
        let phase = self.status.as_ref().map(|status| status.phase);
        matches!(phase, Some(Phase::Succeeded | Phase::Failed))
    }

    /// Whether the container would be started (again) if nothing of it runs, back-off apart.
    pub fn wants(&self, at: usize) -> bool {
        if self.deletion.is_some() || self.is_rejected {
            return false;
        }
        let container = &self.containers[at];
        let Some(newest) = &container.newest else { return true };
        let Some((_, code)) = newest.ended else { return false };
        match (self.spec.containers[at].role, self.spec.restart_policy) {
            (Role::Sidecar, _) => true,
            (Role::Init, policy) => code != 0 && policy != RestartPolicy::Never,
            (Role::Regular, RestartPolicy::Always) => true,
            (Role::Regular, RestartPolicy::OnFailure) => code != 0,
            (Role::Regular, RestartPolicy::Never) => false,
        }
    }

    /// Whether everything that has to come before container `at` is done.
    pub fn is_its_turn(&self, at: usize) -> bool {
        let role = self.spec.containers[at].role;
        if self.initialized && role != Role::Init {
            return true;
        }
        let before = if role == Role::Regular { self.spec.containers.len() } else { at };
        self.spec.containers[..before].iter().zip(&self.containers).all(|(spec, container)| match spec.role {
            Role::Init => container.newest.as_ref().and_then(|run| run.ended).is_some_and(|(_, c)| c == 0),
            Role::Sidecar => container.passed,
            Role::Regular => true,
        })
    }

    /// The pod is to be stopped by itself: nothing regular runs on and nothing is started again, or its
    /// initialisation has failed for good.
    pub fn is_over(&self) -> bool {
        let never = self.spec.restart_policy == RestartPolicy::Never;
        let mut all = self.spec.containers.iter().zip(&self.containers).enumerate();
        let init_failed = all.clone().any(|(_, (spec, container))| {
            let code = container.newest.as_ref().and_then(|run| run.ended).map(|(_, code)| code);
            spec.role == Role::Init && never && code.is_some_and(|code| code != 0)
        });
        init_failed
            || all.all(|(at, (spec, container))| {
                let failed = |kind: ProbeKind| {
                    container.probes[kind as usize].as_ref().is_some_and(|it| it.failed_after.is_some())
                };
                let dies = never && (failed(ProbeKind::Liveness) || failed(ProbeKind::Startup));
                let runs = container.newest.as_ref().is_some_and(|run| run.ended.is_none());
                spec.role != Role::Regular || if runs { dies } else { !self.wants(at) }
            })
    }
}

impl ContainerBook {
    fn new(spec: &ContainerSpec, now: Mono) -> ContainerBook {
        let probes = ProbeKind::ALL.map(|kind| spec.probe(kind).map(|_| ProbeBook::new(kind)));
        ContainerBook {
            newest: None,
            previous_ended: None,
            attempt: None,
            sent_hash: spec.spec_hash,
            idle_since: now,
            could_start_since: None,
            failed_at: None,
            waits: Waits::NONE,
            kill: None,
            dies_of_oom: None,
            last_child_oom: None,
            restart: None,
            refused: None,
            passed: false,
            probes: if spec.role == Role::Init { [None, None, None] } else { probes },
        }
    }

    /// The newest instance, while its process runs.
    pub fn running(&self) -> Option<InstanceId> {
        self.newest.as_ref().filter(|run| run.is_running()).map(|run| run.instance)
    }

    pub fn result(&self, kind: ProbeKind) -> Option<bool> {
        self.probes[kind as usize].as_ref().and_then(|probe| probe.result)
    }

    /// It runs, and its startup probe (if any) has passed.
    pub fn is_started(&self) -> bool {
        let has_startup = self.probes[ProbeKind::Startup as usize].is_some();
        self.running().is_some() && (!has_startup || self.result(ProbeKind::Startup) == Some(true))
    }

    /// The pod is being deleted: the workers that could kill end, and what they say last is success
    /// (kubelet-semantics 10.3, step 7).
    pub fn stop_workers(&mut self) {
        if self.running().is_none() {
            return;
        }
        for kind in [ProbeKind::Startup, ProbeKind::Liveness] {
            if let Some(probe) = self.probes[kind as usize].as_mut().filter(|probe| !probe.on_hold) {
                probe.result = Some(true);
            }
        }
    }

    /// The kill of the newest instance.
    pub fn current_kill(&self) -> Option<&Kill> {
        let newest = self.newest.as_ref()?;
        self.kill.as_ref().filter(|kill| kill.instance == newest.instance)
    }
}

impl ProbeBook {
    pub fn new(kind: ProbeKind) -> ProbeBook {
        ProbeBook {
            kind,
            armed: None,
            exec_attempt: None,
            last: None,
            run: 0,
            result: None,
            result_since: Mono::ZERO,
            on_hold: false,
            failed_after: None,
            inconclusive: 0,
        }
    }

    /// A new instance: the result goes, the row stays (kubelet-semantics 10.5).
    pub fn bind(&mut self) {
        self.result = None;
        self.on_hold = false;
        self.failed_after = None;
    }

    /// `runs` equal results in a row.
    pub fn count(&mut self, passed: bool, runs: u32, spec: &ProbeSpec, now: Mono) {
        if self.on_hold {
            return;
        }
        self.run = if self.last == Some(passed) { self.run + runs } else { runs };
        self.last = Some(passed);
        let threshold = if passed { spec.success_threshold } else { spec.failure_threshold };
        if self.run < threshold {
            return;
        }
        if self.result != Some(passed) {
            self.result_since = now;
        }
        self.result = Some(passed);
        if !passed {
            self.failed_after = Some(self.run);
        }
        if self.kind == ProbeKind::Startup || self.kind == ProbeKind::Liveness && !passed {
            self.on_hold = true;
            self.run = 0;
        }
    }
}
