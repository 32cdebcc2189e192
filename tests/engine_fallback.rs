//! Probes without io_uring: a host that forbids it, and `--engine`.

use std::fs;

use serde_json::Value;
use test_support::{Agent, SOON, World, eventually};

/// How /proc/<pid>/fd names a ring.
const RING: &str = "anon_inode:[io_uring]";
/// Starts the warning that io_uring is not there.
const FALLS_BACK: &str = "no io_uring for probes";

#[test]
fn where_io_uring_is_forbidden_epoll_carries_the_probes() {
    let world = World::new().without_io_uring();
    let mut agent = world.run(&["examples/wedge.yaml"], &[]);
    agent.wait_for("Started container server", SOON);
    eventually("the server listens", SOON, || world.http("GET", 18080, "/").ok());
    let probe = world.defib(&["probe", "http://127.0.0.1:18080/"]);
    assert_eq!(probe.code, 0, "{probe:?}");
    assert!(probe.stderr.contains(FALLS_BACK), "{probe:?}");
    agent.wait_for_wedge();
    let log = agent.log().all().join("\n");
    assert_eq!((log.matches(FALLS_BACK).count(), log.matches("seccomp profile").count()), (1, 1), "{log}");
    assert_eq!(rings(&agent), 0);
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

#[test]
fn where_io_uring_is_forbidden_it_cannot_be_asked_for() {
    let world = World::new().without_io_uring();
    let run = world.defib(&["run", "examples/wedge.yaml", "--engine", "uring"]);
    let probe = world.defib(&["probe", "tcp://127.0.0.1:1", "--engine", "uring"]);
    for done in [run, probe] {
        assert_eq!(done.code, 5, "{done:?}");
        assert!(done.stderr.contains("--engine uring") && done.stderr.contains("seccomp"), "{done:?}");
    }
    world.assert_nothing_left();
}

#[test]
fn where_io_uring_is_forbidden_doctor_names_engine_and_cure() {
    let world = World::new().without_io_uring();
    let done = world.defib(&["doctor", "-o", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let whole: Value = serde_json::from_str(&done.stdout).expect("doctor prints JSON");
    let finding = |feature: &str| {
        let all = whole["features"].as_array().expect("a list");
        all.iter().find(|finding| finding["feature"] == feature).expect("a line for it").clone()
    };
    let has = |value: &Value, word: &str| value.as_str().is_some_and(|text| text.contains(word));
    let (engine, io_uring) = (finding("engine"), finding("io_uring"));
    assert!(engine["used"] == true && has(&engine["why"], "epoll"), "{engine}");
    assert!(has(&engine["cure"], "io_uring"), "{engine}");
    assert!(io_uring["used"] == false && io_uring["required"] == false, "{io_uring}");
    assert!(has(&io_uring["why"], "io_uring_setup") && has(&io_uring["cure"], "seccomp"), "{io_uring}");
}

#[test]
fn epoll_can_be_asked_for() {
    let world = World::new();
    let mut agents_rings = Vec::new();
    for engine in ["uring", "epoll"] {
        let mut agent = world.run(&["examples/wedge.yaml"], &["--engine", engine, "--engine-shards", "2"]);
        agent.wait_for("Started container server", SOON);
        agents_rings.push(rings(&agent));
        assert_eq!(agent.log().count(FALLS_BACK), 0, "{}", agent.printed());
        assert_eq!(agent.terminate(), 0);
    }
    // Two threads, each without its ring.
    assert_eq!(agents_rings[0], agents_rings[1] + 2);
    world.assert_nothing_left();
}

/// Rings that the agent holds.
fn rings(agent: &Agent) -> usize {
    let links = fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("the agent runs");
    let targets = links.flatten().filter_map(|link| fs::read_link(link.path()).ok());
    targets.filter(|target| target.as_os_str() == RING).count()
}
