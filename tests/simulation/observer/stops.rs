//! Kills: why, with which words, and with how much grace (kubelet-semantics 12, 13).

use std::time::Duration;

use probe_core::model::event::{PodEvent, Reason};
use probe_core::model::id::InstanceId;
use probe_core::model::limits::GRACE_MIN_S;
use probe_core::model::pod::{ContainerSpec, RestartPolicy, Role};
use probe_core::model::probe::ProbeKind;
use probe_core::model::time::Mono;

use super::super::book::{Cause, Kill, PodBook};
use super::{Observer, broken};

/// A kill as its event announces it.
struct Announced {
    cause: Cause,
    restarts: bool,
}

impl Observer {
    pub(super) fn killing(&mut self, now: Mono, event: &PodEvent, at: usize) {
        debug_assert_eq!(event.reason, Reason::Killing);
        let is_lossy = self.weather.is_lossy;
        let pod = self.pods.get_mut(&event.pod).expect("looked up before");
        let spec = pod.spec.containers[at].clone();
        let Some(announced) = announced(&spec, pod.spec.restart_policy, &event.message) else {
            broken("event wording", format_args!("{:?} of {}", event.message, spec.name));
        };
        let cause = announced.cause;
        // A hook's failure, or a killed child, may stand before the end of the same instance in one turn.
        let is_at_once = matches!(cause, Cause::PostStart | Cause::ChildOom);
        let just_ended = pod.containers[at].newest.as_ref().map(|run| run.instance);
        let just_ended = just_ended.filter(|id| is_at_once && self.ended_now.contains(id));
        let Some(instance) = pod.containers[at].running().or(just_ended) else {
            broken("only what runs is killed", format_args!("{event:?}"));
        };
        if pod.containers[at].current_kill().is_some() {
            broken("an instance is killed once", format_args!("{event:?}"));
        }
        if pod.plan.is_steady && !is_lossy && pod.deletion.is_none() {
            broken("a healthy pod is left alone", format_args!("{event:?}"));
        }
        let is_allowed = match cause {
            Cause::Liveness => failed_exactly(pod, at, ProbeKind::Liveness),
            Cause::Startup => failed_exactly(pod, at, ProbeKind::Startup),
            Cause::Definition => {
                let newest = pod.containers[at].newest.as_ref();
                newest.is_some_and(|run| run.spec_hash != spec.spec_hash)
            }
            Cause::PodStops => pod.deletion.is_some() || pod.stops_itself || pod.is_over(),
            Cause::PostStart => spec.post_start.is_some(),
            Cause::ChildOom => pod.containers[at].dies_of_oom == Some(instance),
        };
        let by_probe = matches!(cause, Cause::Liveness | Cause::Startup);
        if !is_allowed || by_probe && pod.deletion.is_some() {
            broken("a kill has its reason", format_args!("{event:?}: {:?}", pod.containers[at].probes));
        }
        pod.stops_itself |= cause == Cause::PodStops && pod.deletion.is_none();
        let container = &mut pod.containers[at];
        container.restart = announced.restarts.then_some(container.previous_ended);
        container.kill = Some(Kill { instance, at: now, cause, is_stopped: false });
        self.counts.liveness_kills += u64::from(cause == Cause::Liveness);
        self.counts.startup_kills += u64::from(cause == Cause::Startup);
    }

