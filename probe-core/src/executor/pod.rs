//! What a shard remembers of one pod.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::probes::ProbeSlot;
use crate::decide::backoff::Backoff;
use crate::decide::view::{ContainerView, PodView, Record, RecordState, StartFailure};
use crate::decide::worker;
use crate::model::id::{ContainerId, ContainerIx, InstanceId};
use crate::model::pod::PodSpec;
use crate::model::probe::ProbeKind;
use crate::model::status::{Deletion, PodStatus};
use crate::model::time::{Mono, Now, Wall};

pub(super) struct Pod {
    pub(super) spec: Arc<PodSpec>,
    pub(super) start_time: Wall,
    /// In the order of `spec.containers`.
    pub(super) containers: Vec<Container>,
    /// Set from the delete command on.
    pub(super) deletion: Option<Deletion>,
    /// All containers are being stopped, in waves.
    pub(super) stop: Option<PodStop>,
    /// The pod must not run: it is shown as Failed and nothing is started.
    pub(super) rejected: Option<Rejected>,
    /// What was published last.
    pub(super) status: Option<PodStatus>,
    /// The manifest has changed since: the next sync publishes even an equal status.
    pub(super) has_new_manifest: bool,
}

/// What a message did to its pod.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Something changed that calls for a sync.
    Changed,
    /// It was current and changes nothing by itself.
    Nothing,
    /// It was about an instance or generation that is not current any more.
    Stale,
}

