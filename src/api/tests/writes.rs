use serde_json::{Value, json};

use super::world::{START, with_api};
use crate::api::Refusal;

const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = "/api/v1/namespaces/default/pods/a";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "command": ["sleep", "1"]}]},
    })
}

#[test]
fn create_answers_with_what_was_made() {
    with_api(|world| async move {
        let made = world.call("POST", &format!("{PODS}?baseDir=%2Fsrv"), &pod("a").to_string()).await;
        assert_eq!(made.code, 201);
        assert_eq!(made.body["metadata"]["resourceVersion"], (START + 1).to_string());
        assert_eq!(world.agent.base_dirs.lock().unwrap().values().next().unwrap(), "/srv");
        let again = world.call("POST", PODS, &pod("a").to_string()).await;
        again.assert_error(409, "AlreadyExists", "pods \"a\" already exists");

        let mut empty = pod("b");
        empty["spec"]["containers"] = json!([]);
        let invalid = world.call("POST", PODS, &empty.to_string()).await;
        invalid.assert_error(422, "Invalid", "Pod \"b\" is invalid: spec.containers: Required value");
        let cause =
            json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"});
        assert_eq!(invalid.body["details"], json!({"name": "b", "kind": "Pod", "causes": [cause]}));

        let mut elsewhere = pod("b");
        elsewhere["metadata"]["namespace"] = json!("other");
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        world.call("POST", PODS, &elsewhere.to_string()).await.assert_error(400, "BadRequest", text);
        assert_eq!(world.call("POST", PODS, "not json").await.code, 400);
        assert_eq!(world.call("POST", PODS, "[]").await.code, 400);
        assert_eq!(world.call("POST", &format!("{PODS}?dryRun=All"), &pod("b").to_string()).await.code, 400);

        *world.agent.refusal.lock().unwrap() = Some(Refusal::Full);
        let full = world.call("POST", PODS, &pod("b").to_string()).await;
        full.assert_error(503, "ServiceUnavailable", "the node holds as many pods as it can; try again");
    });
}

#[test]
fn replace_changes_metadata_and_containers_only() {
    with_api(|world| async move {
        let missing = world.call("PUT", POD, &pod("a").to_string()).await;
        missing.assert_error(404, "NotFound", "pods \"a\" not found");
        let made = world.call("POST", PODS, &pod("a").to_string()).await.body;

        // What was read can be sent back and is no change.
        let same = world.call("PUT", POD, &made.to_string()).await;
        assert_eq!((same.code.as_u16(), &same.body), (200, &made));

        let mut changed = made.clone();
        changed["spec"]["containers"][0]["command"] = json!(["sleep", "2"]);
        changed["metadata"]["labels"] = json!({"color": "red"});
        let answer = world.call("PUT", POD, &changed.to_string()).await;
        assert_eq!(answer.code, 200, "{:?}", answer.body);
        assert_eq!(answer.body["metadata"]["uid"], made["metadata"]["uid"]);
        assert_eq!(answer.body["metadata"]["labels"], json!({"color": "red"}));
        assert_ne!(answer.body["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);

        let stale = world.call("PUT", POD, &changed.to_string()).await;
        stale.assert_error(
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply your changes to the latest version and try again",
        );
        let mut forbidden = pod("a");
        forbidden["spec"]["restartPolicy"] = json!("Never");
        let refused = world.call("PUT", POD, &forbidden.to_string()).await;
        refused.assert_error(
            422,
            "Invalid",
            "Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields other than `metadata`,`spec.containers[*]`,`spec.initContainers[*]` (changed: spec.restartPolicy)",
        );
        assert_eq!(world.call("PUT", POD, &pod("b").to_string()).await.code, 400, "another name");
    });
}

#[test]
fn delete_shows_the_grace_period_and_then_nothing() {
    with_api(|world| async move {
        world.publish(1, "a", &["main"]);
        let precondition = json!({"preconditions": {"uid": "other"}});
        assert_eq!(world.call("DELETE", POD, &precondition.to_string()).await.code, 409);
        let deleted = world
            .call("DELETE", POD, r#"{"gracePeriodSeconds": 5, "propagationPolicy": "Background"}"#)
            .await;
        assert_eq!(deleted.code, 200);
        assert_eq!(deleted.body["metadata"]["deletionGracePeriodSeconds"], 5);
        assert_eq!(deleted.body["metadata"]["deletionTimestamp"], "2026-01-01T00:01:00Z");
        let text = "object is being deleted: pods \"a\" already exists";
        world.call("POST", PODS, &pod("a").to_string()).await.assert_error(409, "AlreadyExists", text);

        let now = world.call("DELETE", &format!("{POD}?gracePeriodSeconds=0"), "").await;
        assert_eq!(now.body["metadata"]["name"], "a");
        assert_eq!(*world.agent.deletes.lock().unwrap(), [Some(5), Some(0)]);
        assert_eq!(world.call("DELETE", POD, "").await.code, 404);
        world.publish(2, "a", &["main"]);
        assert_eq!(world.call("DELETE", POD, r#"{"gracePeriodSeconds": -1}"#).await.code, 400);
    });
}
