//! The scenario that teaches liveness probes everywhere, on the real parts: a Node application beside a
//! real Envoy, one pod, and the readiness of Envoy's admin interface as the liveness of its container.

use serde_json::Value;
use test_support::{AFTER_A_WHILE, Agent, SOON, World, eventually, fixtures, procs};

const EXAMPLE: &str = "examples/kiada-liveness.yaml";
const POD: &str = "kiada-liveness";
const FAILED_503: &str = "Liveness probe failed: HTTP probe failed with statuscode: 503";
const KILLING: &str = "Container envoy failed liveness probe, will be restarted";
const ENVOY_ADMIN: u16 = 9901;

/// The pod of the example, running, with Envoy answering.
fn kiada() -> (World, Agent) {
    fixtures::require_node();
    let world = World::new().with_path(fixtures::envoy_bin_dir());
    let agent = world.run(&[EXAMPLE], &[]);
    agent.wait_for("Started container kiada", SOON);
    agent.wait_for("Started container envoy", SOON);
    eventually("Envoy is ready", SOON, || answer(&world, "GET", "/ready").filter(|status| *status == 200));
    (world, agent)
}

fn answer(world: &World, method: &str, path: &str) -> Option<u16> {
    world.http(method, ENVOY_ADMIN, path).ok().map(|response| response.status)
}

/// The pid of the only process of the test whose command line contains `text`.
fn pid_of(world: &World, text: &str) -> u32 {
    let all = procs::in_network_namespace(world.net().inode());
    let found: Vec<u32> =
        all.iter().filter(|process| process.command_line.contains(text)).map(|process| process.pid).collect();
    assert_eq!(found.len(), 1, "{text:?} in {all:?}");
    found[0]
}

fn container_id(world: &World, container: &str) -> Value {
    world.container_status(POD, container)["containerID"].clone()
}

