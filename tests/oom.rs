//! Processes that are killed for memory while their container lives on, with a real memory limit.

use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, Agent, World, eventually};

/// Of the container; a child then takes several times as much.
const LIMIT: &str = "64Mi";
const KILLS: usize = 20;
/// `tail` keeps its last line in memory, and this one has no end within the limit.
const HUNGRY: &str = "head -c 400m /dev/zero | tail >/dev/null";

fn pod(name: &str, script: &str, annotations: Value, restart_policy: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "restartPolicy": restart_policy, "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "eater", "command": ["/bin/sh", "-c", script],
                 "resources": {"limits": {"memory": LIMIT}}},
                {"name": "other", "command": ["/bin/sleep", "1000"]},
            ],
        },
    })
    .to_string()
}

fn started(world: &World, pod: &str) -> Agent {
    world.run(&[&world.write("pod.json", pod)], &[])
}

/// Kills that the raw events tell of, one or several each.
fn kills(agent: &Agent) -> usize {
    let told = |line: &String| -> usize {
        let Some((_, message)) = line.split_once("ChildOOMKilled") else { return 0 };
        let first = message.split_whitespace().find_map(|word| word.parse().ok());
        if message.contains("processes of container") { first.unwrap_or(0) } else { 1 }
    };
    agent.events().all().iter().map(told).sum()
}

#[test]
fn every_child_is_told_and_the_container_lives() {
    let world = World::new();
    let script = format!(
        "for n in $(seq {KILLS}); do {HUNGRY}; echo survived $n; done; echo finished; exec sleep 1000"
    );
    let mut agent = started(&world, &pod("p", &script, json!({}), "Always"));
    eventually("the last child is told of", AFTER_A_WHILE, || (kills(&agent) >= KILLS).then_some(()));
    eventually("the script ends", AFTER_A_WHILE, || {
        world.defib(&["logs", "p", "-c", "eater"]).stdout.contains("finished").then_some(())
    });
    assert_eq!(kills(&agent), KILLS, "{}", agent.printed());
    let told = agent.events().all();
    let told: Vec<&String> = told.iter().filter(|line| line.contains("ChildOOMKilled")).collect();
    for line in &told {
        assert!(line.contains("Warning"), "{line}");
        assert!(line.contains("memory limit of the container was reached"), "{line}");
    }
    for container in ["eater", "other"] {
        assert_eq!(world.container_status("p", container)["restartCount"], 0);
    }
    assert_eq!(agent.terminate(), 0);
}

#[test]
fn the_policy_of_one_container_restarts_it_alone() {
    let world = World::new();
    let annotations =
        json!({"defib.dev/on-child-oom": "Ignore", "eater.defib.dev/on-child-oom": "RestartContainer"});
    let mut agent = started(&world, &pod("p", &once(&world), annotations, "Always"));
    agent.wait_for("Container eater lost a process to the OOM killer, will be restarted", AFTER_A_WHILE);
    eventually("the container runs again", AFTER_A_WHILE, || runs_as(&world, "eater", 1));
    assert_eq!(world.container_status("p", "other")["restartCount"], 0);
    assert_eq!(agent.terminate(), 0);
}

#[test]
fn the_policy_of_the_pod_restarts_all_of_it() {
    let world = World::new();
    let annotations = json!({"defib.dev/on-child-oom": "RestartPod"});
    let mut agent = started(&world, &pod("p", &once(&world), annotations, "Always"));
    eventually("both run again", AFTER_A_WHILE, || {
        runs_as(&world, "eater", 1).and_then(|()| runs_as(&world, "other", 1))
    });
    assert_eq!(agent.terminate(), 0);
}

#[test]
fn ignore_says_nothing_and_a_main_process_is_oom_killed() {
    let world = World::new();
    let annotations = json!({"defib.dev/on-child-oom": "Ignore"});
    // The shell becomes the hungry one, and is the main process.
    let script = format!("{HUNGRY}; echo survived; exec tail /dev/zero");
    let mut agent = started(&world, &pod("p", &script, annotations, "Never"));
    let ended = eventually("the main process ends", AFTER_A_WHILE, || {
        let state = world.container_status("p", "eater")["state"]["terminated"].clone();
        state.is_object().then_some(state)
    });
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));
    assert_eq!(kills(&agent), 0, "{}", agent.printed());
    agent.terminate();
}

#[test]
fn a_kill_from_outside_is_no_oom() {
    let world = World::new();
    // `$$` stands for one dollar sign in a manifest.
    let mut agent = started(&world, &pod("p", "kill -9 $$$$", json!({}), "Never"));
    let ended = eventually("the main process ends", AFTER_A_WHILE, || {
        let state = world.container_status("p", "eater")["state"]["terminated"].clone();
        state.is_object().then_some(state)
    });
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("Error"), &json!(137)));
    assert_eq!(kills(&agent), 0, "{}", agent.printed());
    agent.terminate();
}

/// The first run loses a child, all later ones live in peace.
fn once(world: &World) -> String {
    let mark = world.dir().join("mark");
    let mark = mark.display();
    format!("[ -e {mark} ] || {{ touch {mark}; {HUNGRY}; }}; exec sleep 1000")
}

fn runs_as(world: &World, container: &str, restarts: u32) -> Option<()> {
    let status = world.container_status("p", container);
    (status["restartCount"] == restarts && status["state"]["running"].is_object()).then_some(())
}
