//! Pod and container status as the API shows it (kubelet-semantics 11, 15): states, reasons, restart counts,
//! phase and conditions.

use std::borrow::Cow;

use super::actions::should_be_restarted;
use super::messages;
use super::ready;
use super::view::{ContainerView, PodView, Record, RecordState};
use crate::model::id::ContainerId;
use crate::model::pod::{ContainerSpec, PodSpec, RestartPolicy, Role};
use crate::model::runtime::ExitStatus;
use crate::model::status::{
    Condition, ContainerState, ContainerStatus, Deletion, Phase, PodStatus, Terminated,
};
use crate::model::time::Wall;

/// What a status needs beside the view.
#[derive(Copy, Clone, Debug)]
pub struct StatusContext<'a> {
    /// The status published last; None for a pod that has none yet. Conditions keep their transition times
    /// from it, a finished phase stays, and a record that vanished is noticed by it.
    pub previous: Option<&'a PodStatus>,
    /// When the agent accepted the pod.
    pub start_time: Wall,
    pub deletion: Option<Deletion>,
    pub now: Wall,
}

/// The whole status of a pod.
pub fn pod_status(pod: &PodView<'_>, context: &StatusContext<'_>) -> PodStatus {
    let containers: Vec<ContainerStatus> = pod
        .indexed()
        .map(|(ix, spec, view)| {
            let previous = context.previous.and_then(|status| status.containers.get(ix.at()));
            container_status(pod, spec, &view, previous)
        })
        .collect();
    let before = context.previous.map(|status| status.phase);
    let phase = match before {
        Some(finished @ (Phase::Succeeded | Phase::Failed)) => finished,
        Some(Phase::Pending | Phase::Running) | None => phase(pod.spec, &containers),
    };
    // Reason and message belong to the phase.
    let same_phase = context.previous.filter(|status| status.phase == phase);
    PodStatus {
        phase,
        reason: same_phase.and_then(|status| status.reason.clone()),
        message: same_phase.and_then(|status| status.message.clone()),
        conditions: conditions(pod.spec, &containers, phase, context),
        start_time: context.start_time,
        deletion: context.deletion,
        containers,
    }
}

/// The status of a pod that must not run: Failed, with every container waiting as it never was started.
pub fn rejected(
    spec: &PodSpec,
    reason: &'static str,
    message: &str,
    context: &StatusContext<'_>,
) -> PodStatus {
    let absent = vec![ContainerView::ABSENT; spec.containers.len()];
    let mut status =
        pod_status(&PodView { spec, deleting: context.deletion.is_some(), containers: &absent }, context);
    status.phase = Phase::Failed;
    status.reason = Some(Cow::Borrowed(reason));
    status.message = Some(message.into());
    status.conditions = conditions(spec, &status.containers, Phase::Failed, context);
    status
}

/// Restart count of the next instance: one more than the newest record's; without a record one more than the
/// highest `<n>.log` in the container's log folder, which outlives the records.
pub fn next_restart_count(newest: Option<&Record>, highest_log: Option<u32>) -> u32 {
    newest.map(|record| record.instance.restart_count).or(highest_log).map_or(0, |n| n.saturating_add(1))
}

/// How an instance ended whose process ran.
pub fn terminated(
    status: ExitStatus,
    oom_killed: bool,
    started_at: Wall,
    finished_at: Wall,
    container_id: ContainerId,
) -> Terminated {
    let exit_code = status.exit_code();
    let reason = match exit_code {
        _ if oom_killed => messages::OOM_KILLED,
        0 => messages::COMPLETED,
        _ => messages::ERROR,
    };
    let (signal, reason) = (status.signal(), Cow::Borrowed(reason));
    Terminated { exit_code, signal, reason, message: None, started_at, finished_at, container_id }
}

/// How an instance "ended" that was created and could not be started: StartError, 128.
pub fn start_failed(message: &str, at: Wall, container_id: ContainerId) -> Terminated {
    Terminated {
        exit_code: 128,
        signal: None,
        reason: Cow::Borrowed(messages::START_ERROR),
        message: Some(message.into()),
        // containerd reports the epoch for a process that never was.
        started_at: Wall::from_ns(0),
        finished_at: at,
        container_id,
    }
}

