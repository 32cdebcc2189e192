//! What the API server fills in (kubelet-semantics 1). A zero is the same as a field that was left out.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};

const GRACE_DEFAULT_S: i64 = 30;
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Fills the defaults in. `initial_delay_s` is for probes that give no delay of their own.
pub fn apply(pod: &mut Pod, initial_delay_s: i32) {
    let metadata = &mut pod.metadata;
    if metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        metadata.namespace = Some("default".into());
    }
    let Some(spec) = &mut pod.spec else { return };
    let PodSpec { containers, init_containers, restart_policy, termination_grace_period_seconds, .. } = spec;
    fill(restart_policy, "Always");
    termination_grace_period_seconds.get_or_insert(GRACE_DEFAULT_S);
    for container in init_containers.iter_mut().flatten().chain(containers) {
        apply_container(container, initial_delay_s);
    }
}

fn apply_container(container: &mut Container, initial_delay_s: i32) {
    fill(&mut container.termination_message_path, TERMINATION_LOG);
    fill(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
    }
    for var in container.env.iter_mut().flatten() {
        if let Some(field) = var.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
            fill(&mut field.api_version, "v1");
        }
    }
    let probes =
        [&mut container.startup_probe, &mut container.readiness_probe, &mut container.liveness_probe];
    for probe in probes.into_iter().flatten() {
        apply_probe(probe, initial_delay_s);
    }
    let lifecycle = container.lifecycle.iter_mut();
    for hook in lifecycle.flat_map(|both| both.post_start.iter_mut().chain(both.pre_stop.iter_mut())) {
        if let Some(http) = &mut hook.http_get {
            fill(&mut http.path, "/");
            fill(&mut http.scheme, "HTTP");
        }
    }
}

fn apply_probe(probe: &mut Probe, initial_delay_s: i32) {
    if initial_delay_s > 0 {
        probe.initial_delay_seconds.get_or_insert(initial_delay_s);
    }
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    if let Some(http) = &mut probe.http_get {
        fill(&mut http.path, "/");
        fill(&mut http.scheme, "HTTP");
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn fill(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.into());
    }
}

fn number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(default);
    }
}