#[test]
fn a_failing_envoy_is_restarted_and_kiada_is_untouched() {
    let (world, mut agent) = kiada();
    let kiada_before = (container_id(&world, "kiada"), pid_of(&world, "app.js"));
    assert_eq!(answer(&world, "POST", "/healthcheck/fail"), Some(200));

    let order = agent.wait_for_sequence(
        &[FAILED_503, FAILED_503, FAILED_503, KILLING, "Created container envoy", "Started container envoy"],
        AFTER_A_WHILE,
    );
    let lines = agent.events().all();
    let between = |from: usize, to: usize, text: &str| {
        lines[from..to].iter().filter(|line| line.contains(text)).count()
    };
    assert_eq!(between(0, order[3], FAILED_503), 3, "exactly three before the kill\n{}", agent.printed());
    assert_eq!(between(order[3], lines.len(), FAILED_503), 0, "held from the kill on\n{}", agent.printed());

    let kiada_after = (container_id(&world, "kiada"), pid_of(&world, "app.js"));
    assert_eq!(kiada_after, kiada_before, "kiada was touched");
    assert_eq!(world.container_status(POD, "kiada")["restartCount"], 0);
    assert_eq!(world.container_status(POD, "envoy")["restartCount"], 1);

    let describe = world.defib(&["describe", "pod", POD]).stdout;
    let envoy = section(&describe, "  envoy:");
    for part in [
        "Last State:",
        "Terminated",
        "Reason:       Completed",
        "Exit Code:    0",
        "Restart Count:  1",
        "http-get http://:admin/ready delay=10s timeout=2s period=5s #success=1 #failure=3",
    ] {
        assert!(envoy.contains(part), "{part:?} is not in\n{envoy}");
    }

    let previous = world.defib(&["logs", POD, "-c", "envoy", "-p"]);
    assert_eq!(previous.code, 0, "{}", previous.stderr);
    assert!(previous.stdout.contains("caught ENVOY_SIGTERM"), "not its shutdown:\n{}", previous.stdout);

    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

#[test]
fn an_envoy_that_heals_in_time_is_not_restarted() {
    let (world, mut agent) = kiada();
    let envoy_before = container_id(&world, "envoy");
    assert_eq!(answer(&world, "POST", "/healthcheck/fail"), Some(200));
    agent.wait_for_sequence(&[FAILED_503, FAILED_503], AFTER_A_WHILE);
    assert_eq!(answer(&world, "POST", "/healthcheck/ok"), Some(200));

    // Two runs more would have made the kill; a later failure starts to count from one again.
    assert_eq!(answer(&world, "GET", "/ready"), Some(200));
    let healed = agent.events().all().len();
    let probes = successes(&world);
    eventually("two more probes of Envoy", AFTER_A_WHILE, || (successes(&world) >= probes + 2).then_some(()));
    assert_eq!(agent.events().count("Unhealthy"), 2, "{}", agent.printed());
    assert_eq!(agent.events().all().len(), healed, "{}", agent.printed());
    assert_eq!(container_id(&world, "envoy"), envoy_before);
    assert_eq!(world.container_status(POD, "envoy")["restartCount"], 0);
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

/// Requests that Envoy's admin interface has answered, as Envoy counts them: every look adds one itself.
fn successes(world: &World) -> u64 {
    // The admin interface has its own listener statistics; the count grows by the probes and by this look.
    static LOOKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let looks = 1 + LOOKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let body = world
        .http("GET", ENVOY_ADMIN, "/stats?filter=http.admin.downstream_rq_total")
        .expect("Envoy answers")
        .body;
    let total: u64 =
        body.trim().rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a counter");
    total.saturating_sub(looks)
}

/// From the line that is `head` to the next line that is indented no deeper.
fn section(text: &str, head: &str) -> String {
    let depth = head.len() - head.trim_start().len();
    let mut lines = text.lines().skip_while(|line| *line != head);
    let first = lines.next().unwrap_or_default();
    let rest = lines.take_while(|line| line.len() - line.trim_start().len() > depth);
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_exec_example_is_restarted_when_its_file_is_gone() {
    let world = World::new();
    let mut agent = world.run(&["examples/liveness-exec.yaml"], &[]);
    agent.wait_for_sequence(
        &[
            "Started container",
            "Liveness probe failed:",
            "failed liveness probe, will be restarted",
            "Started container",
        ],
        AFTER_A_WHILE,
    );
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

#[test]
fn the_tcp_example_is_restarted_when_its_port_is_closed() {
    fixtures::require_node();
    let world = World::new();
    let mut agent = world.run(&["examples/liveness-tcp.yaml"], &[]);
    agent.wait_for_sequence(
        &[
            "Started container",
            "connect: connection refused",
            "failed liveness probe, will be restarted",
            "Started container",
        ],
        AFTER_A_WHILE,
    );
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

#[test]
fn one_that_ignores_sigterm_is_killed_after_its_grace() {
    let world = World::new();
    // The probe fails once, so that the second instance is left alone until the test interrupts.
    let failed_once = world.dir().join("failed-once");
    let probe = format!("test -e {0} || {{ touch {0}; exit 1; }}", failed_once.display());
    let pod = world.write(
        "stubborn.yaml",
        &format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: stubborn}}
spec:
  terminationGracePeriodSeconds: 300
  containers:
  - name: main
    command: [/bin/sh, -c, "trap '' TERM; while :; do sleep 1; done"]
    livenessProbe:
      exec: {{command: [sh, -c, "{probe}"]}}
      periodSeconds: 1
      failureThreshold: 1
      terminationGracePeriodSeconds: 2
"#
        ),
    );
    let mut agent = world.run(&[&pod], &[]);
    agent.wait_for_sequence(
        &[
            "Started container main",
            "Container main failed liveness probe, will be restarted",
            "Started container main",
        ],
        AFTER_A_WHILE,
    );
    let last = &world.container_status("stubborn", "main")["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137, "{last}");
    assert_eq!(last["reason"], "Error", "{last}");
    // The pod's own grace is five minutes: the first Ctrl-C waits for it, the second does not.
    agent.interrupt();
    agent.wait_for("Stopping container main", SOON);
    agent.interrupt();
    agent.wait();
    world.assert_nothing_left();
}
