//! How long a container gets to end by itself (kubelet-semantics 13).

use std::time::Duration;

use super::actions::KillReason;
use crate::model::id::ContainerIx;
use crate::model::limits::GRACE_MIN_S;
use crate::model::pod::{PodSpec, Role};

/// Everything that can set a grace period, in seconds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct GraceSources {
    /// `deletionGracePeriodSeconds` of a pod that is being deleted: wins over all others.
    pub deletion_s: Option<u32>,
    /// The pod's `terminationGracePeriodSeconds`.
    pub pod_s: Option<u32>,
    /// `terminationGracePeriodSeconds` of the two probes that can kill.
    pub startup_s: Option<u32>,
    pub liveness_s: Option<u32>,
}

impl GraceSources {
    /// The sources of one container of a pod. `deletion_s` is None while the pod is not being deleted.
    pub fn of(spec: &PodSpec, container: ContainerIx, deletion_s: Option<u32>) -> GraceSources {
        let container = spec.containers.get(container.at());
        GraceSources {
            deletion_s,
            pod_s: Some(spec.termination_grace_s),
            startup_s: container.and_then(|c| c.startup.as_ref()?.termination_grace_s),
            liveness_s: container.and_then(|c| c.liveness.as_ref()?.termination_grace_s),
        }
    }

    /// The grace period G for a kill for this reason, in seconds, before the preStop hook. A probe's value
    /// counts only for its own kill and may be longer than the pod's.
    pub fn select(&self, reason: KillReason) -> u32 {
        if let Some(deletion_s) = self.deletion_s {
            return deletion_s;
        }
        let Some(pod_s) = self.pod_s else { return GRACE_MIN_S };
        let probe_s = match reason {
            KillReason::StartupProbe => self.startup_s,
            KillReason::LivenessProbe => self.liveness_s,
            KillReason::Other => None,
        };
        probe_s.unwrap_or(pod_s)
    }
}

/// How long the preStop hook may run with grace period `grace_s`; None: it is skipped.
pub fn hook_budget(grace_s: u32) -> Option<Duration> {
    (grace_s > 0).then(|| Duration::from_secs(u64::from(grace_s)))
}

/// The grace period left for the stop signal after waiting `waited` (for a preStop hook or for containers
/// that stop first), in seconds: whole seconds are deducted, and at least [`GRACE_MIN_S`] is left.
pub fn stop_timeout_s(grace_s: u32, waited: Duration) -> u32 {
    deduct_s(grace_s, waited).max(GRACE_MIN_S)
}

/// `grace_s` less the whole seconds of `waited`; may be 0.
pub fn deduct_s(grace_s: u32, waited: Duration) -> u32 {
    grace_s.saturating_sub(u32::try_from(waited.as_secs()).unwrap_or(u32::MAX))
}

/// The order in which a whole pod stops: everything but sidecars at once, then the sidecars one by one, the
/// last one first. Each wave starts when the ones before it have ended.
pub fn stop_waves(spec: &PodSpec) -> Vec<Vec<ContainerIx>> {
    let first = spec.indexed().filter(|(_, c)| c.role != Role::Sidecar).map(|(ix, _)| ix).collect();
    let mut sidecars: Vec<Vec<ContainerIx>> =
        spec.indexed().filter(|(_, c)| c.role == Role::Sidecar).map(|(ix, _)| vec![ix]).collect();
    sidecars.reverse();
    let mut waves = vec![first];
    waves.append(&mut sidecars);
    waves
}