    pub(super) fn stop(&mut self, now: Mono, instance: InstanceId, grace: Duration) {
        let Some(pod) = self.pods.get_mut(&instance.pod) else {
            broken("only known pods are stopped", format_args!("{instance:?}"));
        };
        let (most_s, own_s) = (longest_grace_s(pod, instance), own_grace_s(pod, instance));
        let at = instance.container.at();
        let spec = &pod.spec.containers[at];
        let has_hook = spec.pre_stop.is_some();
        let deletion = pod.deletion;
        let Some(kill) = pod.containers[at].kill.as_mut().filter(|kill| kill.instance == instance) else {
            broken("a stop is announced", format_args!("{instance:?}"));
        };
        // A delete shortens a kill that is under way, and never makes it longer.
        let most_s =
            if deletion.is_some_and(|deletion| deletion.at > kill.at) { most_s.max(own_s) } else { most_s };
        let waited_s = if has_hook { now.since(kill.at).as_secs() } else { 0 };
        let left_s = u64::from(most_s).saturating_sub(waited_s).max(u64::from(GRACE_MIN_S));
        let is_plain = deletion.is_none() && kill.cause != Cause::PodStops;
        let most_left_s = u64::from(most_s.max(GRACE_MIN_S));
        let is_right = if is_plain { grace.as_secs() == left_s } else { grace.as_secs() <= most_left_s };
        let is_right = is_right && grace.as_secs() >= u64::from(GRACE_MIN_S);
        if !is_right && !kill.is_stopped {
            broken(
                "grace period",
                format_args!(
                    "{instance:?} {:?}: {grace:?}, by the books {left_s} s of {most_s} s",
                    kill.cause
                ),
            );
        }
        kill.is_stopped = true;
    }
}

/// The grace period of the current kill before any deduction, in seconds.
fn longest_grace_s(pod: &PodBook, instance: InstanceId) -> u32 {
    pod.deletion.map_or_else(|| own_grace_s(pod, instance), |deletion| deletion.grace_s)
}

/// The same for a pod that is not being deleted.
pub fn own_grace_s(pod: &PodBook, instance: InstanceId) -> u32 {
    let at = instance.container.at();
    let of_probe = |kind| pod.spec.containers[at].probe(kind).and_then(|probe| probe.termination_grace_s);
    let own = match pod.containers[at].kill.as_ref().map(|kill| kill.cause) {
        Some(Cause::Liveness) => of_probe(ProbeKind::Liveness),
        Some(Cause::Startup) => of_probe(ProbeKind::Startup),
        Some(Cause::Definition | Cause::PodStops | Cause::PostStart | Cause::ChildOom) | None => None,
    };
    own.unwrap_or(pod.spec.termination_grace_s)
}

fn failed_exactly(pod: &PodBook, at: usize, kind: ProbeKind) -> bool {
    let threshold = pod.spec.containers[at].probe(kind).map(|probe| probe.failure_threshold);
    let failed_after = pod.containers[at].probes[kind as usize].as_ref().and_then(|probe| probe.failed_after);
    failed_after.is_some() && failed_after == threshold
}

/// What the message of an event `Killing` says; None: these are not kubelet's words for this container.
fn announced(spec: &ContainerSpec, policy: RestartPolicy, message: &str) -> Option<Announced> {
    let name = &spec.name;
    let is_regular = spec.role == Role::Regular;
    let whole = if is_regular { format!("Container {name} ") } else { format!("Init container {name} ") };
    if message == format!("Stopping container {name}") {
        return Some(Announced { cause: Cause::PodStops, restarts: false });
    }
    if message == "FailedPostStartHook" {
        return Some(Announced { cause: Cause::PostStart, restarts: false });
    }
    let of_oom =
        message.strip_prefix(&format!("Container {name} ")).filter(|rest| rest.contains("OOM killer"));
    if let Some(rest) = of_oom {
        let restarts = !is_regular || policy != RestartPolicy::Never;
        let says_so =
            rest.ends_with(", will be restarted") || rest.ends_with(&format!("; {name} will be restarted"));
        let is_right = says_so == restarts;
        return is_right.then_some(Announced { cause: Cause::ChildOom, restarts });
    }
    let rest = message.strip_prefix(&whole)?;
    let (what, has_suffix) = match rest.strip_suffix(", will be restarted") {
        Some(what) => (what, true),
        None => (rest, false),
    };
    let cause = match what {
        "failed liveness probe" => Cause::Liveness,
        "failed startup probe" => Cause::Startup,
        "definition changed" => Cause::Definition,
        _ => return None,
    };
    let restarts = !is_regular || cause == Cause::Definition || policy != RestartPolicy::Never;
    (has_suffix == (is_regular && restarts)).then_some(Announced { cause, restarts })
}
