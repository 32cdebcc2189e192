//! Pods and events as JSON of the Kubernetes API.

use probe_core::decide::events::MergedEvent;
use probe_core::model::event::PodEvent;
use probe_core::model::id::PodUid;
use probe_core::model::pod::Role;
use probe_core::model::status::{Condition, ContainerState, ContainerStatus, Phase, PodStatus, Terminated};
use probe_core::model::time::Wall;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::discovery::OWN_GROUP_VERSION;
use super::labels::Labels;
use super::qos;
use crate::store::{EventObject, PodObject};

/// Every pod shares the host's network (issue 2), so this is its address and the node's.
pub const HOST_IP: &str = "127.0.0.1";
/// What events say they come from: people's tools filter on kubelet's name.
pub const EVENT_COMPONENT: &str = "kubelet";

/// A `v1` `Pod`.
pub fn pod(object: &PodObject, node_name: &str) -> Value {
    let spec = &object.snapshot.spec;
    let status = &object.snapshot.status;
    // The manifest was made by `spec` from a valid pod; should it ever not parse, the status still shows.
    let mut manifest: Map<String, Value> = serde_json::from_str(&spec.manifest_json).unwrap_or_default();
    let mut metadata = take_object(&mut manifest, "metadata");
    metadata.insert("name".into(), json!(spec.name));
    metadata.insert("namespace".into(), json!(spec.namespace));
    metadata.insert("uid".into(), json!(spec.uid.to_string()));
    metadata.insert("resourceVersion".into(), json!(object.version.to_string()));
    metadata.insert("creationTimestamp".into(), json!(timestamp(status.start_time)));
    if let Some(deletion) = status.deletion {
        metadata.insert("deletionTimestamp".into(), json!(timestamp(deletion.at)));
        metadata.insert("deletionGracePeriodSeconds".into(), json!(deletion.grace_s));
    }
    let mut pod_spec = take_object(&mut manifest, "spec");
    pod_spec.insert("nodeName".into(), json!(node_name));
    let status = pod_status(status, qos::class_of(&pod_spec));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec, "status": status})
}

/// The labels of the pod's manifest.
pub fn labels(object: &PodObject) -> Labels {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Manifest {
        metadata: Metadata,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Metadata {
        labels: Option<Labels>,
    }
    let manifest: Manifest = serde_json::from_str(&object.snapshot.spec.manifest_json).unwrap_or_default();
    manifest.metadata.labels.unwrap_or_default()
}

/// A `v1` `Event`.
pub fn event(object: &EventObject, node_name: &str) -> Value {
    let line = &*object.line;
    let event = &line.event;
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": event_name(line),
            "namespace": event.namespace,
            "uid": event_uid(line).to_string(),
            "resourceVersion": object.version.to_string(),
            "creationTimestamp": timestamp(line.first.wall),
        },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": event.namespace,
            "name": event.pod_name,
            "uid": event.pod.to_string(),
            "fieldPath": event.field_path(),
        },
        "type": event.reason.severity().as_str(),
        "reason": event.reason.as_str(),
        "message": event.message,
        "count": line.count,
        "firstTimestamp": timestamp(line.first.wall),
        "lastTimestamp": timestamp(line.last.wall),
        "eventTime": null,
        "source": {"component": EVENT_COMPONENT, "host": node_name},
        "reportingComponent": EVENT_COMPONENT,
        "reportingInstance": node_name,
    })
}

/// One event of the raw stream, with its time in nanoseconds.
pub fn raw_event(event: &PodEvent) -> Value {
    // A time outside jiff's range cannot be read from a clock.
    let time = jiff::Timestamp::from_nanosecond(i128::from(event.at.wall.as_ns())).unwrap_or_default();
    json!({
        "kind": "RawEvent",
        "apiVersion": OWN_GROUP_VERSION,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
        "monotonicNs": event.at.mono.as_ns(),
        "namespace": event.namespace,
        "pod": event.pod_name,
        "podUid": event.pod.to_string(),
        "fieldPath": event.field_path(),
        "type": event.reason.severity().as_str(),
        "reason": event.reason.as_str(),
        "message": event.message,
    })
}

/// `<pod>.<hex>` as client-go names events by their time; the low bits are the line's number, since events
/// of one turn carry the same time.
pub fn event_name(line: &MergedEvent) -> String {
    format!("{}.{:016x}", line.event.pod_name, event_number(line))
}

