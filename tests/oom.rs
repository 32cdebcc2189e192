//! Processes that are killed for memory while their container lives on, with a real memory limit.

use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, Agent, World, eventually};

/// Of the container; a child then takes several times as much.
const LIMIT_MIB: u64 = 128;
/// Victims in all, over so many pods at the same time; and without the programs in the kernel.
const RUNS: usize = 200;
const PODS: usize = 4;
const KILLS: usize = 20;
/// `tail` keeps its last line in memory, and this one has no end.
const HUNGRY: &str = "tail /dev/zero";

fn pod(name: &str, script: &str, annotations: Value, restart_policy: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "restartPolicy": restart_policy, "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "eater", "command": ["/bin/sh", "-c", script],
                 "resources": {"limits": {"memory": format!("{LIMIT_MIB}Mi")}}},
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
fn every_victim_is_named_with_its_container() {
    let world = World::new();
    let pods: Vec<String> =
        (0..PODS).map(|n| pod(&format!("p{n}"), &victims(RUNS / PODS), json!({}), "Always")).collect();
    let files: Vec<String> =
        pods.iter().enumerate().map(|(n, pod)| world.write(&format!("{n}.json"), pod)).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut agent = world.run(&files, &["--sensor", "ebpf"]);
    eventually("the last victim is told of", AFTER_A_WHILE, || (kills(&agent) >= RUNS).then_some(()));
    let events = agent.events().all();
    for n in 0..PODS {
        let name = format!("p{n}");
        for container in ["eater", "other"] {
            let status = world.container_status(&name, container);
            assert_eq!(status["restartCount"], 0, "{name}: {status}");
        }
        let mut wanted = logged_victims(&world, &name);
        wanted.sort_unstable();
        let object = format!("pod/{name} ");
        let told = events.iter().filter(|line| line.contains("ChildOOMKilled") && line.contains(&object));
        let mut named: Vec<u32> = told.map(|line| victim_in(line)).collect();
        named.sort_unstable();
        assert_eq!(named, wanted, "{name}: {}", agent.printed());
    }
    assert_eq!(agent.terminate(), 0);
}

#[test]
fn without_the_programs_every_victim_is_counted() {
    let world = World::new();
    let pod = pod("p", &victims(KILLS), json!({}), "Always");
    let mut agent = world.run(&[&world.write("pod.json", &pod)], &["--sensor", "pidfd"]);
    eventually("the last child is told of", AFTER_A_WHILE, || (kills(&agent) >= KILLS).then_some(()));
    assert_eq!((kills(&agent), logged_victims(&world, "p").len()), (KILLS, KILLS), "{}", agent.printed());
    for line in agent.events().all().iter().filter(|line| line.contains("ChildOOMKilled")) {
        assert!(line.contains("Warning"), "{line}");
        assert!(line.contains("memory limit of the container, 131072 KiB, was reached"), "{line}");
    }
    for container in ["eater", "other"] {
        assert_eq!(world.container_status("p", container)["restartCount"], 0);
    }
    assert_eq!(agent.terminate(), 0);
}

/// Loses so many children, two at a time, and lives on. They are forked before the first is told to eat, and each asks to be killed
/// first: else the kernel might choose the main process, which would be right to tell and another test.
fn victims(children: usize) -> String {
    format!(
        r#"exec python3 -c '
import os, time
children = []
for n in range({children}):
    taken, given = os.pipe()
    pid = os.fork()
    if pid == 0:
        open("/proc/self/oom_score_adj", "w").write("1000")
        os.read(taken, 1)
        eaten = []
        while True: eaten.append(b"x" * (1 << 20))
    os.close(taken)
    children.append((pid, given))
for first in range(0, {children}, 2):
    two = children[first:first + 2]
    for pid, given in two:
        try: os.write(given, b"x")
        except BrokenPipeError: pass
    for pid, given in two:
        os.waitpid(pid, 0)
        print("victim", pid, flush=True)
print("finished", flush=True)
time.sleep(1000)
'"#
    )
}

/// The victims that the main process knows of.
fn logged_victims(world: &World, pod: &str) -> Vec<u32> {
    let log = eventually("the script ends", AFTER_A_WHILE, || {
        let log = world.defib(&["logs", pod, "-c", "eater"]).stdout;
        log.contains("finished").then_some(log)
    });
    log.lines().filter_map(|line| line.strip_prefix("victim ")?.parse().ok()).collect()
}

