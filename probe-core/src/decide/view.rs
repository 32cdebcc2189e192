//! What the decisions look at: a pod's containers, their records and their cached probe results.

use crate::model::id::{ContainerId, ContainerIx, InstanceId};
use crate::model::pod::{ContainerSpec, PodSpec};
use crate::model::status::Terminated;
use crate::model::time::{Mono, Now};

/// A cached probe result (kubelet-semantics 9).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ResultState {
    Unknown,
    Success,
    Failure,
}

/// One instance of a container, as the runtime last reported it. The executor keeps the newest and the
/// one before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub instance: InstanceId,
    pub container_id: ContainerId,
    /// [`ContainerSpec::spec_hash`] that the instance was made from.
    pub spec_hash: u64,
    pub state: RecordState,
}

/// What is known of an instance's process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordState {
    Created,
    Running {
        pid: u32,
        started_at: Now,
    },
    Exited {
        /// As the API shows it; `status::terminated` and `status::start_failed` make it.
        terminated: Terminated,
        /// The same end, for back-off arithmetic.
        finished_at: Mono,
    },
    /// The runtime cannot say whether it runs.
    Unknown,
}

impl Record {
    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, RecordState::Running { .. })
    }

    /// The exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match &self.state {
            RecordState::Exited { terminated, .. } => Some(terminated.exit_code),
            RecordState::Created | RecordState::Running { .. } | RecordState::Unknown => None,
        }
    }

    /// When it ended, once it has: the `prev` of the back-off (kubelet-semantics 14).
    pub fn finished_at(&self) -> Option<Mono> {
        match &self.state {
            RecordState::Exited { finished_at, .. } => Some(*finished_at),
            RecordState::Created | RecordState::Running { .. } | RecordState::Unknown => None,
        }
    }
}

/// The last start attempt failed or was refused (kubelet's reason cache): set by every failed start,
/// removed by a successful one (kubelet-semantics 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartFailure {
    /// `CrashLoopBackOff`, `RunContainerError`, …: [`super::messages`] has them.
    pub reason: &'static str,
    pub message: Box<str>,
}

/// One container as the decisions see it. The cached results belong to the newest record: a result of an
/// older instance is None here.
#[derive(Copy, Clone, Debug)]
pub struct ContainerView<'a> {
    pub newest: Option<&'a Record>,
    pub previous: Option<&'a Record>,
    /// None without a worker, or before its first result.
    pub startup: Option<ResultState>,
    pub readiness: Option<ResultState>,
    pub liveness: Option<ResultState>,
    pub start_failure: Option<&'a StartFailure>,
}

impl ContainerView<'_> {
    /// A container of which nothing is known yet.
    pub const ABSENT: ContainerView<'static> = ContainerView {
        newest: None,
        previous: None,
        startup: None,
        readiness: None,
        liveness: None,
        start_failure: None,
    };

    /// Whether the process of the newest instance runs.
    pub fn is_running(&self) -> bool {
        self.newest.is_some_and(Record::is_running)
    }
}

/// A pod as the decisions see it.
#[derive(Copy, Clone, Debug)]
pub struct PodView<'a> {
    pub spec: &'a PodSpec,
    /// The pod has a deletion timestamp.
    pub deleting: bool,
    /// In the order of `spec.containers`, as many as there.
    pub containers: &'a [ContainerView<'a>],
}

impl<'a> PodView<'a> {
    /// Every container with its spec and its view.
    pub fn indexed(
        &self,
    ) -> impl DoubleEndedIterator<Item = (ContainerIx, &'a ContainerSpec, ContainerView<'a>)> {
        let specs: &'a [ContainerSpec] = &self.spec.containers;
        let views = self.containers;
        let len = specs.len().min(views.len());
        (0..len).map(move |at| (ContainerIx(u16::try_from(at).unwrap_or(u16::MAX)), &specs[at], views[at]))
    }
}
