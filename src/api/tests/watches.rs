use probe_core::model::id::PodUid;
use serde_json::json;

use super::world::{START, Stream, World, with_api};
use crate::store::samples::{at, event};
use crate::store::{POD_HISTORY_MAX_BYTES, StoreUpdate, weight_bytes};

const WATCH: &str = "/api/v1/namespaces/default/pods?watch=true";

async fn watch(world: &World, path: &str) -> Stream {
    Stream::of(world.send("GET", path, "").await)
}

#[test]
fn a_watch_shows_what_is_there_and_what_happens() {
    with_api(|world| async move {
        world.publish(1, "a", &["main"]);
        let mut all = watch(&world, WATCH).await;
        let mut one = watch(&world, &format!("{WATCH}&fieldSelector=metadata.name%3Db")).await;
        let mut since = watch(&world, &format!("{WATCH}&resourceVersion={}", START + 1)).await;
        let seen = async |stream: &mut Stream| {
            let (kind, object) = stream.event().await;
            format!("{kind} {}", object["metadata"]["name"].as_str().unwrap())
        };
        assert_eq!(seen(&mut all).await, "ADDED a");
        world.publish(2, "b", &["main"]);
        world.store.apply(StoreUpdate::PodGone(PodUid(1)));
        world.publish_as(2, "b", &["main"], |snapshot| snapshot.status.containers[0].restart_count = 1);
        for stream in [&mut all, &mut since] {
            assert_eq!(seen(stream).await, "ADDED b");
            let (kind, object) = stream.event().await;
            assert_eq!(
                (&*kind, &object["metadata"]["resourceVersion"]),
                ("DELETED", &json!((START + 3).to_string()))
            );
            assert_eq!(seen(stream).await, "MODIFIED b");
        }
        assert_eq!(seen(&mut one).await, "ADDED b");
        assert_eq!(seen(&mut one).await, "MODIFIED b");
    });
}

#[test]
fn a_pod_whose_labels_change_comes_and_goes() {
    with_api(|world| async move {
        world.publish(1, "a", &["main"]);
        let path = format!("{WATCH}&resourceVersion={}&labelSelector=on%3Dyes", START + 1);
        let mut stream = watch(&world, &path).await;
        for (restarts, on) in [(1, "yes"), (2, "yes"), (3, "no"), (4, "no"), (5, "yes")] {
            world.publish_as(1, "a", &["main"], |snapshot| {
                let spec = std::sync::Arc::get_mut(&mut snapshot.spec).unwrap();
                spec.manifest_json = json!({"metadata": {"labels": {"on": on}}}).to_string().into();
                snapshot.status.containers[0].restart_count = restarts;
            });
        }
        world.store.apply(StoreUpdate::PodGone(PodUid(1)));
        // The pod as it was when it still belonged here, with the version of the change that took it away.
        for (kind, after, restarts) in
            [("ADDED", 2, 1), ("MODIFIED", 3, 2), ("DELETED", 4, 2), ("ADDED", 6, 5), ("DELETED", 7, 5)]
        {
            let (seen, object) = stream.event().await;
            let version = (START + after).to_string();
            assert_eq!((&*seen, &object["metadata"]["resourceVersion"]), (kind, &json!(version)));
            assert_eq!(
                object["status"]["containerStatuses"][0]["restartCount"], restarts,
                "{kind} {version}"
            );
        }
    });
}

#[test]
fn events_are_watched_too() {
    with_api(|world| async move {
        let mut stream = watch(&world, "/api/v1/events?watch=1").await;
        for second in [1, 2] {
            world.store.apply(StoreUpdate::Event(event(1, "a", "x", at(second))));
        }
        let (kind, object) = stream.event().await;
        assert_eq!((&*kind, &object["count"]), ("ADDED", &json!(1)));
        let (kind, object) = stream.event().await;
        assert_eq!((&*kind, &object["count"]), ("MODIFIED", &json!(2)));
    });
}

#[test]
fn versions_out_of_reach() {
    with_api(|world| async move {
        // From an earlier life of the agent.
        let mut old = watch(&world, &format!("{WATCH}&resourceVersion={}", START - 1)).await;
        let (kind, status) = old.event().await;
        assert_eq!((&*kind, &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
        assert_eq!(old.line().await, None);

        let future = world.get(&format!("{WATCH}&resourceVersion={}", START + 1)).await;
        let text = format!("Too large resource version: {}, current: {START}", START + 1);
        future.assert_error(504, "Timeout", &text);
        assert_eq!(world.get(&format!("{WATCH}&resourceVersion=x")).await.code, 400);
        assert_eq!(world.get(&format!("{WATCH}&sendInitialEvents=true")).await.code, 422);
    });
}

#[test]
fn a_watcher_that_falls_behind_is_told_so() {
    with_api(|world| async move {
        world.publish(1, "a", &["main"]);
        let mut stream = watch(&world, &format!("{WATCH}&resourceVersion={START}")).await;
        let weight = weight_bytes(&world.store.pod("default", "a").unwrap().snapshot);
        // The watcher cannot run in between: nothing is awaited here.
        for n in 0..=POD_HISTORY_MAX_BYTES / weight {
            let count = u32::try_from(n).unwrap();
            world.publish_as(1, "a", &["main"], |snapshot| {
                snapshot.status.containers[0].restart_count = count + 1
            });
        }
        loop {
            let (kind, object) = stream.event().await;
            if kind == "ERROR" {
                assert_eq!(object["code"], 410);
                break;
            }
            assert!(kind == "ADDED" || kind == "MODIFIED", "{kind}");
        }
    });
}

#[test]
fn what_happened_last_is_seen_when_the_agent_ends() {
    with_api(|world| async move {
        world.publish(1, "a", &["main"]);
        let mut stream = watch(&world, &format!("{WATCH}&resourceVersion={}", START + 1)).await;
        world.store.apply(StoreUpdate::PodGone(PodUid(1)));
        // Reads only while the server is ending, and after it.
        world.finish_with(async move {
            assert_eq!(stream.event().await.0, "DELETED");
            assert_eq!(stream.line().await, None);
        });
    });
}

#[test]
fn a_watch_ends_when_its_time_is_over_or_the_client_leaves() {
    with_api(|world| async move {
        let mut short = watch(&world, &format!("{WATCH}&timeoutSeconds=1")).await;
        assert_eq!(short.line().await, None);
        drop(watch(&world, WATCH).await);
        assert_eq!(world.get("/version").await.code, 200);
    });
}