impl Effect {
    pub(super) fn of(changed: bool) -> Effect {
        if changed { Effect::Changed } else { Effect::Nothing }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub(super) reason: &'static str,
    pub(super) message: Box<str>,
}

/// A stop of the whole pod that is under way (kubelet-semantics 13, step 5).
#[derive(Copy, Clone, Debug)]
pub(super) struct PodStop {
    pub(super) since: Mono,
}

pub(super) struct Container {
    pub(super) newest: Option<Record>,
    pub(super) previous: Option<Record>,
    pub(super) life: Life,
    pub(super) probes: Vec<ProbeSlot>,
    pub(super) backoff: Backoff,
    pub(super) start_failure: Option<StartFailure>,
    /// No start before this moment: a back-off that was refused, or a start that failed.
    pub(super) not_before: Option<Mono>,
    /// The container is killed in order to be started again.
    pub(super) restart: Option<Restart>,
    /// The newest report of a child of the newest instance that was killed for memory.
    pub(super) last_child_oom: Option<Mono>,
    /// Why the newest instance is being killed, where its exit code would not tell: its termination message, if it
    /// leaves none of its own.
    pub(super) why_killed: Option<Box<str>>,
}

/// A start that was decided together with a kill (kubelet-semantics 14): it goes ahead whatever the exit
/// code is, and its back-off looks at the instance before the killed one.
#[derive(Copy, Clone, Debug)]
pub(super) struct Restart {
    pub(super) prev_finished_at: Option<Mono>,
}

/// Where the newest instance is, as far as the runtime has to do something about it.
#[derive(Clone, Debug)]
pub(super) enum Life {
    /// Nothing of any instance is left: a start may go.
    Idle,
    /// `Start` was sent.
    Starting {
        instance: InstanceId,
        container_id: ContainerId,
        /// Of the definition that was sent: a newer one may come before the container exists.
        spec_hash: u64,
    },
    /// Its process runs, the postStart hook has not ended; until then it is not shown as running.
    PostStart {
        pid: u32,
        at: Now,
        until: Option<Mono>,
    },
    Running,
    /// It is being stopped.
    Killing(Killing),
    /// Its main process has ended, or never was: `Cleanup` was sent.
    Ended {
        instance: InstanceId,
    },
}

#[derive(Copy, Clone, Debug)]
pub(super) struct Killing {
    /// The grace period, the preStop hook included.
    pub(super) grace_s: u32,
    pub(super) since: Mono,
    pub(super) stage: KillStage,
}

impl Killing {
    /// When the grace period ends, hook and stop together.
    pub(super) fn end(&self) -> Mono {
        self.since.after(Duration::from_secs(u64::from(self.grace_s)))
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum KillStage {
    /// The preStop hook runs, until it ends or this moment.
    PreStop { until: Mono },
    /// `Stop` was sent; everything left is killed at this moment.
    Stopping { until: Mono },
}

impl Pod {
    pub(super) fn new(spec: Arc<PodSpec>, context: &mut Context) -> Pod {
        let mut containers: Vec<Container> = spec.containers.iter().map(|_| Container::new()).collect();
        for (ix, kind) in worker::workers_of(&spec) {
            containers[ix.at()].probes.extend(ProbeSlot::new(&spec, ix, kind, context));
        }
        Pod {
            spec,
            start_time: context.now.wall,
            containers,
            deletion: None,
            stop: None,
            rejected: None,
            status: None,
            has_new_manifest: false,
        }
    }

    /// Runs `decide` on the pod as it is now.
    pub(super) fn with_view<T>(&self, decide: impl FnOnce(&PodView<'_>) -> T) -> T {
        let views: Vec<ContainerView<'_>> = self.containers.iter().map(Container::view).collect();
        decide(&PodView { spec: &self.spec, deleting: self.deletion.is_some(), containers: &views })
    }

    /// The id of the newest instance that was created or is being created.
    pub(super) fn current_instance(&self, container: ContainerIx) -> Option<InstanceId> {
        let container = self.containers.get(container.at())?;
        match &container.life {
            Life::Starting { instance, .. } | Life::Ended { instance } => Some(*instance),
            Life::Idle | Life::PostStart { .. } | Life::Running | Life::Killing(_) => {
                container.newest.as_ref().map(|record| record.instance)
            }
        }
    }

    /// Nothing of any container is left.
    pub(super) fn is_over(&self) -> bool {
        self.containers.iter().all(|container| matches!(container.life, Life::Idle))
    }
}

impl Container {
    fn new() -> Container {
        Container {
            newest: None,
            previous: None,
            life: Life::Idle,
            probes: Vec::new(),
            backoff: Backoff::NEW,
            start_failure: None,
            not_before: None,
            restart: None,
            last_child_oom: None,
            why_killed: None,
        }
    }

    /// The container as the decisions see it.
    pub(super) fn view(&self) -> ContainerView<'_> {
        let result = |kind: ProbeKind| {
            let instance = self.newest.as_ref()?.instance;
            self.probe(kind)?.worker.result(instance)
        };
        ContainerView {
            newest: self.newest.as_ref(),
            previous: self.previous.as_ref(),
            startup: result(ProbeKind::Startup),
            readiness: result(ProbeKind::Readiness),
            liveness: result(ProbeKind::Liveness),
            start_failure: self.start_failure.as_ref(),
        }
    }

    pub(super) fn probe(&self, kind: ProbeKind) -> Option<&ProbeSlot> {
        self.probes.iter().find(|slot| slot.worker.kind() == kind)
    }

    pub(super) fn probe_mut(&mut self, kind: ProbeKind) -> Option<&mut ProbeSlot> {
        self.probes.iter_mut().find(|slot| slot.worker.kind() == kind)
    }

    /// Its main process runs, hook or not, and no kill is under way.
    pub(super) fn can_be_killed(&self) -> bool {
        matches!(self.life, Life::PostStart { .. } | Life::Running)
    }

    /// When the newest instance ended, if it did: the `prev` of the back-off.
    pub(super) fn finished_at(&self) -> Option<Mono> {
        self.newest.as_ref().and_then(Record::finished_at)
    }

    /// The instance of the newest record, while its process runs.
    pub(super) fn running_instance(&self) -> Option<InstanceId> {
        let record = self.newest.as_ref()?;
        matches!(record.state, RecordState::Running { .. }).then_some(record.instance)
    }
}
