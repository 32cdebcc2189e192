//! Goldens. `golden/*.txt` is what kubectl 1.33 printed for `describe pod` of the pod and the events beside
//! it, served by defib (with `fieldRef.apiVersion` filled in, which an API server does).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};

use super::pods::{Columns, Shown};
use super::{describe, events, pods};

const NEW_YEAR_S: i64 = 1_767_225_600;

/// So many seconds into 2026.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NEW_YEAR_S + seconds).unwrap()
}

fn time(seconds: i64) -> Value {
    json!(at(seconds).to_string())
}

fn described(golden: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut golden: Value = serde_json::from_str(golden).unwrap();
    edit(&mut golden);
    let now = Timestamp::from_second(golden["nowSeconds"].as_i64().unwrap()).unwrap();
    let pod: Pod = serde_json::from_value(golden["pod"].take()).unwrap();
    let events: Vec<Event> = serde_json::from_value(golden["events"].take()).unwrap();
    describe::pod(&pod, &events, now)
}

#[test]
fn describe_is_kubectls() {
    for (golden, expected) in [
        (include_str!("golden/two.json"), include_str!("golden/two.txt")),
        (include_str!("golden/init.json"), include_str!("golden/init.txt")),
    ] {
        assert_eq!(described(golden, |_| ()), expected);
    }
}

#[test]
fn describe_of_a_pod_that_is_being_deleted() {
    let text = described(include_str!("golden/two.json"), |golden| {
        let now_s = golden["nowSeconds"].as_i64().unwrap();
        golden["pod"]["metadata"]["deletionTimestamp"] =
            json!(Timestamp::from_second(now_s - 5).unwrap().to_string());
        golden["pod"]["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        golden["pod"]["spec"]["containers"][1]["volumeMounts"] =
            json!([{"name": "v", "mountPath": "/v", "readOnly": true}]);
        golden["events"] = json!([]);
    });
    assert!(text.contains("\nStatus:                    Terminating (lasts 5s)\n"), "{text}");
    assert!(text.contains("\nTermination Grace Period:  30s\n"), "{text}");
    assert!(text.contains("\n    Mounts:\n      /v from v (ro)\n"), "{text}");
    assert!(text.ends_with("Tolerations:        <none>\nEvents:             <none>\n"), "{text}");
}

/// A pod with these container statuses, its row without the age.
fn row_of(edit: impl FnOnce(&mut Value)) -> String {
    let container = |name: &str| json!({"name": name, "image": "i"});
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "n", "creationTimestamp": time(0)},
        "spec": {"containers": [container("a"), container("b")], "nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [condition("Initialized", "True"), condition("Ready", "True")],
            "containerStatuses": [running("a"), running("b")],
        },
    });
    edit(&mut pod);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let columns = Columns { namespace: Shown::No, wide: Shown::No };
    let row = pods::row(&pod, columns, at(200));
    assert_eq!((row.len(), &*row[4]), (5, "3m20s"));
    row[1..4].join(" ")
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status})
}

fn status(name: &str, state: Value) -> Value {
    json!({
        "name": name, "image": "i", "imageID": "", "ready": false, "started": false,
        "restartCount": 0, "state": state, "lastState": {},
    })
}

fn running(name: &str) -> Value {
    let mut status = status(name, json!({"running": {"startedAt": time(1)}}));
    status["ready"] = json!(true);
    status["started"] = json!(true);
    status
}

fn ended(name: &str, end: Value) -> Value {
    status(name, json!({"terminated": end}))
}

fn waiting(name: &str, reason: &str) -> Value {
    status(name, json!({"waiting": {"reason": reason}}))
}

#[test]
fn rows_of_pods() {
    assert_eq!(row_of(|_| ()), "2/2 Running 0");
    let regular = |status: Value| row_of(|pod| pod["status"]["containerStatuses"][0] = status);
    assert_eq!(regular(waiting("a", "CrashLoopBackOff")), "1/2 CrashLoopBackOff 0");
    assert_eq!(regular(ended("a", json!({"exitCode": 0, "reason": "Completed"}))), "1/2 Running 0");
    assert_eq!(regular(ended("a", json!({"exitCode": 3, "reason": "Error"}))), "1/2 Error 0");
    assert_eq!(regular(ended("a", json!({"exitCode": 3}))), "1/2 ExitCode:3 0");
    assert_eq!(regular(ended("a", json!({"exitCode": 137, "signal": 9}))), "1/2 Signal:9 0");
    let not_ready = row_of(|pod| {
        pod["status"]["containerStatuses"][0] = ended("a", json!({"exitCode": 0, "reason": "Completed"}));
        pod["status"]["conditions"] = json!([condition("Ready", "False")]);
    });
    assert_eq!(not_ready, "1/2 NotReady 0");
    let restarted = row_of(|pod| {
        let statuses = &mut pod["status"]["containerStatuses"];
        statuses[0]["restartCount"] = json!(1);
        statuses[0]["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": time(20)}});
        statuses[1]["restartCount"] = json!(2);
        statuses[1]["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": time(10)}});
    });
    assert_eq!(restarted, "2/2 Running 3 (3m ago)");
    let terminating = |phase: &str| {
        row_of(|pod| {
            pod["metadata"]["deletionTimestamp"] = time(100);
            pod["status"]["phase"] = json!(phase);
            pod["status"]["containerStatuses"] = json!([]);
        })
    };
    assert_eq!(terminating("Running"), "0/2 Terminating 0");
    assert_eq!(terminating("Failed"), "0/2 Failed 0");
    let rejected = row_of(|pod| {
        pod["status"] = json!({"phase": "Failed", "reason": "NodePorts"});
    });
    assert_eq!(rejected, "0/2 NodePorts 0");
}