/// The status of one container.
pub fn container_status(
    pod: &PodView<'_>,
    spec: &ContainerSpec,
    view: &ContainerView<'_>,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let mut shown = match view.newest {
        Some(record) => from_record(view, record, previous),
        None => without_record(pod, previous),
    };
    // Kubelet leaves every init container that ended with 0 as it is, sidecars too.
    let ended_well = spec.role != Role::Regular && view.newest.and_then(Record::exit_code) == Some(0);
    let waits = !ended_well && should_be_restarted(pod, view);
    if let Some(failure) = view.start_failure.filter(|_| waits) {
        let message = Some(failure.message.clone());
        let waiting = ContainerState::Waiting { reason: Cow::Borrowed(failure.reason), message };
        if let ContainerState::Terminated(last) = std::mem::replace(&mut shown.state, waiting) {
            shown.last_state = Some(last);
        }
    }
    ContainerStatus {
        name: spec.name.clone(),
        role: spec.role,
        image: spec.image.clone(),
        container_id: shown.container_id,
        restart_count: shown.restart_count,
        ready: ready::ready(spec, view),
        started: ready::started(spec, view),
        state: shown.state,
        last_state: shown.last_state,
        pid: view.newest.and_then(|record| match record.state {
            RecordState::Running { pid, .. } => Some(pid),
            RecordState::Created | RecordState::Exited { .. } | RecordState::Unknown => None,
        }),
    }
}

/// The part of a container status that comes from records.
struct Shown {
    container_id: Option<ContainerId>,
    restart_count: u32,
    state: ContainerState,
    last_state: Option<Terminated>,
}

fn from_record(view: &ContainerView<'_>, record: &Record, previous: Option<&ContainerStatus>) -> Shown {
    let mut restart_count = record.instance.restart_count;
    let state = match &record.state {
        RecordState::Running { started_at, .. } => ContainerState::Running { started_at: started_at.wall },
        RecordState::Created => waiting(""),
        RecordState::Exited { terminated, .. } => ContainerState::Terminated(terminated.clone()),
        RecordState::Unknown => match previous.map(|status| &status.state) {
            Some(ContainerState::Running { started_at }) => {
                restart_count = previous.map_or(0, |status| status.restart_count).saturating_add(1);
                let message = "The container could not be located when the pod was terminated";
                ContainerState::Terminated(not_located(*started_at, message, record.container_id))
            }
            Some(ContainerState::Waiting { .. } | ContainerState::Terminated(_)) | None => waiting(""),
        },
    };
    let last_state = view.previous.and_then(|older| match &older.state {
        RecordState::Exited { terminated, .. } => Some(terminated.clone()),
        RecordState::Created | RecordState::Running { .. } | RecordState::Unknown => None,
    });
    Shown { container_id: Some(record.container_id), restart_count, state, last_state }
}

/// No instance is known: it never ran, or its record vanished.
fn without_record(pod: &PodView<'_>, previous: Option<&ContainerStatus>) -> Shown {
    let fresh = waiting(never_ran_reason(pod));
    let Some(before) = previous else {
        return Shown { container_id: None, restart_count: 0, state: fresh, last_state: None };
    };
    let mut shown = Shown {
        container_id: None,
        restart_count: before.restart_count,
        state: fresh,
        last_state: before.last_state.clone(),
    };
    match (&before.state, before.container_id) {
        (ContainerState::Terminated(_), container_id) => {
            shown.state = before.state.clone();
            shown.container_id = container_id;
        }
        (ContainerState::Running { started_at }, Some(container_id)) if before.last_state.is_none() => {
            let message = "The container could not be located when the pod was deleted.  \
                           The container used to be Running";
            shown.last_state = Some(not_located(*started_at, message, container_id));
            shown.restart_count = before.restart_count.saturating_add(u32::from(!pod.deleting));
        }
        (ContainerState::Running { .. } | ContainerState::Waiting { .. }, _) => {}
    }
    shown
}