/// RFC 3339 with whole seconds: the form of `meta/v1.Time`.
pub fn timestamp(at: Wall) -> String {
    // Years outside jiff's range cannot be read from a clock.
    let time = jiff::Timestamp::from_second(at.as_s()).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn event_uid(line: &MergedEvent) -> PodUid {
    // A version 8 (custom) UUID.
    const VERSION_AND_VARIANT: u128 = 0x8 << 76 | 0x2 << 62;
    let high = u128::from(event_number(line)) << 80;
    PodUid(high | VERSION_AND_VARIANT | u128::from(line.id & 0xffff_ffff))
}

fn event_number(line: &MergedEvent) -> u64 {
    const ID_BITS: u64 = (1 << 20) - 1;
    (line.first.wall.as_ns() as u64 & !ID_BITS) | (line.id & ID_BITS)
}

fn pod_status(status: &PodStatus, qos: &'static str) -> Value {
    // A rejected pod has no containers: kubelet shows none, and readers then look at the pod's own reason.
    let never_was = |container: &ContainerStatus| container.container_id.is_none();
    let is_rejected = status.phase == Phase::Failed && status.containers.iter().all(never_was);
    let shown: &[ContainerStatus] = if is_rejected { &[] } else { &status.containers };
    let (init, regular): (Vec<_>, Vec<_>) =
        shown.iter().partition(|container| container.role != Role::Regular);
    let render = |containers: Vec<&ContainerStatus>| containers.into_iter().map(container_status).collect();
    let mut out = json!({
        "phase": status.phase.as_str(),
        "conditions": status.conditions.iter().map(condition).collect::<Vec<_>>(),
        "hostIP": HOST_IP,
        "hostIPs": [{"ip": HOST_IP}],
        "podIP": HOST_IP,
        "podIPs": [{"ip": HOST_IP}],
        "startTime": timestamp(status.start_time),
        "containerStatuses": Value::Array(render(regular)),
        "qosClass": qos,
    });
    if !init.is_empty() {
        out["initContainerStatuses"] = Value::Array(render(init));
    }
    if let Some(reason) = &status.reason {
        out["reason"] = json!(reason);
    }
    if let Some(message) = &status.message {
        out["message"] = json!(message);
    }
    out
}

fn condition(condition: &Condition) -> Value {
    let mut out = json!({
        "type": condition.kind,
        "status": if condition.is_true { "True" } else { "False" },
        "lastProbeTime": null,
        "lastTransitionTime": timestamp(condition.last_transition),
    });
    if let Some(reason) = condition.reason {
        out["reason"] = json!(reason);
    }
    if let Some(message) = &condition.message {
        out["message"] = json!(message);
    }
    out
}

fn container_status(status: &ContainerStatus) -> Value {
    let state = match &status.state {
        ContainerState::Waiting { reason, message } => {
            let mut waiting = Map::new();
            if !reason.is_empty() {
                waiting.insert("reason".into(), json!(reason));
            }
            if let Some(message) = message {
                waiting.insert("message".into(), json!(message));
            }
            json!({"waiting": waiting})
        }
        ContainerState::Running { started_at } => json!({"running": {"startedAt": timestamp(*started_at)}}),
        ContainerState::Terminated(ended) => json!({"terminated": terminated(ended)}),
    };
    let last = status.last_state.as_ref().map(|last| json!({"terminated": terminated(last)}));
    let mut out = json!({
        "name": status.name,
        "state": state,
        "lastState": last.unwrap_or_else(|| json!({})),
        "ready": status.ready,
        "started": status.started,
        "restartCount": status.restart_count,
        "image": status.image,
        "imageID": "",
    });
    if let Some(id) = status.container_id {
        out["containerID"] = json!(id.to_string());
    }
    out
}

fn terminated(ended: &Terminated) -> Value {
    let mut out = json!({
        "exitCode": ended.exit_code,
        "reason": ended.reason,
        "startedAt": timestamp(ended.started_at),
        "finishedAt": timestamp(ended.finished_at),
        "containerID": ended.container_id.to_string(),
    });
    if let Some(signal) = ended.signal {
        out["signal"] = json!(signal);
    }
    if let Some(message) = &ended.message {
        out["message"] = json!(message);
    }
    out
}

fn take_object(from: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match from.remove(key) {
        Some(Value::Object(object)) => object,
        Some(_) | None => Map::new(),
    }
}
