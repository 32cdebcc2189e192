//! A child that was killed for memory: the event, each policy, and what comes late or twice.

use super::Step;
use super::world::{Node, POD, container, pod};
use crate::executor::{Input, PodCmd};
use crate::model::id::{ContainerIx, InstanceId};
use crate::model::pod::{ChildOomPolicy, PodSpec, RestartPolicy, Role};
use crate::model::runtime::{OomFacts, OomLimit, OomVictim, RuntimeEvent};

const EVENT: &str =
    "A process of container a was killed for memory; memory limit of the container was reached";

fn two(policy: RestartPolicy, on_child_oom: ChildOomPolicy) -> PodSpec {
    let mut first = container("a", Role::Regular);
    first.on_child_oom = on_child_oom;
    pod(policy, vec![first, container("b", Role::Regular)])
}

fn started(spec: PodSpec) -> Node {
    let mut node = Node::new("oom", spec.clone(), &[]);
    node.take(Step::Add(spec));
    node.forget_said();
    node
}

fn killed(node: &mut Node, restart_count: u32) {
    let instance = InstanceId { pod: POD, container: ContainerIx(0), restart_count };
    let facts = OomFacts { kills: 1, victim: None, limit: OomLimit::Container };
    let at = node.now();
    node.input(Input::Runtime(RuntimeEvent::ChildOomKilled { instance, facts, at }));
}

fn events(node: &Node) -> Vec<String> {
    node.said().iter().filter(|line| line.contains("OOM") || line.contains("Killing")).cloned().collect()
}

#[test]
fn each_policy() {
    use ChildOomPolicy::{Event, Ignore, RestartContainer, RestartPod};
    use RestartPolicy::{Always, Never};
    let runs = "running, ready, restarts 0";
    let again = "running, ready, restarts 1, last Error 143";
    let ended = "terminated Error 143, restarts 0";
    let cases: [(ChildOomPolicy, RestartPolicy, usize, usize, &'static str, &'static str); 6] = [
        (Ignore, Always, 0, 0, runs, runs),
        (Event, Always, 1, 0, runs, runs),
        (RestartContainer, Always, 1, 1, again, runs),
        (RestartPod, Always, 1, 2, again, again),
        (RestartContainer, Never, 1, 1, ended, runs),
        (RestartPod, Never, 1, 2, ended, ended),
    ];
    for (on_child_oom, policy, reports, kills, first, second) in cases {
        let mut node = started(two(policy, on_child_oom));
        killed(&mut node, 0);
        let said = events(&node);
        let count = |what: &str| said.iter().filter(|line| line.contains(what)).count();
        assert_eq!(
            (count(EVENT), count("Killing")),
            (reports, kills),
            "{on_child_oom:?} {policy:?}: {said:?}"
        );
        node.take(Step::Shows(0, first));
        node.take(Step::Shows(1, second));
    }
}

#[test]
fn an_older_instance_and_an_ended_one_are_nobody() {
    let mut node = started(two(RestartPolicy::Always, ChildOomPolicy::RestartContainer));
    killed(&mut node, 1);
    node.take(Step::Stale(1));
    node.take(Step::Exit(0, 3));
    killed(&mut node, 0);
    node.take(Step::Stale(2));
    assert!(events(&node).is_empty(), "{:?}", node.said());
}

#[test]
fn a_report_that_comes_twice_counts_once() {
    let mut node = started(two(RestartPolicy::Always, ChildOomPolicy::Event));
    killed(&mut node, 0);
    killed(&mut node, 0);
    node.take(Step::Stale(1));
    node.take(Step::Until(10));
    killed(&mut node, 0);
    assert_eq!(events(&node).len(), 2, "{:?}", node.said());
}

#[test]
fn one_that_is_stopped_already_is_only_told() {
    let mut node = started(two(RestartPolicy::Always, ChildOomPolicy::RestartPod));
    let instance = InstanceId { pod: POD, container: ContainerIx(0), restart_count: 0 };
    let facts = OomFacts { kills: 2, victim: None, limit: OomLimit::Unknown };
    let late = RuntimeEvent::ChildOomKilled { instance, facts, at: node.now() };
    node.together([Input::Pod(PodCmd::Delete { pod: POD, grace_s: None }), Input::Runtime(late)]);
    let said = events(&node);
    assert_eq!(said.iter().filter(|line| line.contains("Stopping container")).count(), 2, "{said:?}");
    assert_eq!(said.iter().filter(|line| line.contains("Killing")).count(), 2, "{said:?}");
    assert!(said.iter().any(|line| line.contains("2 processes of container a were killed")), "{said:?}");
}

#[test]
fn a_main_process_that_was_killed_for_memory() {
    let mut node = started(two(RestartPolicy::Never, ChildOomPolicy::Event));
    node.kill_for_memory(0);
    node.take(Step::Shows(0, "terminated OOMKilled 137, restarts 0"));
}

#[test]
fn the_end_says_why() {
    for policy in [ChildOomPolicy::RestartContainer, ChildOomPolicy::RestartPod] {
        let mut node = started(two(RestartPolicy::Always, policy));
        killed(&mut node, 0);
        for (at, was_killed) in [(0, true), (1, policy == ChildOomPolicy::RestartPod)] {
            let last = node.last_state(at);
            assert_eq!(last.is_some(), was_killed, "{policy:?} {at}");
            assert!(last.is_none_or(|last| last.message.as_deref() == Some(EVENT)), "{policy:?} {at}");
        }
        // The next end has a reason of its own.
        node.take(Step::Exit(0, 3));
        node.take(Step::Until(60));
        assert_eq!(node.last_state(0).and_then(|last| last.message), None);
    }
}

#[test]
fn a_victim_of_a_probe_is_only_told_of() {
    let mut node = started(two(RestartPolicy::Always, ChildOomPolicy::RestartPod));
    let instance = InstanceId { pod: POD, container: ContainerIx(0), restart_count: 0 };
    let victim = OomVictim { is_exec: true, ..worker("sh", None) };
    let facts = OomFacts { kills: 1, victim: Some(victim), limit: OomLimit::Unknown };
    let at = node.now();
    node.input(Input::Runtime(RuntimeEvent::ChildOomKilled { instance, facts, at }));
    let said = events(&node);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("Process 71 (sh) of a probe or hook of container a was killed"), "{said:?}");
}

fn worker(command: &str, rss_bytes: Option<u64>) -> OomVictim {
    OomVictim { pid: 71, command: command.into(), rss_bytes, is_exec: false }
}

#[test]
fn the_victim_is_named() {
    let check = |victim: OomVictim, limit, expected: &str| {
        let facts = OomFacts { kills: 1, victim: Some(victim), limit };
        assert_eq!(crate::decide::messages::child_oom_killed("c", Some(50 << 20), &facts), expected);
    };
    check(
        worker("worker", Some(65_536 << 10)),
        OomLimit::Node,
        "Process 71 (worker, 65536 KiB resident with file pages) of container c was killed for memory; \
         the node was out of memory",
    );
    // Its name is the workload's own text.
    check(
        worker("a\n\x1b[2Jb", None),
        OomLimit::Container,
        "Process 71 (a\\n^[[2Jb) of container c was killed for memory; \
         memory limit of the container, 51200 KiB, was reached",
    );
}

#[test]
fn who_is_stopped_with_its_pod_is_told_apart() {
    let text = crate::decide::messages::killed_with_pod("side", "main", true);
    assert_eq!(
        text,
        "Container side is stopped because container main lost a process to the OOM killer; side will be restarted"
    );
}