fn waiting(reason: &'static str) -> ContainerState {
    ContainerState::Waiting { reason: Cow::Borrowed(reason), message: None }
}

/// Kubelet says `PodInitializing` of every container of a pod with init containers, of those themselves too.
fn never_ran_reason(pod: &PodView<'_>) -> &'static str {
    if pod.spec.containers.iter().any(|container| container.role != Role::Regular) {
        messages::POD_INITIALIZING
    } else {
        messages::CONTAINER_CREATING
    }
}

fn not_located(started_at: Wall, message: &str, container_id: ContainerId) -> Terminated {
    Terminated {
        exit_code: 137,
        signal: None,
        reason: Cow::Borrowed(messages::STATUS_UNKNOWN),
        message: Some(message.into()),
        started_at,
        // Nobody saw the end: kubelet leaves the time empty, which is the epoch here.
        finished_at: Wall::from_ns(0),
        container_id,
    }
}

/// Containers counted by what they mean for the phase (kubelet's getPhase).
#[derive(Default)]
struct Tally {
    pending_init: u32,
    pending_sidecar: u32,
    failed_init: u32,
    waiting: u32,
    running: u32,
    stopped: u32,
    succeeded: u32,
}

/// The phase from the container statuses, which are in the order of `spec.containers`.
pub fn phase(spec: &PodSpec, containers: &[ContainerStatus]) -> Phase {
    let mut tally = Tally::default();
    for status in containers {
        match status.role {
            Role::Init => tally.init(status),
            Role::Sidecar => tally.sidecar(status),
            Role::Regular => tally.regular(status),
        }
    }
    let policy = spec.restart_policy;
    if tally.failed_init > 0 && policy == RestartPolicy::Never {
        return Phase::Failed;
    }
    let initializing = tally.pending_init > 0 || tally.pending_sidecar > 0 && !any_regular_ran(containers);
    if initializing || tally.waiting > 0 {
        return Phase::Pending;
    }
    if tally.running > 0 {
        return Phase::Running;
    }
    if tally.stopped == 0 {
        return Phase::Pending;
    }
    match policy {
        RestartPolicy::Always => Phase::Running,
        RestartPolicy::OnFailure | RestartPolicy::Never if tally.stopped == tally.succeeded => {
            Phase::Succeeded
        }
        RestartPolicy::OnFailure => Phase::Running,
        RestartPolicy::Never => Phase::Failed,
    }
}

impl Tally {
    fn init(&mut self, status: &ContainerStatus) {
        let ended = match &status.state {
            ContainerState::Running { .. } => None,
            ContainerState::Terminated(ended) => Some(ended),
            ContainerState::Waiting { .. } => status.last_state.as_ref(),
        };
        match ended {
            None => self.pending_init += 1,
            Some(ended) => self.failed_init += u32::from(ended.exit_code != 0),
        }
    }

    fn sidecar(&mut self, status: &ContainerStatus) {
        match &status.state {
            ContainerState::Running { .. } => {
                self.pending_sidecar += u32::from(!status.started);
                self.running += 1;
            }
            ContainerState::Terminated(_) => {}
            ContainerState::Waiting { .. } if status.last_state.is_some() => {}
            ContainerState::Waiting { .. } => {
                self.pending_sidecar += 1;
                self.waiting += 1;
            }
        }
    }

    fn regular(&mut self, status: &ContainerStatus) {
        match &status.state {
            ContainerState::Running { .. } => self.running += 1,
            ContainerState::Terminated(ended) => {
                self.stopped += 1;
                self.succeeded += u32::from(ended.exit_code == 0);
            }
            ContainerState::Waiting { .. } if status.last_state.is_some() => self.stopped += 1,
            ContainerState::Waiting { .. } => self.waiting += 1,
        }
    }
}

/// Some regular container has run, be it before a restart that still waits.
fn any_regular_ran(containers: &[ContainerStatus]) -> bool {
    let waits_again = |status: &ContainerStatus| status.role == Role::Regular && status.last_state.is_some();
    any_regular_started(containers) || containers.iter().any(waits_again)
}

fn any_regular_started(containers: &[ContainerStatus]) -> bool {
    containers.iter().any(|status| {
        status.role == Role::Regular
            && matches!(status.state, ContainerState::Running { .. } | ContainerState::Terminated(_))
    })
}

/// A condition before it has a transition time.
struct Draft {
    kind: &'static str,
    is_true: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

/// The four conditions, in the order in which kubelet lists them.
fn conditions(
    spec: &PodSpec,
    containers: &[ContainerStatus],
    phase: Phase,
    context: &StatusContext<'_>,
) -> Vec<Condition> {
    let containers_ready = containers_ready(containers, phase);
    let ready = pod_ready(spec, &containers_ready);
    let scheduled = Draft { kind: "PodScheduled", is_true: true, reason: None, message: None };
    let drafts = [initialized(containers, phase), ready, containers_ready, scheduled];
    let finish = |draft: Draft| {
        let before = context.previous.and_then(|s| s.conditions.iter().find(|c| c.kind == draft.kind));
        let last_transition = match before {
            Some(before) if before.is_true == draft.is_true => before.last_transition,
            Some(_) => context.now,
            None => context.start_time.max(context.now),
        };
        Condition {
            kind: draft.kind,
            is_true: draft.is_true,
            reason: draft.reason,
            message: draft.message.map(String::into_boxed_str),
            last_transition,
        }
    };
    drafts.into_iter().map(finish).collect()
}

fn initialized(containers: &[ContainerStatus], phase: Phase) -> Draft {
    let kind = "Initialized";
    if phase == Phase::Succeeded {
        return Draft { kind, is_true: true, reason: Some("PodCompleted"), message: None };
    }
    let is_open = |status: &&ContainerStatus| match status.role {
        Role::Regular => false,
        Role::Sidecar => !status.started,
        Role::Init => !status.ready,
    };
    let open = names(containers.iter().filter(is_open));
    if open.is_empty() || any_regular_started(containers) {
        return Draft { kind, is_true: true, reason: None, message: None };
    }
    let message = Some(format!("containers with incomplete status: [{open}]"));
    Draft { kind, is_true: false, reason: Some("ContainersNotInitialized"), message }
}

fn containers_ready(containers: &[ContainerStatus], phase: Phase) -> Draft {
    let kind = "ContainersReady";
    match phase {
        Phase::Succeeded => {
            return Draft { kind, is_true: false, reason: Some("PodCompleted"), message: None };
        }
        Phase::Failed => return Draft { kind, is_true: false, reason: Some("PodFailed"), message: None },
        Phase::Pending | Phase::Running => {}
    }
    let unready = names(containers.iter().filter(|status| status.role != Role::Init && !status.ready));
    if unready.is_empty() {
        return Draft { kind, is_true: true, reason: None, message: None };
    }
    let message = Some(format!("containers with unready status: [{unready}]"));
    Draft { kind, is_true: false, reason: Some("ContainersNotReady"), message }
}

fn pod_ready(spec: &PodSpec, containers_ready: &Draft) -> Draft {
    let kind = "Ready";
    if !containers_ready.is_true {
        let message = containers_ready.message.clone();
        return Draft { kind, is_true: false, reason: containers_ready.reason, message };
    }
    if spec.readiness_gates.is_empty() {
        return Draft { kind, is_true: true, reason: None, message: None };
    }
    let missing: Vec<String> = spec
        .readiness_gates
        .iter()
        .map(|gate| format!("corresponding condition of pod readiness gate \"{gate}\" does not exist."))
        .collect();
    Draft { kind, is_true: false, reason: Some("ReadinessGatesNotReady"), message: Some(missing.join(", ")) }
}

fn names<'a>(containers: impl Iterator<Item = &'a ContainerStatus>) -> String {
    containers.map(|status| &*status.name).collect::<Vec<_>>().join(" ")
}
