//! From the state of a pod to what must be killed and started (kubelet-semantics 12, `computePodActions`).
//!
//! Sandbox and ephemeral-container branches are absent: the process runtime has neither.

use super::view::{ContainerView, PodView, Record, RecordState, ResultState};
use crate::model::id::ContainerIx;
use crate::model::pod::{ContainerSpec, RestartPolicy, Role};

/// What to do for a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PodActions {
    /// Stop every running container with message [`super::messages::stopping`] and [`KillReason::Other`], in
    /// the waves of [`super::grace::stop_waves`]; start nothing.
    KillPod,
    Steps(Steps),
}

/// Kills come first, then the init starts in order, then the regular starts in order.
///
/// A failed start of an ordinary init container ends the round; one of a sidecar or a regular container
/// does not keep the next from starting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Steps {
    pub kill: Vec<Kill>,
    /// Ordinary init containers and sidecars.
    pub start_init: Vec<ContainerIx>,
    pub start: Vec<ContainerIx>,
}

/// A container to stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kill {
    pub container: ContainerIx,
    pub reason: KillReason,
    /// Of the event `Killing`.
    pub message: String,
}

/// Why a container is stopped, as far as the grace period depends on it.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum KillReason {
    StartupProbe,
    LivenessProbe,
    Other,
}

impl PodActions {
    /// Nothing to do.
    pub fn none() -> PodActions {
        PodActions::Steps(Steps { kill: Vec::new(), start_init: Vec::new(), start: Vec::new() })
    }
}

/// What the pod needs now.
///
/// A pod that is being deleted gets nothing from here: its stop is under way and nothing restarts or kills
/// on a probe's word (ACTX-07).
pub fn pod_actions(pod: &PodView<'_>) -> PodActions {
    if pod.deleting {
        return PodActions::none();
    }
    let mut steps = Steps { kill: Vec::new(), start_init: Vec::new(), start: Vec::new() };
    match init_actions(pod, &mut steps) {
        Init::Failed => return PodActions::KillPod,
        Init::Pending => return PodActions::Steps(steps),
        Init::Done => {}
    }
    let mut kept = 0u32;
    for (ix, spec, view) in pod.indexed().filter(|(_, spec, _)| spec.role == Role::Regular) {
        match view.newest.filter(|record| record.is_running()) {
            None => regular_not_running(pod, ix, spec, &view, &mut steps),
            Some(record) => {
                let Some((reason, message, restart)) = regular_kill(pod, spec, &view, record) else {
                    kept += 1;
                    continue;
                };
                let message = if restart { format!("{message}, will be restarted") } else { message };
                if restart {
                    steps.start.push(ix);
                }
                steps.kill.push(Kill { container: ix, reason, message });
            }
        }
    }
    if kept == 0 && steps.start.is_empty() { PodActions::KillPod } else { PodActions::Steps(steps) }
}

/// `ShouldContainerBeRestarted`: does a container that does not run get started (again)?
pub fn should_be_restarted(pod: &PodView<'_>, view: &ContainerView<'_>) -> bool {
    if pod.deleting {
        return false;
    }
    let Some(record) = view.newest else { return true };
    match &record.state {
        RecordState::Running { .. } => false,
        RecordState::Unknown | RecordState::Created => true,
        RecordState::Exited { terminated, .. } => match pod.spec.restart_policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => terminated.exit_code != 0,
            RestartPolicy::Always => true,
        },
    }
}

fn regular_not_running(
    pod: &PodView<'_>,
    ix: ContainerIx,
    spec: &ContainerSpec,
    view: &ContainerView<'_>,
    steps: &mut Steps,
) {
    if !should_be_restarted(pod, view) {
        return;
    }
    steps.start.push(ix);
    if is_unknown(view) {
        steps.kill.push(unknown_state_kill(ix, spec));
    }
}

/// The first reason to kill a running regular container, and whether it is started again.
fn regular_kill(
    pod: &PodView<'_>,
    spec: &ContainerSpec,
    view: &ContainerView<'_>,
    record: &Record,
) -> Option<(KillReason, String, bool)> {
    let restart = pod.spec.restart_policy != RestartPolicy::Never;
    let name = &spec.name;
    if record.spec_hash != spec.spec_hash {
        Some((KillReason::Other, format!("Container {name} definition changed"), true))
    } else if view.liveness == Some(ResultState::Failure) {
        Some((KillReason::LivenessProbe, format!("Container {name} failed liveness probe"), restart))
    } else if view.startup == Some(ResultState::Failure) {
        Some((KillReason::StartupProbe, format!("Container {name} failed startup probe"), restart))
    } else {
        None
    }
}

fn is_unknown(view: &ContainerView<'_>) -> bool {
    view.newest.is_some_and(|record| record.state == RecordState::Unknown)
}

fn unknown_state_kill(container: ContainerIx, spec: &ContainerSpec) -> Kill {
    let what = match spec.role {
        Role::Regular => "Container",
        Role::Init | Role::Sidecar => "Init container",
    };
    let message = format!("{what} is in \"unknown\" state, try killing it before restart");
    Kill { container, reason: KillReason::Other, message }
}

