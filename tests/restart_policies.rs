//! The E2E-R cases of the conformance table up to 08: restart policies, phases, termination messages.
//! Each case is data: a script for the container, the pod's fields, and what its status must become.

use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, SOON, World, eventually};

struct Case {
    id: &'static str,
    /// Run by /bin/sh; `$DIR` is a folder that outlives the container.
    script: &'static str,
    restart_policy: &'static str,
    /// Further fields of the container.
    container: Value,
    phase: &'static str,
    restarts: u64,
    /// JSON pointers into the container's status, and what must be there.
    status: Vec<(&'static str, Value)>,
}

/// Exits 1 on its first run, 0 on its second, then runs for ever.
const THIRD_TIME_LUCKY: &str =
    "echo x >>$DIR/runs; case $(wc -l <$DIR/runs) in 1) exit 1;; 2) exit 0;; *) exec sleep 1000;; esac";

const ENDED_MESSAGE: &str = "/state/terminated/message";
const ENDED_CODE: &str = "/state/terminated/exitCode";
const ENDED_REASON: &str = "/state/terminated/reason";

// Reason for length: a table.
fn cases() -> Vec<Case> {
    vec![
        Case {
            id: "E2E-R-01",
            script: THIRD_TIME_LUCKY,
            restart_policy: "Always",
            container: json!({}),
            phase: "Running",
            restarts: 2,
            status: vec![("/ready", json!(true)), ("/lastState/terminated/reason", json!("Completed"))],
        },
        Case {
            id: "E2E-R-01 with OnFailure",
            script: THIRD_TIME_LUCKY,
            restart_policy: "OnFailure",
            container: json!({}),
            phase: "Succeeded",
            restarts: 1,
            status: vec![("/ready", json!(false)), (ENDED_CODE, json!(0))],
        },
        Case {
            id: "E2E-R-03",
            script: THIRD_TIME_LUCKY,
            restart_policy: "Never",
            container: json!({}),
            phase: "Failed",
            restarts: 0,
            status: vec![("/ready", json!(false)), (ENDED_CODE, json!(1)), (ENDED_REASON, json!("Error"))],
        },
        Case {
            id: "E2E-R-04",
            script: "printf DONE >/dev/termination-log",
            restart_policy: "Never",
            container: json!({}),
            phase: "Succeeded",
            restarts: 0,
            status: vec![(ENDED_MESSAGE, json!("DONE")), (ENDED_REASON, json!("Completed"))],
        },
        Case {
            id: "E2E-R-05",
            script: "printf DONE >/dev/termination-custom-log",
            restart_policy: "Never",
            container: json!({
                "terminationMessagePath": "/dev/termination-custom-log",
                "securityContext": {"runAsUser": 1000},
            }),
            phase: "Succeeded",
            restarts: 0,
            status: vec![(ENDED_MESSAGE, json!("DONE"))],
        },
        Case {
            id: "E2E-R-06",
            script: "printf DONE; exit 1",
            restart_policy: "Never",
            container: json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
            phase: "Failed",
            restarts: 0,
            status: vec![(ENDED_MESSAGE, json!("DONE"))],
        },
        Case {
            id: "E2E-R-07",
            script: "printf DONE; exit 0",
            restart_policy: "Never",
            container: json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
            phase: "Succeeded",
            restarts: 0,
            status: vec![(ENDED_MESSAGE, Value::Null)],
        },
        Case {
            id: "E2E-R-08",
            script: "printf OK >/dev/termination-log; printf DONE; exit 0",
            restart_policy: "Never",
            container: json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
            phase: "Succeeded",
            restarts: 0,
            status: vec![(ENDED_MESSAGE, json!("OK"))],
        },
    ]
}

#[test]
fn restart_policies_and_termination_messages() {
    let world = World::new();
    let cases = cases();
    let pods: Vec<Value> = cases.iter().enumerate().map(|(n, case)| manifest(&world, n, case)).collect();
    let file =
        world.write("pods.json", &json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string());
    // The pod that runs for ever keeps the agent alive while the others finish.
    let mut agent = world.run(&[&file], &["--max-container-restart-period", "1s"]);
    for (n, case) in cases.iter().enumerate() {
        let status = eventually(case.id, AFTER_A_WHILE, || settled(&world, n, case));
        for (pointer, expected) in &case.status {
            let found = status.pointer(pointer).unwrap_or(&Value::Null);
            assert_eq!(found, expected, "{} {pointer} in {status}", case.id);
        }
    }
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

fn name(n: usize) -> String {
    format!("case-{n}")
}

fn manifest(world: &World, n: usize, case: &Case) -> Value {
    let dir = world.dir().join(name(n));
    std::fs::create_dir(&dir).expect("a new folder");
    let mut container = json!({
        "name": "main",
        "command": ["/bin/sh", "-c", case.script],
        "env": [{"name": "DIR", "value": dir}],
    });
    let fields = container.as_object_mut().expect("an object");
    fields.extend(case.container.as_object().expect("an object").clone());
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name(n)},
        "spec": {"restartPolicy": case.restart_policy, "containers": [container]},
    })
}

/// The container's status once phase and restart count are as the case wants them, and a container that
/// is to run has started.
fn settled(world: &World, n: usize, case: &Case) -> Option<Value> {
    let pods = world.get_json("pods");
    let pod = pods["items"].as_array()?.iter().find(|pod| pod["metadata"]["name"] == name(n))?.clone();
    let status = pod["status"]["containerStatuses"][0].clone();
    let as_wanted = pod["status"]["phase"] == case.phase && status["restartCount"] == case.restarts;
    let running = case.phase != "Running" || status["state"]["running"].is_object();
    (as_wanted && running).then_some(status)
}

#[test]
fn run_ends_by_itself_when_all_is_finished() {
    for (code, script) in [(0, "exit 0"), (1, "exit 7")] {
        let world = World::new();
        let pod = world.write(
            "once.yaml",
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: once}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: main, command: [/bin/sh, -c, {script:?}]}}\n"
            ),
        );
        let mut agent = world.run(&[&pod], &[]);
        assert_eq!(agent.wait(), code, "{script}\n{}", agent.printed());
        world.assert_nothing_left();
    }
}

#[test]
fn init_containers_run_in_order_and_a_sidecar_outlives_them() {
    let world = World::new();
    let trace = world.dir().join("trace");
    let trace = trace.to_str().expect("temporary folders have plain names");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ordered"},
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [
                {"name": "first", "command": ["/bin/sh", "-c", format!("echo first >>{trace}")]},
                {"name": "side", "restartPolicy": "Always",
                 "command": ["/bin/sh", "-c", format!("echo side >>{trace}; exec sleep 1000")]},
                {"name": "second", "command": ["/bin/sh", "-c", format!("echo second >>{trace}")]},
            ],
            "containers": [{"name": "main", "command": ["/bin/sh", "-c", format!("echo main >>{trace}")]}],
        },
    });
    let file = world.write("ordered.json", &pod.to_string());
    let mut agent = world.run(&[&file], &[]);
    agent.wait_for_sequence(
        &[
            "Started container first",
            "Started container side",
            "Started container second",
            "Started container main",
            "Stopping container side",
        ],
        SOON,
    );
    assert_eq!(agent.wait(), 0, "{}", agent.printed());
    let lines = std::fs::read_to_string(trace).expect("the containers wrote it");
    // A sidecar counts as initialised once it runs, not once it wrote its line.
    let without_side: Vec<&str> = lines.lines().filter(|line| *line != "side").collect();
    assert_eq!(without_side, ["first", "second", "main"]);
    world.assert_nothing_left();
}
