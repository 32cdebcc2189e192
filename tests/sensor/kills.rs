//! Thousands of kills in random order, under load; with records of the eBPF sensor lost on purpose.

use serde_json::{Value, json};
use test_support::{Agent, World};

use super::victims::{Victims, check_all_killed};

/// Number of the first container; what it sleeps, too.
const FIRST: usize = 900_000;
const CONTAINERS_PER_POD: usize = 10;
/// Every so many containers has a probe.
const PROBED_EVERY: usize = 5;
const SERVER_PORT: u16 = 18_080;
/// Main processes of the pod that makes the load.
const LOAD_CONTAINERS: u64 = 3;

struct Plan {
    pods: usize,
    /// Of each container.
    kills: u32,
    args: &'static [&'static str],
}

impl Plan {
    fn containers(&self) -> usize {
        self.pods * CONTAINERS_PER_POD
    }

    fn kills_in_all(&self) -> u64 {
        self.containers() as u64 * u64::from(self.kills)
    }

    /// Ends of main processes, those at the shutdown among them.
    fn ends(&self) -> u64 {
        self.kills_in_all() + self.containers() as u64 + LOAD_CONTAINERS
    }

    /// Does it all, and gives what the sensor counted.
    fn check(&self) -> Value {
        // `=debug` of the sensor alone: the rest of the log stays as it is.
        let world = World::new().with_env("DEFIB_LOG", "info,probe_core::sensor=debug");
        let mut args = vec!["--max-container-restart-period", "1s", "--log-format", "json"];
        args.extend(self.args);
        let mut agent = world.run(&[&world.write("pods.json", &self.manifest())], &args);
        let numbers = FIRST..FIRST + self.containers();
        Victims::new(&agent, numbers, self.kills).kill_all(|| Box::new(|_| true));
        check_all_killed(&world, "sleepers", self.containers(), self.kills);
        check_all_killed(&world, "load", LOAD_CONTAINERS as usize, 0);
        assert_eq!(agent.terminate(), 0);
        self.check_events(&agent);
        world.assert_nothing_left();
        let totals = totals(&agent);
        println!("{totals}");
        totals
    }

    /// One start for each instance, and nothing that says more than what happened.
    fn check_events(&self, agent: &Agent) {
        let starts = self.kills_in_all() + self.containers() as u64 + LOAD_CONTAINERS;
        assert_eq!(agent.events().count("Started container") as u64, starts);
        assert_eq!(agent.events().count("OOM"), 0);
    }

    fn manifest(&self) -> String {
        let pods = (0..self.pods).map(|pod| {
            let first = FIRST + pod * CONTAINERS_PER_POD;
            let containers: Vec<Value> = (first..first + CONTAINERS_PER_POD).map(sleeper).collect();
            pod_of(&format!("sleepers-{pod}"), containers)
        });
        let busy = json!(["nice", "-n", "19", "sh", "-c", "while :; do :; done"]);
        let server = format!("exec $(DEFIB) demo wedge --port {SERVER_PORT} --healthy-for 10h");
        let load = pod_of(
            "load",
            vec![
                json!({"name": "server", "command": ["sh", "-c", server]}),
                json!({"name": "busy-1", "command": busy}),
                json!({"name": "busy-2", "command": busy}),
            ],
        );
        let items: Vec<Value> = pods.chain([load]).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }
}

fn pod_of(name: &str, containers: Vec<Value>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": containers},
    })
}

/// Readiness, since a liveness probe that fails for want of CPU would be one more restart.
fn sleeper(number: usize) -> Value {
    let mut container = json!({
        "name": format!("c{number}"), "command": ["/bin/sleep", number.to_string()],
    });
    if number.is_multiple_of(PROBED_EVERY) {
        let probe = if number.is_multiple_of(2 * PROBED_EVERY) { "httpGet" } else { "tcpSocket" };
        container["readinessProbe"] = json!({"periodSeconds": 1, probe: {"port": SERVER_PORT}});
    }
    container
}

/// From the agent's last words.
fn totals(agent: &Agent) -> Value {
    let log = agent.log().all();
    let line = log.iter().rev().find(|line| line.contains("the sensor has ended"));
    let line = line.unwrap_or_else(|| panic!("no totals in {}", log.join("\n")));
    serde_json::from_str::<Value>(line).expect("a line of JSON")["fields"].clone()
}

fn count(totals: &Value, name: &str) -> u64 {
    totals[name].as_u64().unwrap_or_else(|| panic!("no {name} in {totals}"))
}

#[test]
fn ten_thousand_kills_with_every_tenth_record_lost() {
    let plan = Plan { pods: 50, kills: 20, args: &["--sensor", "ebpf", "--sensor-drop-percent", "10"] };
    assert_eq!(plan.kills_in_all(), 10_000);
    let totals = plan.check();
    let [by_record, by_pidfd, lost, late] =
        ["told_by_record", "told_by_pidfd", "lost", "late"].map(|name| count(&totals, name));
    assert_eq!(by_record + by_pidfd, plan.ends(), "{totals}");
    // Every end had its record: it told, or the pidfd was faster, or it was lost.
    assert_eq!(by_pidfd, lost + late, "{totals}");
    assert_eq!(count(&totals, "contradicted"), 0, "{totals}");
    assert!(count(&totals, "resyncs") > 0, "{totals}");
    // Ten standard deviations of a random tenth on each side.
    let tenth = plan.ends() / 10;
    assert!(lost.abs_diff(tenth) < tenth / 3, "{totals}");
}

#[test]
fn five_hundred_kills_without_the_programs() {
    let plan = Plan { pods: 5, kills: 10, args: &["--sensor", "pidfd"] };
    assert_eq!(plan.kills_in_all(), 500);
    let totals = plan.check();
    assert_eq!(count(&totals, "told_by_pidfd"), plan.ends(), "{totals}");
    for nothing in ["records", "late", "told_by_record", "contradicted", "lost", "resyncs"] {
        assert_eq!(count(&totals, nothing), 0, "{totals}");
    }
}