/// How far initialisation has come.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Init {
    /// An ordinary init container failed for good.
    Failed,
    Pending,
    Done,
}

/// What one init container with a record means for the walk.
struct InitStep {
    kill: Option<Kill>,
    /// It is started (again).
    start: bool,
    /// It is done, or started as a sidecar: the next one may start.
    passed: bool,
}

impl InitStep {
    const WAIT: InitStep = InitStep { kill: None, start: false, passed: false };
    const START: InitStep = InitStep { kill: None, start: true, passed: false };
    const PASSED: InitStep = InitStep { kill: None, start: false, passed: true };

    fn restart(container: ContainerIx, reason: KillReason, message: String) -> InitStep {
        InitStep { kill: Some(Kill { container, reason, message }), start: true, passed: false }
    }
}

/// Walks the init containers from the last to the first: records of finished ones may be gone, so the last
/// one that has a record tells how far it came; before that one only sidecars are looked after (12.2).
fn init_actions(pod: &PodView<'_>, steps: &mut Steps) -> Init {
    let inits: Vec<_> = pod.indexed().filter(|(_, spec, _)| spec.role != Role::Regular).collect();
    let Some(&(first, ..)) = inits.first() else { return Init::Done };
    let mut done = was_initialized(pod);
    let mut passed_before = done;
    for (at, (ix, spec, view)) in inits.iter().enumerate().rev() {
        let is_sidecar = spec.role == Role::Sidecar;
        if passed_before && !is_sidecar {
            continue;
        }
        let Some(record) = view.newest else {
            if passed_before {
                steps.start_init.push(*ix);
            }
            continue;
        };
        let step = if is_sidecar {
            sidecar_step(*ix, spec, view, record)
        } else {
            init_step(pod, *ix, spec, record)
        };
        let Some(step) = step else { return Init::Failed };
        if step.passed {
            match inits.get(at + 1) {
                None => done = true,
                Some(&(next, ..)) if !passed_before => steps.start_init.push(next),
                Some(_) => {}
            }
        }
        steps.kill.extend(step.kill);
        if step.start {
            steps.start_init.push(*ix);
        }
        passed_before = true;
    }
    if !passed_before {
        steps.start_init.push(first);
    }
    steps.start_init.reverse();
    if done { Init::Done } else { Init::Pending }
}

/// A regular container that exists proves that initialisation was done once, whatever record is missing now.
fn was_initialized(pod: &PodView<'_>) -> bool {
    pod.indexed().filter(|(_, spec, _)| spec.role == Role::Regular).any(|(_, _, view)| {
        view.newest.is_some_and(|record| match record.state {
            RecordState::Created | RecordState::Running { .. } => true,
            RecordState::Exited { .. } | RecordState::Unknown => false,
        })
    })
}

/// An ordinary init container that has a record, before initialisation is done. None: it failed for good.
fn init_step(pod: &PodView<'_>, ix: ContainerIx, spec: &ContainerSpec, record: &Record) -> Option<InitStep> {
    let restarts = pod.spec.restart_policy != RestartPolicy::Never;
    match &record.state {
        RecordState::Created => Some(InitStep::START),
        RecordState::Running { .. } => Some(InitStep::WAIT),
        RecordState::Exited { terminated, .. } if terminated.exit_code == 0 => Some(InitStep::PASSED),
        RecordState::Exited { .. } => restarts.then_some(InitStep::START),
        RecordState::Unknown => {
            restarts.then(|| InitStep { kill: Some(unknown_state_kill(ix, spec)), ..InitStep::START })
        }
    }
}

/// A sidecar that has a record. It always restarts, so it never fails the pod.
fn sidecar_step(
    ix: ContainerIx,
    spec: &ContainerSpec,
    view: &ContainerView<'_>,
    record: &Record,
) -> Option<InitStep> {
    let name = &spec.name;
    match record.state {
        RecordState::Created | RecordState::Exited { .. } => return Some(InitStep::START),
        RecordState::Unknown => {
            return Some(InitStep { kill: Some(unknown_state_kill(ix, spec)), ..InitStep::START });
        }
        RecordState::Running { .. } => {}
    }
    match view.startup {
        _ if spec.startup.is_none() => {}
        Some(ResultState::Success) => {}
        Some(ResultState::Failure) => {
            let message = format!("Init container {name} failed startup probe");
            return Some(InitStep::restart(ix, KillReason::StartupProbe, message));
        }
        Some(ResultState::Unknown) | None => return Some(InitStep::WAIT),
    }
    let restart = if record.spec_hash != spec.spec_hash {
        InitStep::restart(ix, KillReason::Other, format!("Init container {name} definition changed"))
    } else if spec.liveness.is_some() && view.liveness == Some(ResultState::Failure) {
        let message = format!("Init container {name} failed liveness probe");
        InitStep::restart(ix, KillReason::LivenessProbe, message)
    } else {
        return Some(InitStep::PASSED);
    };
    // It was started, so the next one need not wait for its new instance.
    Some(InitStep { passed: true, ..restart })
}
