//! Why `defib run` ends with exit code 1, in words: they are said before the pods are removed, and their status with
//! them.

use probe_core::model::pod::Role;
use probe_core::model::status::{ContainerState, ContainerStatus, PodSnapshot, Terminated};

/// Of a failed pod a line for each container that failed it; one line of the pod itself if it was refused.
pub fn failures(pod: &PodSnapshot) -> Vec<String> {
    let name = &pod.spec.name;
    let named = |status: &ContainerStatus| {
        let Terminated { exit_code, reason, .. } = failure(status)?;
        Some(format!("pod/{name}: container {}: {reason}, exit code {exit_code}", status.name))
    };
    let lines: Vec<String> = pod.status.containers.iter().filter_map(named).collect();
    if !lines.is_empty() {
        return lines;
    }
    let reason = pod.status.reason.as_deref().unwrap_or("Failed");
    let message = pod.status.message.as_deref().unwrap_or("no container of it failed");
    vec![format!("pod/{name}: {reason}: {message}")]
}

/// How the container ended, if that fails its pod; a sidecar's end never does.
fn failure(status: &ContainerStatus) -> Option<&Terminated> {
    let ended = match &status.state {
        ContainerState::Terminated(ended) => Some(ended),
        ContainerState::Waiting { .. } => status.last_state.as_ref(),
        ContainerState::Running { .. } => None,
    };
    ended.filter(|ended| ended.exit_code != 0 && status.role != Role::Sidecar)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::store::samples::{ended, running, spec, status};

    #[test]
    fn every_container_that_failed_is_named() {
        let mut pod = running(spec(1, "one", &["m", "well", "side"]));
        let oom = Terminated { exit_code: 137, reason: "OOMKilled".into(), ..ended(1) };
        let well = Terminated { exit_code: 0, reason: "Completed".into(), ..ended(1) };
        pod.status.containers[0] = status("m", ContainerState::Terminated(oom));
        pod.status.containers[1] = status("well", ContainerState::Terminated(well));
        pod.status.containers[2] = status("side", ContainerState::Terminated(ended(1)));
        pod.status.containers[2].role = Role::Sidecar;
        assert_eq!(failures(&pod), ["pod/one: container m: OOMKilled, exit code 137"]);
        let waiting = ContainerState::Waiting { reason: "PodInitializing".into(), message: None };
        pod.status.containers[0] = ContainerStatus { last_state: Some(ended(1)), ..status("m", waiting) };
        assert_eq!(failures(&pod), ["pod/one: container m: Error, exit code 1"]);
    }

    #[test]
    fn a_pod_that_was_refused() {
        let mut pod = running(spec(1, "one", &["m"]));
        pod.status.reason = Some(Cow::Borrowed("NodePorts"));
        pod.status.message = Some("Pod was rejected: its ports are taken".into());
        assert_eq!(failures(&pod), ["pod/one: NodePorts: Pod was rejected: its ports are taken"]);
    }
}
