//! Every event text and waiting reason in one place (kubelet-semantics 8, 12, 13, 17). Kubelet 1.34 wording,
//! except `Created container X` and `Started container X` (design 9.1).

use std::time::Duration;

use super::go_duration::GoDuration;
use crate::model::event::Reason;
use crate::model::pod::{Hook, PodSpec};
use crate::model::probe::{ProbeKind, RunResult, Target, Verdict};
use crate::model::runtime::{OomFacts, OomLimit, OomVictim, StartError};
use crate::model::text::visible_line;

/// Waiting reasons.
pub const CONTAINER_CREATING: &str = "ContainerCreating";
/// Init containers have not all ended with success yet.
pub const POD_INITIALIZING: &str = "PodInitializing";
/// The start waits for its back-off (kubelet-semantics 14).
pub const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";
/// The container was killed since its postStart hook failed.
pub const POST_START_HOOK_ERROR: &str = "PostStartHookError";

/// Terminated reasons.
pub const COMPLETED: &str = "Completed";
/// Any exit code but 0.
pub const ERROR: &str = "Error";
/// Created and never run: exit code 128.
pub const START_ERROR: &str = "StartError";
/// Killed by the kernel for memory (docs/sensors.md).
pub const OOM_KILLED: &str = "OOMKilled";
/// How it ended is not known: exit code 137 (kubelet-semantics 15).
pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

/// Message of the event `FailedPostStartHook`, and the event message of the kill that follows.
pub const POST_START_HOOK_FAILED: &str = "PostStartHook failed";
/// Event message of the kill that follows a failed postStart hook.
pub const KILLED_BY_POST_START_HOOK: &str = "FailedPostStartHook";
/// Message of the event `FailedPreStopHook`.
pub const PRE_STOP_HOOK_FAILED: &str = "PreStopHook failed";

/// Why a hook failed, for the log and the waiting message; the event does not say it (kubelet-semantics 13). `error`
/// ends with what the command or the server said, [`hook_error`].
pub fn hook_failed(hook: &Hook, pod: &PodSpec, container: &str, error: &str) -> String {
    let what = match hook {
        Hook::Exec(action) => format!("Exec lifecycle hook ([{}])", action.command.join(" ")),
        Hook::HttpGet(action) => format!("HTTP lifecycle hook ({})", action.path),
        Hook::Sleep { seconds } => format!("Sleep lifecycle hook ({seconds})"),
    };
    format!("{what} for Container {container:?} in Pod {:?} failed - error: {error}", pod.full_name())
}

/// An error and what was said with it.
pub fn hook_error(error: &str, said: &str) -> String {
    format!("{error}, message: {said:?}")
}

/// Event `NodePorts` of a pod that came too late for its ports, and the status message that goes with it.
pub const NODE_PORTS_EVENT: &str =
    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
/// Status message of a pod that came too late for its ports.
pub const NODE_PORTS_STATUS: &str = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free \
                                     ports for the requested pod ports";

/// Waiting reason of a start that failed.
pub const fn start_error_reason(error: StartError) -> &'static str {
    match error {
        StartError::Config => "CreateContainerConfigError",
        StartError::Create => "CreateContainerError",
        StartError::Run => "RunContainerError",
    }
}

/// Event `Created`; the wording of most releases, not that of 1.34 (design 9.1).
pub fn created(container: &str) -> String {
    format!("Created container {container}")
}

/// Event `Started`; the wording of most releases, not that of 1.34 (design 9.1).
pub fn started(container: &str) -> String {
    format!("Started container {container}")
}

/// Event `Failed` of a start that failed.
pub fn failed(message: &str) -> String {
    format!("Error: {message}")
}

