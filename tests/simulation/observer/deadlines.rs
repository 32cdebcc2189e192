//! What has to happen within some time: restarts, kills of hung containers, readiness, the end of a deleted pod.
//! Time is virtual, so the bounds are exact but for the delays that the weather of the seed allows.

use std::time::Duration;

use probe_core::model::id::{ContainerIx, PodUid};
use probe_core::model::pod::Role;
use probe_core::model::probe::{ProbeKind, ProbeSpec};
use probe_core::model::time::Mono;

use super::super::book::{ContainerBook, PodBook, ProbeBook};
use super::super::health::Expected;
use super::super::plan::Term;
use super::super::runtime::{Runtime, Stage};
use super::stops::own_grace_s;
use super::{Observer, broken};

/// How often this is looked at.
pub const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Longest time that the simulated runtime takes to create and start.
const START_MAX: Duration = Duration::from_secs(10);
/// Longest time from the stop signal to the exit of a container that obeys, and of its clean-up.
const STOP_MAX: Duration = Duration::from_secs(3);
const CLEANUP_MAX: Duration = Duration::from_secs(4);
const FAILED_START_WAIT: Duration = Duration::from_secs(10);

impl Observer {
    pub fn scan(&mut self, now: Mono, truth: &Runtime) {
        let slack = self.slack + SCAN_EVERY;
        let is_lossy = self.weather.is_lossy;
        for (uid, pod) in &mut self.pods {
            check_deletion(now, *uid, pod, slack);
            for at in 0..pod.containers.len() {
                let could = may_start_now(pod, at);
                let since = &mut pod.containers[at].could_start_since;
                *since = if could { since.or(Some(now)) } else { None };
                check_start(now, *uid, pod, at, slack);
                check_stop(now, *uid, pod, at, slack);
                check_failed(now, *uid, pod, at, slack);
                for probe in pod.containers[at].probes.iter().flatten() {
                    check_probe(now, *uid, pod, at, probe, truth, slack, is_lossy);
                }
            }
        }
    }
}

/// Nothing but back-off keeps the container from being started.
fn may_start_now(pod: &PodBook, at: usize) -> bool {
    let container = &pod.containers[at];
    let role = pod.spec.containers[at].role;
    // A postStart hook holds up what comes after it; only the status shows when it is over.
    let is_up = |other: usize| pod.status.as_ref().is_some_and(|status| status.containers[other].started);
    let sidecars_are_up = pod.spec.containers.iter().enumerate().all(|(other, spec)| {
        spec.role != Role::Sidecar || other >= at && role != Role::Regular || is_up(other)
    });
    let is_blocked = pod.stops_itself || pod.is_over() || pod.is_finished() || !sidecars_are_up;
    container.attempt.is_none() && pod.wants(at) && pod.is_its_turn(at) && !is_blocked
}

fn check_start(now: Mono, uid: PodUid, pod: &PodBook, at: usize, slack: Duration) {
    let container = &pod.containers[at];
    let Some(since) = container.could_start_since else { return };
    let ended = container.newest.as_ref().and_then(|run| run.ended).map(|(at, _)| at);
    let wait = container.waits.wait(ended).unwrap_or_default();
    let by_backoff = ended.map_or(Mono::ZERO, |ended| ended.after(wait));
    let by_failure = container.failed_at.map_or(Mono::ZERO, |failed| failed.after(FAILED_START_WAIT));
    let due = since.max(by_backoff).max(by_failure).max(container.idle_since);
    if now > due.after(slack) {
        broken(
            "a container that may start is started",
            format_args!("{uid} {at}: due {due:?}, it is {now:?}"),
        );
    }
}

fn check_stop(now: Mono, uid: PodUid, pod: &PodBook, at: usize, slack: Duration) {
    let container = &pod.containers[at];
    let Some(kill) = container.current_kill() else { return };
    let own = kill.at.after(Duration::from_secs(own_grace_s(pod, kill.instance).into()));
    let by_delete = pod.deletion.map_or(Mono::ZERO, |it| it.at.after(Duration::from_secs(it.grace_s.into())));
    let due = own.max(by_delete);
    if container.running().is_some() && !kill.is_stopped && now > due.after(slack) {
        broken("a hook does not hold a kill up", format_args!("{uid} {at}: due {due:?}, it is {now:?}"));
    }
}

