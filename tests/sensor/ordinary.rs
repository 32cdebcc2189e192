//! Ordinary users: without the programs in the kernel, without cgroups or in one that was handed to them.

use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, Agent, SOON, World, eventually};

use super::statuses;
use super::victims::{Victims, check_all_killed};

/// `nobody`: it owns nothing and has no rights.
const NOBODY: u32 = 65_534;
/// The start of the one line that says that the programs do not run.
const FALLBACK: &str = "no eBPF sensor: ";
const CURE: &str = "run as root, or with CAP_BPF";
/// Number of the first container, and what it sleeps.
const FIRST: usize = 900_000;
const MISSING_FEATURE: i32 = 5;

/// The annotation is the default, and written out it lets the rest of a container live on v2, too.
fn pod(name: &str, restart_policy: &str, containers: &[Value]) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"defib.dev/on-child-oom": "Event"}},
        "spec": {"restartPolicy": restart_policy, "terminationGracePeriodSeconds": 1, "containers": containers},
    })
    .to_string()
}

fn sleepers(world: &World, containers: usize) -> String {
    let sleeper =
        |n: usize| json!({"name": format!("c{n}"), "command": ["/bin/sleep", (FIRST + n).to_string()]});
    let containers: Vec<Value> = (0..containers).map(sleeper).collect();
    world.write("pod.json", &pod("sleepers", "Always", &containers))
}

#[test]
fn auto_falls_back_says_so_once_and_sees_every_kill() {
    let (containers, kills) = (10, 2);
    let world = World::of_user(NOBODY);
    let file = sleepers(&world, containers);
    let mut agent = world.run(&[&file], &["--max-container-restart-period", "1s"]);
    Victims::new(&agent, FIRST..FIRST + containers, kills).kill_all(|| Box::new(|_| true));
    check_all_killed(&world, "sleepers", containers, kills);
    assert_eq!(agent.terminate(), 0);
    let said: Vec<String> = agent.log().all().into_iter().filter(|line| line.contains("eBPF")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(FALLBACK) && said[0].contains(CURE), "{said:?}");
    world.assert_nothing_left();
}

#[test]
fn ebpf_or_no_start() {
    let world = World::of_user(NOBODY);
    let mut agent = world.run(&[&sleepers(&world, 1)], &["--sensor", "ebpf"]);
    assert_eq!(agent.wait(), MISSING_FEATURE, "{}", agent.printed());
    let log = agent.log().all().join("\n");
    assert!(log.contains("--sensor ebpf: ") && log.contains(CURE), "{log}");
    assert_eq!(agent.events().count("Started"), 0);
    world.assert_nothing_left();
}

#[test]
fn the_sensor_is_named_and_none_that_was_asked_for_is_missed() {
    let (pidfd, ebpf) = ("sensor: pidfds and the counters", "sensor: eBPF programs, beside pidfds");
    for (world, sensor, named) in [
        (World::of_user(NOBODY), "pidfd", pidfd),
        (World::new(), "pidfd", pidfd),
        (World::new(), "ebpf", ebpf),
    ] {
        let mut agent = world.run(&[&sleepers(&world, 1)], &["--sensor", sensor]);
        agent.wait_for("Started container c0", SOON);
        assert_eq!(agent.terminate(), 0);
        let log = agent.log().all().join("\n");
        let said: Vec<&str> =
            log.lines().filter(|line| line.contains("BPF") || line.contains(pidfd)).collect();
        assert!(said.len() == 1 && said[0].contains(named), "--sensor {sensor}: {log}");
        world.assert_nothing_left();
    }
}

#[test]
fn every_way_to_end_is_told_right() {
    statuses::check(|| World::of_user(NOBODY), &["auto"]);
    statuses::check(|| World::of_user_with_cgroups(NOBODY), &["auto"]);
}

/// With a memory limit that both controllers take.
fn limited(name: &str, script: &str) -> Value {
    json!({
        "name": name, "command": ["/bin/sh", "-c", script],
        "resources": {"limits": {"memory": "32Mi", "cpu": "500m"}},
    })
}

#[test]
fn kills_for_memory_are_seen_in_a_delegated_cgroup() {
    let world = World::of_user_with_cgroups(NOBODY);
    // `tail` keeps its last line in memory, and this one has no end. It asks to be killed first.
    let child =
        "sh -c 'echo 1000 >/proc/self/oom_score_adj; exec tail /dev/zero'; echo lives; exec sleep 1000";
    let lives = world.write("lives.json", &pod("lives", "Always", &[limited("eater", child)]));
    let dies = world.write("dies.json", &pod("dies", "Never", &[limited("main", "exec tail /dev/zero")]));
    let mut agent = world.run(&[&lives, &dies], &[]);

    let message = "A process of container eater was killed for memory; \
                   memory limit of the container, 32768 KiB, was reached";
    let (_, line) = agent.wait_for("ChildOOMKilled", AFTER_A_WHILE);
    assert!(line.contains("Warning") && line.contains(message), "{line}");
    let ended = eventually("the main process ends", AFTER_A_WHILE, || {
        let ended = world.container_status("dies", "main")["state"]["terminated"].clone();
        ended.is_object().then_some(ended)
    });
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(137), &json!("OOMKilled")), "{ended}");
    let eater = world.container_status("lives", "eater");
    assert_eq!((&eater["restartCount"], eater["state"]["running"].is_object()), (&json!(0), true), "{eater}");
    assert_eq!(agent.events().count("ChildOOMKilled"), 1, "{}", agent.printed());
    check_log(&agent);
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
    assert_no_pods(&world);
}

/// On pure v2 the agent's own leaf stays: a cgroup that passes controllers on takes no process back.
fn assert_no_pods(world: &World) {
    let left = world.cgroups_below();
    assert!(left.iter().all(|dir| !dir.display().to_string().contains("defib/pods")), "{left:?}");
}

/// What is there is not missed.
fn check_log(agent: &Agent) {
    let log = agent.log().all().join("\n");
    for missing in ["no cgroups", "no memory limits", "no cpu limits", "without its limit"] {
        assert!(!log.contains(missing), "{missing:?} in\n{log}");
    }
    assert_eq!(log.matches(FALLBACK).count(), 1, "{log}");
}

#[test]
fn doctor_finds_the_delegated_controllers() {
    let world = World::of_user_with_cgroups(NOBODY);
    let done = world.defib(&["doctor", "-o", "json"]);
    let found: Value = serde_json::from_str(&done.stdout).expect("doctor prints JSON");
    let features = found["features"].as_array().expect("a list");
    for wanted in ["cgroups", "memory-limits", "cpu-limits", "oom-counters"] {
        let feature = features.iter().find(|feature| feature["feature"] == wanted);
        assert!(feature.is_some_and(|feature| feature["used"] == true), "{wanted}: {found}");
    }
    assert_no_pods(&world);
}