#[test]
fn rows_of_pods_with_init_containers() {
    let init = |statuses: Value| {
        row_of(|pod| {
            pod["spec"]["initContainers"] =
                json!([{"name": "s", "restartPolicy": "Always"}, {"name": "i"}, {"name": "j"}]);
            pod["status"]["initContainerStatuses"] = statuses;
            pod["status"]["conditions"] = json!([condition("Initialized", "False")]);
            pod["status"]["containerStatuses"] =
                json!([waiting("a", "PodInitializing"), waiting("b", "PodInitializing")]);
        })
    };
    let done = |name: &str| ended(name, json!({"exitCode": 0, "reason": "Completed"}));
    let started = |name: &str| status(name, json!({"running": {"startedAt": time(1)}}));
    let not_begun = || waiting("j", "PodInitializing");
    assert_eq!(init(json!([started("s"), not_begun(), not_begun()])), "0/3 Init:0/3 0");
    assert_eq!(init(json!([running("s"), started("i"), not_begun()])), "1/3 Init:1/3 0");
    assert_eq!(init(json!([running("s"), done("i"), not_begun()])), "1/3 Init:2/3 0");
    let failed = ended("i", json!({"exitCode": 1, "reason": "Error"}));
    assert_eq!(init(json!([running("s"), failed, not_begun()])), "1/3 Init:Error 0");
    let back_off = waiting("i", "CrashLoopBackOff");
    assert_eq!(init(json!([running("s"), back_off, not_begun()])), "1/3 Init:CrashLoopBackOff 0");
    assert_eq!(init(json!([running("s"), done("i"), done("j")])), "1/3 PodInitializing 0");
}

#[test]
fn wide_rows_and_heads() {
    let wide = Columns { namespace: Shown::Yes, wide: Shown::Yes };
    let head = "NAMESPACE|NAME|READY|STATUS|RESTARTS|AGE|IP|NODE|NOMINATED NODE|READINESS GATES";
    assert_eq!(pods::head(wide).join("|"), head);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [], "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
        "status": {"conditions": [condition("x", "True")]},
    }))
    .unwrap();
    let row = pods::row(&pod, wide, at(0)).join("|");
    assert_eq!(row, "n|p|0/0||0|<unknown>|<none>|<none>|<none>|1/2");
}

#[test]
fn rows_of_events() {
    let row = |edit: fn(&mut Value), columns| {
        let mut event = json!({
            "metadata": {"name": "p.1", "namespace": "n"},
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "type": "Warning", "reason": "Unhealthy", "message": " Liveness probe failed: x\n", "count": 1,
            "firstTimestamp": time(0), "lastTimestamp": time(0),
            "source": {"component": "kubelet", "host": "node-1"},
        });
        edit(&mut event);
        let event: Event = serde_json::from_value(event).unwrap();
        events::row(&event, columns, at(300)).join("|")
    };
    let narrow = Columns { namespace: Shown::No, wide: Shown::No };
    let wide = Columns { namespace: Shown::Yes, wide: Shown::Yes };
    let message = "Liveness probe failed: x";
    assert_eq!(row(|_| (), narrow), format!("5m|Warning|Unhealthy|pod/p|{message}"));
    let repeated = |event: &mut Value| {
        event["count"] = json!(3);
        event["lastTimestamp"] = time(180);
    };
    assert_eq!(row(repeated, narrow), format!("2m (x3 over 5m)|Warning|Unhealthy|pod/p|{message}"));
    assert_eq!(
        row(|_| (), wide),
        format!("n|5m|Warning|Unhealthy|pod/p|spec.containers{{a}}|kubelet, node-1|{message}|5m|1|p.1")
    );
    assert_eq!(events::head(wide).len(), 11);
    assert_eq!(events::head(narrow).join("|"), "LAST SEEN|TYPE|REASON|OBJECT|MESSAGE");
}
