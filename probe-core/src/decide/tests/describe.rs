//! Group DESC.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Probe};
use serde_json::{Value, json};

use crate::decide::describe::{container_status, probe};

const ATTRS: &str = "delay=0s timeout=1s period=10s #success=1 #failure=3";

/// A probe with kubelet's defaults around `handler`.
fn check(id: &str, handler: Value, expected: &str) {
    let mut object = json!({
        "initialDelaySeconds": 0, "timeoutSeconds": 1, "periodSeconds": 10,
        "successThreshold": 1, "failureThreshold": 3,
    });
    object.as_object_mut().unwrap().extend(handler.as_object().unwrap().clone());
    let parsed: Probe = serde_json::from_value(object).unwrap();
    let text = probe(&parsed, Duration::from_secs(1), Duration::from_secs(10));
    assert_eq!(text, format!("{expected} {ATTRS}"), "{id}");
}

#[test]
fn probe_lines() {
    let cases = [
        ("DESC-01", json!({"exec": {"command": ["cat", "/tmp/health"]}}), "exec [cat /tmp/health]"),
        (
            "DESC-02",
            json!({"httpGet": {"port": 8080, "path": "/healthz", "scheme": "HTTP"}}),
            "http-get http://:8080/healthz",
        ),
        (
            "DESC-03",
            json!({"httpGet": {"host": "h", "port": "http", "path": "/", "scheme": "HTTPS"}}),
            "http-get https://h:http/",
        ),
        (
            "18: the path is escaped",
            json!({"httpGet": {"port": 80, "path": "/a?b", "scheme": "HTTP"}}),
            "http-get http://:80/a%3Fb",
        ),
        ("18: tcp", json!({"tcpSocket": {"port": 8080}}), "tcp-socket :8080"),
        ("DESC-06", json!({"grpc": {"port": 5000, "service": ""}}), "grpc <pod>:5000 "),
        ("DESC-07", json!({"grpc": {"port": 5000, "service": "foo"}}), "grpc <pod>:5000 foo"),
        ("DESC-08", json!({}), "unknown"),
    ];
    for (id, handler, expected) in cases {
        check(id, handler, expected);
    }
}

fn lines(status: Value) -> Vec<String> {
    let status: ContainerStatus = serde_json::from_value(status).unwrap();
    let show = |line: &crate::decide::describe::Line| {
        format!("{}{}: {}", "  ".repeat(line.depth), line.key, line.value)
    };
    container_status(&status).iter().map(show).collect()
}

#[test]
fn state_blocks() {
    let waiting = json!({
        "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error",
            "startedAt": "2024-01-02T03:04:05Z", "finishedAt": "2024-01-02T03:04:06Z"}},
    });
    let expected = [
        "State: Waiting",
        "  Reason: CrashLoopBackOff",
        "Last State: Terminated",
        "  Reason: Error",
        "  Exit Code: 1",
        "  Started: Tue, 02 Jan 2024 03:04:05 +0000",
        "  Finished: Tue, 02 Jan 2024 03:04:06 +0000",
        "Ready: False",
        "Restart Count: 4",
    ];
    assert_eq!(lines(waiting), expected, "DESC-09");
    let running = json!({
        "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2024-01-02T03:04:05Z"}},
    });
    let expected =
        ["State: Running", "  Started: Tue, 02 Jan 2024 03:04:05 +0000", "Ready: True", "Restart Count: 0"];
    assert_eq!(lines(running), expected, "18: running");
}

#[test]
fn milliseconds_are_shown_as_such() {
    let parsed: Probe = serde_json::from_value(json!({"tcpSocket": {"port": 1}})).unwrap();
    let text = probe(&parsed, Duration::from_millis(50), Duration::from_millis(1_500));
    assert_eq!(text, "tcp-socket :1 delay=0s timeout=50ms period=1500ms #success=0 #failure=0");
}
