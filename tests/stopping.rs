//! How an agent ends, and a start that is refused: nothing is left running either way.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use test_support::{AFTER_A_WHILE, Agent, SOON, World, eventually, procs};

/// Takes a moment to obey, and says so when it has.
const SLOW: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: c
    command: [sh, -c, 'trap "sleep 1; touch WORLD/obeyed; exit 0" TERM; touch WORLD/up; while :; do sleep 0.1; done']
"#;

fn started() -> (World, Agent) {
    let world = World::new();
    let dir = world.dir().to_str().expect("temporary folders have plain names").to_owned();
    let agent = world.run(&[&world.write("slow.yaml", &SLOW.replace("WORLD", &dir))], &[]);
    eventually("the container is up", SOON, || world.dir().join("up").exists().then_some(()));
    (world, agent)
}

fn send(agent: &Agent, signal: Signal) {
    let pid = i32::try_from(agent.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("it runs");
}

/// Processes in the world's network namespace: the agent's containers, and whoever the test itself started.
fn running(world: &World) -> Vec<procs::Process> {
    procs::in_network_namespace(world.net().inode())
}

#[test]
fn a_closed_terminal_stops_the_pods() {
    let (world, mut agent) = started();
    send(&agent, Signal::HUP);
    assert_eq!(agent.wait(), 0, "{}", agent.printed());
    assert!(world.dir().join("obeyed").exists(), "{}", agent.printed());
    assert!(running(&world).is_empty());
}

#[test]
fn sigterm_twice_means_once() {
    let (world, mut agent) = started();
    send(&agent, Signal::TERM);
    agent.log().wait(0, AFTER_A_WHILE, |line| line.contains("stopping all pods")).expect("it stops");
    send(&agent, Signal::TERM);
    assert_eq!(agent.wait(), 0, "{}", agent.printed());
    assert!(world.dir().join("obeyed").exists(), "{}", agent.printed());
    assert!(running(&world).is_empty());
}

#[test]
fn ctrl_c_after_a_signal_kills_at_once() {
    let (world, mut agent) = started();
    send(&agent, Signal::TERM);
    agent.log().wait(0, AFTER_A_WHILE, |line| line.contains("stopping all pods")).expect("it stops");
    agent.interrupt();
    assert_eq!(agent.wait(), 0, "{}", agent.printed());
    assert!(agent.log().count("killing all containers") == 1, "{}", agent.printed());
    assert!(running(&world).is_empty());
}

#[test]
fn a_start_that_is_refused_starts_nothing() {
    let world = World::new();
    let pod = world.write("pod.yaml", &SLOW.replace("WORLD", world.dir().to_str().expect("plain")));
    world.write("in-the-way", "");
    let taken = world.dir().join("in-the-way");
    let state = world.dir().join("other-state");
    let args = ["run", &pod, "--socket", taken.to_str().expect("plain"), "--state-dir"];
    let done = world.defib(&[&args[..], &[state.to_str().expect("plain")]].concat());
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("not a socket"), "{}", done.stderr);
    assert!(!world.dir().join("up").exists());
    assert!(running(&world).is_empty());
}

/// Runs an agent that refuses to start, with its log as JSON, and gives level and message of every line.
fn refused(world: &World, file: &str, state_dir: &str, code: i32) -> Vec<(String, String)> {
    let done = world.defib(&["run", file, "--state-dir", state_dir, "--log-format", "json"]);
    assert_eq!(done.code, code, "{}", done.stderr);
    let lines = done.stderr.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string(), "{line}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (text(&line["level"]), text(&line["fields"]["message"]))
    });
    lines.collect()
}

#[test]
fn a_refusal_is_a_line_of_the_log() {
    let world = World::new();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {volumes: [], containers: [{name: c, command: [x]}]}}";
    let good = world.write("good.yaml", &pod.replace("[]", "[{name: v, emptyDir: {}}]"));
    let bad = world.write("bad.yaml", &pod.replace("command: [x]", "stdin: 1, tty: 2"));
    let nowhere = format!("{good}/state");

    let lines = refused(&world, &bad, &nowhere, 3);
    let (level, message) = lines.last().expect("a line");
    assert!(level == "ERROR" && message.starts_with(&format!("{bad}: document 1: ")), "{lines:?}");
    assert_eq!(lines.len(), 1, "several errors are one line: {lines:?}");

    let lines = refused(&world, &good, &nowhere, 1);
    assert!(lines[0].0 == "WARN" && lines[0].1.contains("spec.volumes"), "{lines:?}");
    let (level, message) = lines.last().expect("a line");
    assert!(level == "ERROR" && message.contains(&nowhere), "{lines:?}");
}
