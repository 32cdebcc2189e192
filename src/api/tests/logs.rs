use std::fs;

use http_body_util::BodyExt;
use probe_core::model::status::ContainerState;

use super::world::{Stream, World, with_api};
use crate::store::samples::ended;

const LOG: &str = "/api/v1/namespaces/default/pods/a/log";

fn write(world: &World, file: &str, text: &str) {
    let uid = "00000000-0000-0000-0000-000000000001";
    let dir = world.dir.path().join(format!("pods/default_a_{uid}/main"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(file), text).unwrap();
}

async fn text(world: &World, path: &str) -> String {
    let answer = world.send("GET", path, "").await;
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[test]
fn current_previous_tail_and_limit() {
    with_api(|world| async move {
        write(&world, "0.log", "old\nlast words\n");
        write(&world, "1.log", "one\ntwo\nthree\n");
        world.publish_as(1, "a", &["main"], |snapshot| {
            let status = &mut snapshot.status.containers[0];
            status.restart_count = 1;
            status.last_state = Some(ended(9));
        });
        assert_eq!(text(&world, LOG).await, "one\ntwo\nthree\n");
        assert_eq!(text(&world, &format!("{LOG}?container=main&previous=true")).await, "old\nlast words\n");
        assert_eq!(text(&world, &format!("{LOG}?tailLines=2&limitBytes=5")).await, "two\nt");
    });
}

#[test]
fn what_cannot_be_shown_says_why() {
    with_api(|world| async move {
        world.publish(1, "a", &["main", "side"]);
        let error = async |query: &str, text: &str| {
            world.get(&format!("{LOG}?{query}")).await.assert_error(400, "BadRequest", text);
        };
        error("", "a container name must be specified for pod a, choose one of: [main side]").await;
        error("container=x", "container x is not valid for pod a").await;
        error("container=main&previous=1", "previous terminated container \"main\" in pod \"a\" not found")
            .await;
        let times = "is not available with the process runtime: a container writes straight to its log file, without times";
        error("timestamps=true", &format!("timestamps {times}")).await;
        error("sinceSeconds=5", &format!("sinceSeconds {times}")).await;
        assert_eq!(world.get(&format!("{LOG}?tailLines=-1")).await.code, 400);
        let gone = world.get(&format!("{LOG}?container=main")).await;
        assert_eq!(gone.code, 500, "{:?}", gone.body);
        let missing = world.get("/api/v1/namespaces/default/pods/b/log").await;
        missing.assert_error(404, "NotFound", "pods \"b\" not found");
        world.publish_as(1, "a", &["main"], |snapshot| {
            let reason = "ContainerCreating".into();
            snapshot.status.containers[0].state = ContainerState::Waiting { reason, message: None };
        });
        error("", "container \"main\" in pod \"a\" is waiting to start: ContainerCreating").await;
    });
}

#[test]
fn following_ends_with_the_instance() {
    with_api(|world| async move {
        write(&world, "0.log", "one\n");
        world.publish(1, "a", &["main"]);
        let mut stream = Stream::of(world.send("GET", &format!("{LOG}?follow=true"), "").await);
        assert_eq!(stream.line().await.as_deref(), Some("one"));
        write(&world, "0.log", "one\ntwo\n");
        assert_eq!(stream.line().await.as_deref(), Some("two"));
        write(&world, "0.log", "one\ntwo\nlast\n");
        world.publish_as(1, "a", &["main"], |snapshot| {
            snapshot.status.containers[0].state = ContainerState::Terminated(ended(0));
        });
        assert_eq!(stream.line().await.as_deref(), Some("last"));
        assert_eq!(stream.line().await, None);
    });
}
