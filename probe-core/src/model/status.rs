//! Pod and container status as the API shows it (kubelet-semantics 11, 15).

use std::borrow::Cow;
use std::sync::Arc;

use super::id::ContainerId;
use super::pod::{PodSpec, Role};
use super::time::Wall;

/// Everything the API needs to show one pod. A new one is published whenever something visible changed.
#[derive(Clone, Debug)]
pub struct PodSnapshot {
    pub spec: Arc<PodSpec>,
    pub status: PodStatus,
}

/// Status of a pod, as the API shows it (kubelet-semantics 15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodStatus {
    pub phase: Phase,
    /// Pod-level reason and message, for example `NodePorts`.
    pub reason: Option<Cow<'static, str>>,
    pub message: Option<Box<str>>,
    pub conditions: Vec<Condition>,
    /// When the agent accepted the pod: `status.startTime` and `metadata.creationTimestamp`.
    pub start_time: Wall,
    /// Set while the pod is being deleted.
    pub deletion: Option<Deletion>,
    /// In the order of `PodSpec::containers`.
    pub containers: Vec<ContainerStatus>,
}

/// A delete that is under way.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// `deletionTimestamp`: when the grace period ends.
    pub at: Wall,
    pub grace_s: u32,
}

/// `status.phase` (kubelet-semantics 15).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    /// As the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

/// One entry of `status.conditions`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// `PodScheduled`, `Initialized`, `ContainersReady`, `Ready`.
    pub kind: &'static str,
    pub is_true: bool,
    pub reason: Option<&'static str>,
    pub message: Option<Box<str>>,
    pub last_transition: Wall,
}

/// One entry of `status.containerStatuses` or `status.initContainerStatuses`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerStatus {
    pub name: Box<str>,
    pub role: Role,
    pub image: Box<str>,
    /// None until the first instance was created.
    pub container_id: Option<ContainerId>,
    pub restart_count: u32,
    pub ready: bool,
    pub started: bool,
    pub state: ContainerState,
    pub last_state: Option<Terminated>,
    /// Pid of the running main process.
    pub pid: Option<u32>,
}

/// State of a container; exactly one of the three.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContainerState {
    Waiting { reason: Cow<'static, str>, message: Option<Box<str>> },
    Running { started_at: Wall },
    Terminated(Terminated),
}

/// How an instance ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terminated {
    pub exit_code: i32,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `StartError`, …
    pub reason: Cow<'static, str>,
    pub message: Option<Box<str>>,
    pub started_at: Wall,
    pub finished_at: Wall,
    pub container_id: ContainerId,
}