/// A probe has failed for good: whatever else went on in the pod, its container is killed at last.
fn check_failed(now: Mono, uid: PodUid, pod: &PodBook, at: usize, slack: Duration) {
    let container = &pod.containers[at];
    let failed = |probe: &&ProbeBook| probe.failed_after.is_some() && probe.kind != ProbeKind::Readiness;
    let Some(probe) = container.probes.iter().flatten().find(failed) else { return };
    let others = pod.containers.iter().filter(|other| other.restart.is_some() || other.attempt.is_none());
    let is_busy = others.count() > 0;
    let due = probe.result_since.after(START_MAX + CLEANUP_MAX);
    if container.running().is_some() && !is_dying(pod, container) && !is_busy && now > due.after(slack) {
        broken("a failed probe kills", format_args!("{uid} {at}: {probe:?}, it is {now:?}"));
    }
}

fn check_deletion(now: Mono, uid: PodUid, pod: &PodBook, slack: Duration) {
    let Some(deletion) = pod.deletion else { return };
    if pod.plan.natures.iter().any(|nature| matches!(nature.term, Term::Unkillable { .. })) {
        return;
    }
    let sidecars = pod.spec.containers.iter().filter(|spec| spec.role == Role::Sidecar).count();
    let waves = u32::try_from(1 + sidecars).unwrap_or(u32::MAX);
    let grace = Duration::from_secs(u64::from(deletion.grace_s.max(2)));
    let most = grace + START_MAX + (STOP_MAX + CLEANUP_MAX + slack) * waves;
    if now > deletion.at.after(most) {
        broken("every deleted pod ends", format_args!("{uid}, deleted {:?}, it is {now:?}", deletion.at));
    }
}

#[expect(clippy::too_many_arguments, reason = "one check of one probe against everything known")]
fn check_probe(
    now: Mono,
    uid: PodUid,
    pod: &PodBook,
    at: usize,
    probe: &ProbeBook,
    truth: &Runtime,
    slack: Duration,
    is_lossy: bool,
) {
    let container = &pod.containers[at];
    let spec = pod.spec.containers[at].probe(probe.kind);
    let (Some(armed), Some(spec), Some(instance)) = (&probe.armed, spec, container.running()) else { return };
    let Some(real) = truth.instance(instance).filter(|real| real.stage == Stage::Running) else { return };
    let (health, since) = real.health[probe.kind as usize];
    let begun = since.max(armed.first_due).max(armed.since);
    let passes = match health.expected(&spec.handler) {
        Expected::Passes if is_lossy => return,
        Expected::Passes => true,
        Expected::Fails => false,
        Expected::Errs => return,
    };
    let due = begun.after(longest(spec, passes));
    let is_known = match (probe.kind, passes) {
        (_, true) => probe.result == Some(true) || probe.kind == ProbeKind::Liveness,
        (ProbeKind::Readiness, false) => probe.result != Some(true),
        (ProbeKind::Liveness | ProbeKind::Startup, false) => is_dying(pod, container),
    };
    if !is_known && now > due.after(slack) {
        let ix = ContainerIx(u16::try_from(at).unwrap_or(u16::MAX));
        broken(
            "a change of health is noticed in time",
            format_args!(
                "{uid} {ix:?} {:?} is {health:?} since {since:?}, due {due:?}: {probe:?}",
                probe.kind
            ),
        );
    }
}

fn is_dying(pod: &PodBook, container: &ContainerBook) -> bool {
    container.current_kill().is_some() || pod.deletion.is_some() || pod.stops_itself
}

/// From a change of health to the threshold: what ran before may go on for three attempts, the next run may be a
/// period away, and so may each one that is needed.
fn longest(spec: &ProbeSpec, passes: bool) -> Duration {
    let (period, timeout) = (spec.period, spec.timeout);
    let runs = if passes { spec.success_threshold } else { spec.failure_threshold };
    timeout * 3 + period + period.max(timeout) * runs
}
