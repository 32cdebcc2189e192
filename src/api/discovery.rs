//! What this server can do, in the form that clients ask for it.

use axum::Json;
use serde_json::{Value, json};

/// The group of what Kubernetes has no resource for.
pub const OWN_GROUP: &str = "defib.dev";
/// Group and version.
pub const OWN_GROUP_VERSION: &str = "defib.dev/v1";
/// The kubelet that is emulated (design 9.1).
const EMULATED: (&str, &str) = ("1", "34");

pub async fn version() -> Json<Value> {
    let (major, minor) = EMULATED;
    Json(json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+defib-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", platform()),
    }))
}

pub async fn core_versions() -> Json<Value> {
    Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
}

pub async fn groups() -> Json<Value> {
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [own_group_object()]}))
}

pub async fn own_group() -> Json<Value> {
    Json(own_group_object())
}

pub async fn core_resources() -> Json<Value> {
    Json(json!({
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {
                "name": "events", "singularName": "event", "namespaced": true, "kind": "Event",
                "verbs": ["get", "list", "watch"], "shortNames": ["ev"],
            },
            {
                "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                "verbs": ["create", "delete", "get", "list", "update", "watch"],
                "shortNames": ["po"], "categories": ["all"],
            },
            {"name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
        ],
    }))
}

pub async fn own_resources() -> Json<Value> {
    Json(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": OWN_GROUP_VERSION,
        "resources": [
            {
                "name": "rawevents", "singularName": "rawevent", "namespaced": true, "kind": "RawEvent",
                "verbs": ["list"],
            },
            {
                "name": "pods/probe", "singularName": "", "namespaced": true, "kind": "ProbeResult",
                "verbs": ["create"],
            },
        ],
    }))
}

fn own_group_object() -> Value {
    let version = json!({"groupVersion": OWN_GROUP_VERSION, "version": "v1"});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": OWN_GROUP,
        "versions": [version], "preferredVersion": version,
    })
}

/// Go's name of the architecture.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
