//! Each sensor says the same of the same ends. One is the referee of the other, and the table of both.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, World, eventually};

const CONTAINERS: usize = 20;

/// How a container ends, and what is said of it: exit code, signal, reason. `$$` stands for one dollar sign.
const ENDS: [(&str, u64, Option<u64>, &str); 10] = [
    ("exit 0", 0, None, "Completed"),
    ("exit 1", 1, None, "Error"),
    ("exit 3", 3, None, "Error"),
    ("exit 255", 255, None, "Error"),
    // As a shell tells the death of a child; it is a code of its own all the same.
    ("exit 137", 137, None, "Error"),
    ("kill -SEGV $$$$", 139, Some(11), "Error"),
    ("kill -KILL $$$$", 137, Some(9), "Error"),
    ("kill -TERM $$$$", 143, Some(15), "Error"),
    // With a child that outlives it, and is ended with the container.
    ("sleep 1000 & exit 4", 4, None, "Error"),
    ("sleep 1000 & kill -ABRT $$$$", 134, Some(6), "Error"),
];

/// Exit code, signal and reason by the name of the container.
type Said = BTreeMap<String, (Value, Value, Value)>;

fn expected() -> Said {
    let said = |n: usize| {
        let (_, code, signal, reason) = ENDS[n % ENDS.len()];
        (format!("c{n}"), (json!(code), json!(signal), json!(reason)))
    };
    (0..CONTAINERS).map(said).collect()
}

fn manifest() -> String {
    let containers: Vec<Value> = (0..CONTAINERS)
        .map(|n| json!({"name": format!("c{n}"), "command": ["/bin/sh", "-c", ENDS[n % ENDS.len()].0]}))
        .collect();
    let pod = |name: &str, policy: &str, containers: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 1, "containers": containers},
        })
    };
    // An agent whose pods are all finished would end.
    let keeper = json!([{"name": "main", "command": ["/bin/sleep", "1000"]}]);
    let items = [pod("ends", "Never", Value::from(containers)), pod("keeper", "Always", keeper)];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// What is said in the end, with this sensor.
pub fn said(world: &World, sensor: &str) -> Said {
    let mut agent = world.run(&[&world.write("ends.json", &manifest())], &["--sensor", sensor]);
    let said = eventually("all have ended", AFTER_A_WHILE, || {
        let pods = world.get_json("pods");
        let pod = pods["items"].as_array()?.iter().find(|pod| pod["metadata"]["name"] == "ends")?.clone();
        let statuses = pod["status"]["containerStatuses"].as_array()?.clone();
        let said: Said = statuses
            .iter()
            .filter_map(|status| {
                let ended = status["state"]["terminated"].as_object()?;
                let fact = |name: &str| ended.get(name).cloned().unwrap_or_default();
                let name = status["name"].as_str()?.to_owned();
                Some((name, (fact("exitCode"), fact("signal"), fact("reason"))))
            })
            .collect();
        (said.len() == CONTAINERS).then_some(said)
    });
    agent.terminate();
    world.assert_nothing_left();
    said
}

/// With each of `sensors`, in a world made by `world`.
pub fn check(world: impl Fn() -> World, sensors: &[&str]) {
    for sensor in sensors {
        assert_eq!(said(&world(), sensor), expected(), "--sensor {sensor}");
    }
}

#[test]
fn both_sensors_say_the_same_of_every_way_to_end() {
    check(World::new, &["ebpf", "pidfd", "auto"]);
}
