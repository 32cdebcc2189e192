//! What must be true of every pod that a turn has touched, once the turn is over.

use probe_core::model::id::PodUid;
use probe_core::model::probe::ProbeKind;
use probe_core::model::time::Mono;

use super::super::book::{Attempt, ContainerBook, PodBook, ProbeBook};
use super::{Observer, broken};

impl Observer {
    pub(super) fn after_turn(&mut self, now: Mono, executor: u16) {
        if let Some(missing) = self.expected.first() {
            broken("every cause has its event", format_args!("at {now:?} none for {missing:?}"));
        }
        if let Some(missing) = self.to_ask.front() {
            broken("exec probes run when they are due", format_args!("{missing:?} was not asked for"));
        }
        if let Some(missing) = self.exec_ended.first() {
            broken("an exec run ends", format_args!("executor {executor} does not tell {missing:?}"));
        }
        let touched = std::mem::take(&mut self.touched);
        for uid in touched {
            if let Some(pod) = self.pods.get_mut(&uid) {
                if pod.containers.iter().all(|container| container.attempt.is_none()) {
                    pod.stops_itself = false;
                }
                check_pod(now, uid, pod);
            }
        }
        self.shown.clear();
        self.ended_now.clear();
    }
}

fn check_pod(now: Mono, uid: PodUid, pod: &PodBook) {
    for (at, container) in pod.containers.iter().enumerate() {
        let who = || format!("{uid} container {at} at {now:?}");
        let dies = container.dies_of_oom.is_some() && container.dies_of_oom == container.running();
        let is_stopping = pod.deletion.is_some() || pod.stops_itself || pod.is_over();
        if dies && !is_stopping && container.current_kill().is_none() {
            broken("the policy for killed children", who());
        }
        for probe in container.probes.iter().flatten() {
            check_probe(pod, at, container, probe, &who);
        }
    }
}

fn check_probe(
    pod: &PodBook,
    at: usize,
    container: &ContainerBook,
    probe: &ProbeBook,
    who: &impl Fn() -> String,
) {
    let kind = probe.kind;
    let is_open = is_gate_open(pod, container, kind);
    match &probe.armed {
        Some(armed) => {
            if container.running() != Some(armed.instance) {
                broken("a dead instance is not probed", format_args!("{} {kind:?}: {armed:?}", who()));
            }
            if probe.on_hold || !is_open {
                broken("a held probe is held", format_args!("{} {kind:?}: {probe:?}", who()));
            }
        }
        None => {
            let has_hook = pod.spec.containers[at].post_start.is_some();
            let must_run = container.running().is_some() && is_open && !probe.on_hold;
            if must_run && !has_hook && !pod.is_finished() {
                broken("a probe that may run is armed", format_args!("{} {kind:?}", who()));
            }
        }
    }
    let may_kill = kind != ProbeKind::Readiness && container.running().is_some();
    // A restart that was decided already comes first; nothing else happens to its pod meanwhile, which kubelet's
    // sync of a pod has in common with this.
    let is_busy =
        |other: &ContainerBook| other.restart.is_some() || matches!(other.attempt, Some((_, Attempt::Sent)));
    // A pod that is over is stopped wave by wave, and the first waves may have been under way before.
    let is_stopping = pod.deletion.is_some() || pod.stops_itself || pod.is_over();
    let is_stopping = is_stopping || pod.containers.iter().any(is_busy);
    if may_kill && probe.failed_after.is_some() && !is_stopping && container.current_kill().is_none() {
        broken("a failed probe kills at once", format_args!("{} {kind:?}: {probe:?}", who()));
    }
}

/// The startup gate, and the end of a pod (kubelet-semantics 10.3, steps 7 and 9).
fn is_gate_open(pod: &PodBook, container: &ContainerBook, kind: ProbeKind) -> bool {
    let started = container.is_started();
    match kind {
        ProbeKind::Startup => !started && pod.deletion.is_none(),
        ProbeKind::Readiness => started,
        ProbeKind::Liveness => started && pod.deletion.is_none(),
    }
}