/// Event `ChildOOMKilled`. `limit_bytes` is the container's own memory limit.
pub fn child_oom_killed(container: &str, limit_bytes: Option<u64>, facts: &OomFacts) -> String {
    let own = limit_bytes.map_or(String::new(), |bytes| format!(", {} KiB,", bytes / 1_024));
    let own = format!("memory limit of the container{own} was reached");
    let whose = match facts.limit {
        OomLimit::Container => &own,
        OomLimit::Pod => "memory limit of the pod was reached",
        OomLimit::Parent => "memory limit of a cgroup above the pod was reached",
        OomLimit::Node => "the node was out of memory",
        OomLimit::Unknown => "which memory limit was reached is unknown",
    };
    match (&facts.victim, facts.kills) {
        (Some(OomVictim { pid, command, rss_bytes, is_exec }), _) => {
            let command = visible_line(command);
            // It may be more than the limit: pages of files count for whoever read them first.
            let resident = rss_bytes
                .map_or(String::new(), |bytes| format!(", {} KiB resident with file pages", bytes / 1_024));
            let of = if *is_exec { "a probe or hook of container" } else { "container" };
            format!("Process {pid} ({command}{resident}) of {of} {container} was killed for memory; {whose}")
        }
        (None, 1) => format!("A process of container {container} was killed for memory; {whose}"),
        (None, kills) => {
            format!("{kills} processes of container {container} were killed for memory; {whose}")
        }
    }
}

/// Event `Killing` of a container whose policy answers a killed child with a restart.
pub fn killed_for_child_oom(container: &str, restarts: bool) -> String {
    let then = if restarts { ", will be restarted" } else { "" };
    format!("Container {container} lost a process to the OOM killer{then}")
}

/// Event `Killing` of a container whose pod is restarted because of another one.
pub fn killed_with_pod(container: &str, other: &str, restarts: bool) -> String {
    let then = if restarts { format!("; {container} will be restarted") } else { String::new() };
    format!(
        "Container {container} is stopped because container {other} lost a process to the OOM killer{then}"
    )
}

/// Event `Killing` without a reason of its own: pod stop, pod kill.
pub fn stopping(container: &str) -> String {
    format!("Stopping container {container}")
}

/// Event `BackOff` of a refused start.
pub fn back_off_event(pod: &PodSpec, container: &str) -> String {
    format!("Back-off restarting failed container {container} in pod {}", pod.full_name())
}

/// Waiting message of a refused start.
pub fn back_off_waiting(pod: &PodSpec, container: &str, wait: Duration) -> String {
    format!("back-off {} restarting failed container={container} pod={}", GoDuration(wait), pod.full_name())
}

/// Event `ProbeInconclusive` after `row` runs in a row that nobody could judge.
pub fn inconclusive(kind: ProbeKind, row: u32, detail: &str) -> String {
    let kind = kind.as_str();
    format!("{kind} probe could not be judged {row} times in a row, its result stays as it was: {detail}")
}

/// The event of one probe run, thresholds apart; None for a success, and for a run that nobody can judge.
///
/// `target` tells what an errored run resulted in: an HTTP run errs only while it reads the body, which
/// kubelet calls `failure`; all others are `unknown` (kubelet-semantics 4.4, 8).
pub fn probe_event(kind: ProbeKind, target: &Target, run: &RunResult) -> Option<(Reason, String)> {
    let kind = kind.as_str();
    let detail = run.detail.as_deref().unwrap_or_default();
    match run.verdict {
        Verdict::Success | Verdict::Inconclusive => None,
        Verdict::Warning => Some((Reason::ProbeWarning, format!("{kind} probe warning: {detail}"))),
        Verdict::Failure => Some((Reason::Unhealthy, format!("{kind} probe failed: {detail}"))),
        Verdict::Errored => {
            let state = match target {
                Target::Http(_) => "failure",
                Target::Tcp(_) | Target::Grpc(_) | Target::Exec | Target::Broken { .. } => "unknown",
            };
            let text = format!("{kind} probe errored and resulted in {state} state: {detail}");
            Some((Reason::Unhealthy, text))
        }
    }
}
