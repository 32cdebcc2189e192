//! Pods and events to fill a store with in tests.

use std::sync::Arc;

use probe_core::model::event::{PodEvent, Reason};
use probe_core::model::id::{ContainerId, PodUid};
use probe_core::model::pod::{
    ChildOomPolicy, ContainerSpec, PodSpec, RestartPolicy, Role, TerminationMessagePolicy,
};
use probe_core::model::status::{
    Condition, ContainerState, ContainerStatus, Phase, PodSnapshot, PodStatus, Terminated,
};
use probe_core::model::time::{Mono, Now, Wall};

/// 2026-01-01T00:00:00Z.
pub const NEW_YEAR_S: i64 = 1_767_225_600;

/// So many seconds after the new year, on both clocks.
pub fn at(seconds: u32) -> Now {
    Now { mono: Mono::from_ns(u64::from(seconds) * 1_000_000_000), wall: wall(seconds) }
}

pub fn wall(seconds: u32) -> Wall {
    Wall::from_ns((NEW_YEAR_S + i64::from(seconds)) * 1_000_000_000)
}

/// A pod `name` in namespace `default` with regular containers of these names.
pub fn spec(uid: u128, name: &str, containers: &[&str]) -> PodSpec {
    let manifest = serde_json::json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": containers.iter().map(|name| serde_json::json!({
                "name": name, "image": "busybox", "command": ["sleep", "1000"], "resources": {},
            })).collect::<Vec<_>>(),
        },
    });
    PodSpec {
        uid: PodUid(uid),
        namespace: "default".into(),
        name: name.into(),
        restart_policy: RestartPolicy::Always,
        termination_grace_s: 30,
        containers: containers.iter().map(|name| container(name)).collect(),
        base_dir: "/".into(),
        hostname: name.into(),
        readiness_gates: Vec::new(),
        manifest_json: manifest.to_string().into(),
    }
}

/// A snapshot with every container in its first, running instance since second 1.
pub fn running(spec: PodSpec) -> PodSnapshot {
    let containers = spec
        .containers
        .iter()
        .map(|container| status(&container.name, ContainerState::Running { started_at: wall(1) }));
    let ready =
        |kind| Condition { kind, is_true: true, reason: None, message: None, last_transition: wall(1) };
    let status = PodStatus {
        phase: Phase::Running,
        reason: None,
        message: None,
        conditions: ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(ready).into(),
        start_time: wall(0),
        deletion: None,
        containers: containers.collect(),
    };
    PodSnapshot { spec: Arc::new(spec), status }
}

pub fn status(name: &str, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        name: name.into(),
        role: Role::Regular,
        image: "busybox".into(),
        container_id: Some(ContainerId([0; 32])),
        restart_count: 0,
        ready: true,
        started: true,
        state,
        last_state: None,
        pid: Some(100),
    }
}

/// An end with exit code 1 of the instance with this container id.
pub fn ended(id: u8) -> Terminated {
    Terminated {
        exit_code: 1,
        signal: None,
        reason: "Error".into(),
        message: None,
        started_at: wall(1),
        finished_at: wall(5),
        container_id: ContainerId([id; 32]),
    }
}

pub fn event(pod: u128, name: &str, message: &str, at: Now) -> PodEvent {
    PodEvent {
        pod: PodUid(pod),
        namespace: "default".into(),
        pod_name: name.into(),
        container: Some((Role::Regular, "main".into())),
        reason: Reason::Unhealthy,
        message: message.into(),
        at,
    }
}

fn container(name: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        role: Role::Regular,
        image: "busybox".into(),
        command: vec!["sleep".into(), "1000".into()],
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        run_as_user: None,
        run_as_group: None,
        memory_limit_bytes: None,
        cpu_limit_millicores: None,
        ports: Vec::new(),
        startup: None,
        readiness: None,
        liveness: None,
        post_start: None,
        pre_stop: None,
        stop_signal: 15,
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::File,
        on_child_oom: ChildOomPolicy::Event,
        oom_kills_together: true,
        spec_hash: 1,
    }
}
