//! The port between the executor and a container runtime, as messages. It suits a runtime that starts
//! local processes as well as one behind CRI: create, start, stop with a grace period, exec, clean up.
//!
//! Commands never wait: every one is answered by exactly one event (named at the command) or, where it
//! says so, by none. A hung container therefore delays nobody else.

use std::sync::Arc;
use std::time::Duration;

use super::id::{ContainerId, ContainerIx, InstanceId, PodUid, Ticket};
use super::pod::PodSpec;
use super::time::Now;

/// Executor to runtime.
#[derive(Clone, Debug)]
pub enum RuntimeCmd {
    /// Create and start one instance. Answers [`RuntimeEvent::Created`] then [`RuntimeEvent::Started`],
    /// or [`RuntimeEvent::StartFailed`]. Sent only when no older instance of the container is left.
    Start(Box<StartRequest>),
    /// Stop signal, `grace`, then SIGKILL for everything that is left of it. No answer of its own: the
    /// exit record is the answer. A second `Stop` with a shorter grace shortens the first.
    Stop { instance: InstanceId, grace: Duration },
    /// The main process has ended (or never started): kill what it left, wait until all of it is gone,
    /// release what the instance held. Answers [`RuntimeEvent::Gone`].
    Cleanup { instance: InstanceId },
    /// Run a command in the running container. Answers [`RuntimeEvent::ExecDone`], also when the
    /// container ends meanwhile. On timeout the whole tree it started is killed and reaped first.
    Exec { instance: InstanceId, ticket: Ticket, argv: Arc<[Box<str>]>, timeout: Option<Duration> },
    /// All containers of the pod are gone and the pod is deleted: remove its logs and directories. No answer.
    ForgetPod { pod: PodUid },
}

/// One instance to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    pub instance: InstanceId,
    pub container_id: ContainerId,
    pub pod: Arc<PodSpec>,
}

impl StartRequest {
    /// Which container of the pod.
    pub fn container(&self) -> ContainerIx {
        self.instance.container
    }
}

/// Runtime and sensor to executor. All of them carry the instance; one for an older instance, or one
/// that comes twice, changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuntimeEvent {
    Created {
        instance: InstanceId,
        at: Now,
    },
    Started {
        instance: InstanceId,
        pid: u32,
        at: Now,
    },
    /// `message` is for the event `Failed`: `Error: <message>`. After `Created` it is a start failure
    /// (StartError, exit code 128), before it a create failure.
    StartFailed {
        instance: InstanceId,
        error: StartError,
        message: Box<str>,
        at: Now,
    },
    /// The main process ended. Comes after `Started`, once per instance.
    Exited {
        instance: InstanceId,
        status: ExitStatus,
        /// Two witnesses say that the kernel killed it for memory.
        oom_killed: bool,
        at: Now,
    },
    /// Processes of the instance were killed for memory, and the main process is not one of them.
    ChildOomKilled {
        instance: InstanceId,
        facts: OomFacts,
        at: Now,
    },
    /// Nothing of the instance is left: no process, no cgroup. The next start may go.
    Gone {
        instance: InstanceId,
        termination_message: Option<Box<str>>,
    },
    ExecDone {
        instance: InstanceId,
        ticket: Ticket,
        result: ExecResult,
    },
}

/// What is known of processes that were killed for memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OomFacts {
    /// At least one.
    pub kills: u64,
    /// Known to the eBPF sensor, and then `kills` is one.
    pub victim: Option<OomVictim>,
    pub limit: OomLimit,
}

/// The process that was killed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OomVictim {
    pub pid: u32,
    /// `comm`: at most 15 bytes of the workload's choice, control characters too.
    pub command: Box<str>,
    /// Anonymous, file and shared memory that it held; None where the kernel does not tell (before 6.9).
    pub rss_bytes: Option<u64>,
    /// It was in the cgroup of a probe or hook that defib ran in the container.
    pub is_exec: bool,
}

/// Whose memory limit was hit, as far as counters prove it.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum OomLimit {
    Container,
    Pod,
    /// A cgroup above the pod's.
    Parent,
    /// The machine had no memory left.
    Node,
    Unknown,
}

/// How far a start came that failed.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum StartError {
    /// Configuration that cannot work here (user, working directory): `CreateContainerConfigError`.
    Config,
    /// Making the container failed: `CreateContainerError`.
    Create,
    /// The container exists but its command could not be run: `RunContainerError`; state StartError, 128.
    Run,
}

/// How a process ended, as wait(2) tells it.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ExitStatus {
    Code(u8),
    Signal { number: u8, core_dumped: bool },
}

impl ExitStatus {
    /// The code that Kubernetes shows: 128 + signal for a death by signal (kubelet-semantics 15).
    pub fn exit_code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => i32::from(code),
            ExitStatus::Signal { number, .. } => 128 + i32::from(number),
        }
    }

    /// The signal's number, for a death by signal.
    pub fn signal(self) -> Option<i32> {
        match self {
            ExitStatus::Code(_) => None,
            ExitStatus::Signal { number, .. } => Some(i32::from(number)),
        }
    }
}

/// What an exec came to (kubelet-semantics 6). `output` is stdout then stderr, at most
/// [`super::limits::PROBE_OUTPUT_MAX_BYTES`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExecResult {
    Exited {
        status: ExitStatus,
        output: Box<str>,
    },
    TimedOut,
    /// Could not be run at all, or the container ended meanwhile.
    Failed {
        error: Box<str>,
        blame: Blame,
    },
}

/// Where the reason lies that a command could not be run.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Blame {
    /// With the command as the container has it: it is missing, may not be run, is no program, or its folder is gone.
    Command,
    /// Anywhere else, or nobody knows: the container has ended, this host has no process, memory or descriptor left, or
    /// defib itself failed.
    Elsewhere,
}
