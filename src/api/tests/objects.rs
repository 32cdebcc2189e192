use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::json;

use super::world::{START, with_api};
use crate::store::StoreUpdate;
use crate::store::samples::{at, event};

#[test]
fn discovery_and_unknown_paths() {
    with_api(|world| async move {
        assert_eq!(world.get("/version").await.body["minor"], "34");
        assert_eq!(world.get("/api").await.body["versions"], json!(["v1"]));
        assert_eq!(world.get("/apis").await.body["groups"][0]["name"], "defib.dev");
        let resources = world.get("/api/v1").await.body;
        assert_eq!(resources["resources"][1]["name"], "pods");
        let nowhere = world.get("/apis/apps/v1").await;
        nowhere.assert_error(404, "NotFound", "the server could not find the requested resource");
        let patch = world.call("PATCH", "/api/v1/namespaces/default/pods/a", "{}").await;
        let text = "the server does not allow this method on the requested resource";
        patch.assert_error(405, "MethodNotAllowed", text);
    });
}

#[test]
fn a_pod_as_the_api_shows_it() {
    with_api(|world| async move {
        world.publish(7, "a", &["main"]);
        let body = world.get("/api/v1/namespaces/default/pods/a").await.body;
        assert_eq!(body["metadata"]["uid"], "00000000-0000-0000-0000-000000000007");
        assert_eq!(body["metadata"]["resourceVersion"], (START + 1).to_string());
        assert_eq!(body["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(body["metadata"]["labels"], json!({"app": "a"}));
        assert_eq!(body["spec"]["nodeName"], "node-1");
        let status = &body["status"];
        assert_eq!((&status["phase"], &status["podIP"]), (&json!("Running"), &json!("127.0.0.1")));
        assert_eq!(status["qosClass"], "BestEffort");
        let container = &status["containerStatuses"][0];
        assert_eq!(container["state"], json!({"running": {"startedAt": "2026-01-01T00:00:01Z"}}));
        assert_eq!(container["containerID"], format!("defib://{}", "0".repeat(64)));
        // What typed clients read.
        let typed: Pod = serde_json::from_value(body).unwrap();
        assert_eq!(typed.status.unwrap().conditions.unwrap().len(), 4);

        let missing = world.get("/api/v1/namespaces/default/pods/b").await;
        missing.assert_error(404, "NotFound", "pods \"b\" not found");
        assert_eq!(missing.body["details"], json!({"name": "b", "kind": "pods"}));
        assert_eq!(world.get("/api/v1/namespaces/other/pods/a").await.code, 404);
    });
}

#[test]
fn lists_and_selectors() {
    with_api(|world| async move {
        world.publish(1, "a", &["main"]);
        world.publish(2, "b", &["main"]);
        let names = async |path: &str| {
            let list = world.get(path).await.body;
            let items = list["items"].as_array().unwrap_or_else(|| panic!("{list}")).clone();
            items.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("/api/v1/pods").await, ["a", "b"]);
        assert_eq!(names("/api/v1/namespaces/other/pods").await, [""; 0]);
        let one = "/api/v1/namespaces/default/pods?limit=500&fieldSelector=metadata.name%3Db";
        assert_eq!(names(one).await, ["b"]);
        let list = world.get("/api/v1/pods").await.body;
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
        assert_eq!(list["metadata"]["resourceVersion"], (START + 2).to_string());
        let bad = world.get("/api/v1/pods?fieldSelector=spec.x=1").await;
        bad.assert_error(400, "BadRequest", "field label not supported: spec.x");
        assert_eq!(names("/api/v1/pods?labelSelector=app%3Db").await, ["b"]);
        assert_eq!(names("/api/v1/pods?labelSelector=app%20in%20(a,c),!x").await, ["a"]);
        let labels = world.get("/api/v1/pods?labelSelector=a%3E1").await;
        labels.assert_error(400, "BadRequest", "unable to parse requirement: \"a>1\" in \"a>1\"");
    });
}

#[test]
fn events_merged_and_raw() {
    with_api(|world| async move {
        world.publish(1, "a", &["main"]);
        for second in [3, 13, 23] {
            world.store.apply(StoreUpdate::Event(event(1, "a", "Liveness probe failed: x", at(second))));
        }
        let list =
            world.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=a").await.body;
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        let line = list["items"][0].clone();
        assert_eq!((&line["count"], &line["type"]), (&json!(3), &json!("Warning")));
        assert_eq!(line["firstTimestamp"], "2026-01-01T00:00:03Z");
        assert_eq!(line["lastTimestamp"], "2026-01-01T00:00:23Z");
        assert_eq!(line["involvedObject"]["fieldPath"], "spec.containers{main}");
        let name = line["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("a.") && name.len() == "a.".len() + 16, "{name}");
        let one = world.get(&format!("/api/v1/namespaces/default/events/{name}")).await.body;
        assert_eq!(one["metadata"], line["metadata"]);
        let typed: Event = serde_json::from_value(line).unwrap();
        assert_eq!(typed.source.unwrap().component.as_deref(), Some("kubelet"));
        let missing = world.get("/api/v1/namespaces/default/events/x").await;
        missing.assert_error(404, "NotFound", "events \"x\" not found");
        for nobody in ["fieldSelector=involvedObject.uid%3Dx", "labelSelector=app%3Da"] {
            let other = world.get(&format!("/api/v1/events?{nobody}")).await.body;
            assert_eq!(other["items"], json!([]), "{nobody}");
        }
        let raw = world.get("/apis/defib.dev/v1/rawevents").await.body;
        let times: Vec<_> =
            raw["items"].as_array().unwrap().iter().map(|event| event["time"].clone()).collect();
        assert_eq!(times[0], "2026-01-01T00:00:03.000000000Z");
        assert_eq!((times.len(), &raw["dropped"]), (3, &json!(0)));
        let elsewhere = world.get("/apis/defib.dev/v1/namespaces/other/rawevents").await.body;
        assert_eq!(elsewhere["items"], json!([]));
    });
}

#[test]
fn a_probe_now() {
    with_api(|world| async move {
        use probe_core::model::probe::{ErroredRuns, Handler, PortRef, ProbeSpec, TcpSocketAction};
        let path = "/apis/defib.dev/v1/namespaces/default/pods/a/probe";
        world.publish(1, "a", &["main"]);
        let none = world.call("POST", path, "").await;
        none.assert_error(400, "BadRequest", "container \"main\" in pod \"a\" has no liveness probe");
        let probe = ProbeSpec {
            handler: Handler::TcpSocket(TcpSocketAction::plain(None, PortRef::Number(1))),
            initial_delay_s: 0,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            success_threshold: 1,
            failure_threshold: 3,
            termination_grace_s: None,
            resets_on_restart: false,
            errored_runs: ErroredRuns::Ignore,
        };
        world.publish_as(1, "a", &["main"], |snapshot| {
            let spec = std::sync::Arc::get_mut(&mut snapshot.spec).unwrap();
            spec.containers[0].liveness = Some(probe.clone());
            spec.containers[0].readiness = Some(probe);
        });
        let answer = world.call("POST", path, "").await.body;
        assert_eq!((&answer["container"], &answer["probe"]), (&json!("main"), &json!("liveness")));
        assert_eq!(answer["result"]["verdict"], "failure");
        assert_eq!(answer["result"]["phases"]["connectedNs"], 40_000);
        assert_eq!(answer["result"]["phases"]["sentNs"], json!(null));
        let not_running = world.call("POST", &format!("{path}?container=main&probe=readiness"), "").await;
        not_running.assert_error(400, "BadRequest", "ContainerIx(0) is not running");
        let word = world.call("POST", &format!("{path}?probe=deep"), "").await;
        assert_eq!(word.code, 400);
    });
}