/// The pid in an event that has every fact.
fn victim_in(line: &str) -> u32 {
    let facts = line.split_once("Process ").and_then(|(_, facts)| facts.split_once(" (python3, "));
    let (pid, rest) = facts.unwrap_or_else(|| panic!("no victim: {line}"));
    let (kib, rest) =
        rest.split_once(" KiB resident with file pages)").unwrap_or_else(|| panic!("no memory: {line}"));
    let limit_kib = LIMIT_MIB * 1_024;
    // The others have a part of the limit; file pages that it shares count beside it.
    let kib: u64 = kib.parse().expect("a number of KiB");
    assert!((limit_kib / 8..limit_kib * 2).contains(&kib), "{line}");
    assert_eq!(
        rest.trim_end(),
        format!(
            " of container eater was killed for memory; memory limit of the container, {limit_kib} KiB, was reached"
        )
    );
    pid.parse().expect("a pid")
}

#[test]
fn the_policy_of_one_container_restarts_it_alone() {
    let world = World::new();
    let annotations =
        json!({"defib.dev/on-child-oom": "Ignore", "eater.defib.dev/on-child-oom": "RestartContainer"});
    let mut agent = started(&world, &pod("p", &once(&world), annotations, "Always"));
    agent.wait_for("Container eater lost a process to the OOM killer, will be restarted", AFTER_A_WHILE);
    eventually("the container runs again", AFTER_A_WHILE, || runs_as(&world, "eater", 1));
    let last = world.container_status("p", "eater")["lastState"]["terminated"]["message"].clone();
    assert!(
        last.as_str().is_some_and(|text| text.contains("of container eater was killed for memory")),
        "{last}"
    );
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
fn the_reason_for_exit_code_1_is_said() {
    let world = World::new();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"},
        "spec": {"restartPolicy": "Never", "containers": [
            {"name": "m", "command": ["/bin/sh", "-c", format!("exec {HUNGRY}")],
             "resources": {"limits": {"memory": format!("{LIMIT_MIB}Mi")}}},
        ]},
    });
    let mut agent = started(&world, &pod.to_string());
    assert_eq!(agent.wait(), 1);
    let log = agent.log().all().join("\n");
    for said in ["pod/one: container m: OOMKilled, exit code 137", "every pod has ended", "sensor: "] {
        assert_eq!(log.matches(said).count(), 1, "{said:?} in\n{log}");
    }
}

#[test]
fn a_probe_that_is_killed_restarts_nothing() {
    let world = World::new();
    // A child of the probe's own process, which asks to be killed first.
    let eats = format!("sh -c 'echo 1000 >/proc/self/oom_score_adj; exec {HUNGRY}'; true");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"defib.dev/on-child-oom": "RestartPod"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "eater", "command": ["/bin/sleep", "1000"],
             "resources": {"limits": {"memory": format!("{LIMIT_MIB}Mi")}},
             "livenessProbe": {"exec": {"command": ["/bin/sh", "-c", eats]}, "periodSeconds": 1, "timeoutSeconds": 60}},
        ]},
    });
    let mut agent = world.run(&[&world.write("pod.json", &pod.to_string())], &["--sensor", "ebpf"]);
    let mut from = 0;
    for _ in 0..3 {
        let (index, line) = agent.wait_from(from, "ChildOOMKilled", AFTER_A_WHILE);
        assert!(line.contains(") of a probe or hook of container eater was killed for memory"), "{line}");
        from = index + 1;
    }
    assert_eq!(world.container_status("p", "eater")["restartCount"], 0);
    assert_eq!(agent.events().count("Killing"), 0, "{}", agent.printed());
    assert_eq!(agent.terminate(), 0);
}

#[test]
fn the_name_of_a_victim_does_not_speak_to_the_terminal() {
    let world = World::new();
    let script = r#"exec python3 -c '
import os, time
if os.fork() == 0:
    open("/proc/self/comm", "wb").write(b"a\n\x1b[2Jb")
    open("/proc/self/oom_score_adj", "w").write("1000")
    eaten = []
    while True: eaten.append(b"x" * (1 << 20))
time.sleep(1000)
'"#;
    let file = world.write("pod.json", &pod("p", script, json!({}), "Always"));
    let mut agent = world.run(&[&file], &["--sensor", "ebpf"]);
    let (_, line) = agent.wait_for("ChildOOMKilled", AFTER_A_WHILE);
    assert!(line.contains(r"(a\n^[[2Jb, "), "{line}");
    let described = world.defib(&["describe", "pod", "p"]).stdout;
    assert!(described.contains(r"(a\n^[[2Jb, ") && !described.contains('\x1b'), "{described}");
    assert_eq!(agent.terminate(), 0);
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
