//! A pod as defib runs it: parsed, defaulted, valid, and reduced to what is honoured.

use std::path::PathBuf;
use std::sync::Arc;

use super::id::{ContainerIx, PodUid};
use super::probe::{ExecAction, HttpGetAction, ProbeKind, ProbeSpec};

/// A valid pod. Made only by `spec::load`, shared by reference from then on.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub uid: PodUid,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub restart_policy: RestartPolicy,
    /// `terminationGracePeriodSeconds`, 30 when absent.
    pub termination_grace_s: u32,
    /// Init containers (sidecars among them) in manifest order, then the regular ones. At most
    /// [`super::limits::POD_CONTAINERS_MAX`].
    pub containers: Vec<ContainerSpec>,
    /// Relative commands and working directories resolve against it: the manifest's folder.
    pub base_dir: PathBuf,
    /// `spec.hostname`, else the pod's name: `HOSTNAME` in the environment.
    pub hostname: Box<str>,
    /// `readinessGates` condition types: never true here, as nothing sets them yet.
    pub readiness_gates: Vec<Box<str>>,
    /// The defaulted manifest as compact JSON (metadata and spec), for the API to show.
    pub manifest_json: Arc<str>,
}

impl PodSpec {
    /// Every container with its index.
    pub fn indexed(&self) -> impl Iterator<Item = (ContainerIx, &ContainerSpec)> {
        (0u16..).map(ContainerIx).zip(&self.containers)
    }

    /// `<name>_<namespace>(<uid>)`: kubelet's way to name a pod in messages.
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// `restartPolicy` of the pod; a sidecar restarts under any of them.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// What a container is in its pod.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// `initContainers[]` without a restart policy: runs to completion, in order.
    Init,
    /// `initContainers[]` with `restartPolicy: Always`.
    Sidecar,
    Regular,
}

/// One container, defaulted and valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerSpec {
    pub name: Box<str>,
    pub role: Role,
    pub image: Box<str>,
    /// At least one element; `$(VAR)` not yet expanded.
    pub command: Vec<Box<str>>,
    pub args: Vec<Box<str>>,
    pub env: Vec<EnvVar>,
    pub working_dir: Option<Box<str>>,
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    /// `resources.limits`: bytes, and thousandths of a core.
    pub memory_limit_bytes: Option<u64>,
    pub cpu_limit_millicores: Option<u64>,
    pub ports: Vec<ContainerPort>,
    pub startup: Option<ProbeSpec>,
    pub readiness: Option<ProbeSpec>,
    pub liveness: Option<ProbeSpec>,
    pub post_start: Option<Hook>,
    pub pre_stop: Option<Hook>,
    /// Signal number of `lifecycle.stopSignal`, SIGTERM when absent.
    pub stop_signal: i32,
    pub termination_message_path: Box<str>,
    pub termination_message_policy: TerminationMessagePolicy,
    /// Annotation `on-child-oom`; a change of it restarts nothing.
    pub on_child_oom: ChildOomPolicy,
    /// When one process is killed for memory, all of the container are, as Kubernetes has it on cgroup v2. False
    /// where an annotation says what to do about a killed child: then there is one to speak of.
    pub oom_kills_together: bool,
    /// Changes when and only when a change of the manifest must restart the container.
    pub spec_hash: u64,
}

/// What happens when a process of a container is killed for memory and its main process lives on.
/// `defib.dev/on-child-oom` for all containers of a pod, `<container>.defib.dev/on-child-oom` for one.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum ChildOomPolicy {
    Ignore,
    /// Event `ChildOOMKilled` and nothing else.
    #[default]
    Event,
    /// The event, then the container is stopped; its restart policy says whether it starts again.
    RestartContainer,
    /// The event, then the same for every container of the pod. Ordinary init containers are never stopped: they
    /// end by themselves, and their exit code says how it went.
    RestartPod,
}

impl ChildOomPolicy {
    /// Every policy, in the order of their force.
    pub const ALL: [ChildOomPolicy; 4] = [
        ChildOomPolicy::Ignore,
        ChildOomPolicy::Event,
        ChildOomPolicy::RestartContainer,
        ChildOomPolicy::RestartPod,
    ];

    /// The annotation's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChildOomPolicy::Ignore => "Ignore",
            ChildOomPolicy::Event => "Event",
            ChildOomPolicy::RestartContainer => "RestartContainer",
            ChildOomPolicy::RestartPod => "RestartPod",
        }
    }

    /// The policy that an annotation's value names.
    pub fn parse(value: &str) -> Option<ChildOomPolicy> {
        ChildOomPolicy::ALL.into_iter().find(|policy| policy.as_str() == value)
    }
}

impl ContainerSpec {
    /// Its probe of this kind, if it has one.
    pub fn probe(&self, kind: ProbeKind) -> Option<&ProbeSpec> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
        }
    }
}

/// One variable of a container's environment; later ones may refer to it as `$(NAME)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnvVar {
    pub name: Box<str>,
    pub value: EnvValue,
}

/// Where a variable's value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnvValue {
    /// `$(VAR)` not yet expanded.
    Literal(Box<str>),
    Field(EnvField),
}

/// `valueFrom.fieldRef.fieldPath`.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum EnvField {
    PodName,
    PodNamespace,
    PodUid,
    PodIp,
    HostIp,
    NodeName,
}

/// One entry of `ports`. It opens nothing: it names a port, and keeps two containers off the same one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainerPort {
    pub name: Option<Box<str>>,
    pub container_port: u16,
    pub host_port: Option<u16>,
    pub host_ip: Option<Box<str>>,
    pub protocol: Protocol,
}

/// Protocol of a port.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// `terminationMessagePolicy` (kubelet-semantics 15).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum TerminationMessagePolicy {
    File,
    FallbackToLogsOnError,
}

/// A lifecycle handler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hook {
    Exec(ExecAction),
    HttpGet(HttpGetAction),
    Sleep { seconds: u32 },
}
