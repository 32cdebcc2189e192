//! What a dead process held is free when its successor starts: memory that takes a while to give back, and a port.
//!
//! 200 restarts for each sensor: 40 containers, each on a port of its own, are killed 5 times each. A sensor that tells
//! a death before the kernel has freed anything must not make the next start come too early. Back-off hides that from
//! the second restart of a container on, so many containers say more than many restarts of one.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use test_support::{World, repo_root};

use super::victims::{Victims, check_all_killed};

const CONTAINERS: usize = 40;
const KILLS: u32 = 5;
const FIRST_PORT: usize = 20_000;
/// `TCP_LISTEN` in /proc/net/tcp (include/net/tcp_states.h).
const LISTENS: &str = "0A";

#[test]
fn two_hundred_restarts_on_the_same_port() {
    for sensor in ["ebpf", "pidfd"] {
        check(sensor);
    }
}

fn check(sensor: &str) {
    let world = World::new();
    let holder = compiled(&world);
    let ports = FIRST_PORT..FIRST_PORT + CONTAINERS;
    let containers =
        ports.clone().map(|port| json!({"name": format!("c{port}"), "command": [holder, port.to_string()]}));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "holders"},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": containers.collect::<Vec<Value>>()},
    });
    let file = world.write("pod.json", &pod.to_string());
    let mut agent = world.run(&[&file], &["--max-container-restart-period", "1s", "--sensor", sensor]);
    let mut victims = Victims::new(&agent, ports, KILLS);
    victims.kill_all(|| {
        let listening = listening(&world);
        Box::new(move |port| listening.contains(&port))
    });
    // One that could not bind would have ended by itself: one restart more, and another exit code.
    check_all_killed(&world, "holders", CONTAINERS, KILLS);
    check_logs(&world);
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

fn compiled(world: &World) -> String {
    let holder = world.dir().join("holder").to_str().expect("temporary folders have plain names").to_owned();
    let source = repo_root().join("tests/sensor/holder.c");
    let done = Command::new("cc").args(["-O1", "-o", &holder]).arg(source).output();
    let done = done.expect("`cc` is needed: bash .ci/run installs what is missing");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    holder
}

/// Ports on which somebody listens. To connect and see would leave a connection that holds the port.
fn listening(world: &World) -> BTreeSet<usize> {
    let table =
        world.net().inside(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("/proc is mounted");
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, port) = fields.nth(1)?.split_once(':')?;
        let is_listening = fields.nth(1)? == LISTENS;
        is_listening.then(|| usize::from_str_radix(port, 16).ok())?
    };
    table.lines().filter_map(port).collect()
}

/// Those that are kept: of the current instance and of the one before.
fn check_logs(world: &World) {
    for port in FIRST_PORT..FIRST_PORT + CONTAINERS {
        for previous in [&[][..], &["--previous"]] {
            let name = format!("c{port}");
            let args = [&["logs", "holders", &name], previous].concat();
            let done = world.defib(&args);
            assert_eq!((done.code, done.stdout.contains("bind failed")), (0, false), "{args:?}: {done:?}");
        }
    }
}
