//! A thousand restarts leave nothing behind, and neither does a killed agent.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, Agent, SOON, World, eventually, procs};

const CONTAINERS: usize = 50;
/// Each container ends so many times before it runs for ever.
const RESTARTS: usize = 20;
/// So that the test does not wait on a pipe that nobody reads any more (asm-generic/fcntl.h).
const O_NONBLOCK: i32 = 0o4000;
/// Log files that one instance may keep (design 9.6, issue: 10 MiB x 5).
const LOG_FILES_MAX: usize = 5;

/// What could leak, counted.
#[derive(PartialEq, Eq, Debug)]
struct Footprint {
    descriptors: usize,
    processes: usize,
    children_of_agent: usize,
    cgroups: usize,
}

impl Footprint {
    fn of(world: &World, agent: &Agent) -> Footprint {
        let uids = pod_uids(&world.get_json("pods"));
        let pods: Vec<PathBuf> = uids.iter().flat_map(|uid| procs::pod_cgroups(uid)).collect();
        Footprint {
            descriptors: procs::open_descriptors(agent.pid()),
            processes: procs::in_network_namespace(world.net().inode()).len(),
            children_of_agent: procs::children(agent.pid()).len(),
            cgroups: pods.iter().map(|pod| folders_below(pod)).sum(),
        }
    }
}

fn folders_below(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|folder| 1 + folders_below(&folder.path())).sum()
}

fn pod_uids(pods: &Value) -> Vec<String> {
    let items = pods["items"].as_array().into_iter().flatten();
    items.filter_map(|pod| pod["metadata"]["uid"].as_str()).map(str::to_owned).collect()
}

/// One pod of [`CONTAINERS`]: the first run of each waits for the file `go`, then all end again and again.
fn restless(world: &World) -> String {
    let dir = world.dir().to_str().expect("temporary folders have plain names");
    let containers: Vec<Value> = (0..CONTAINERS)
        .map(|n| {
            let script = format!(
                "echo x >>{dir}/runs-{n}; run=$(wc -l <{dir}/runs-{n}); echo run $run; \
                 [ $run -gt {RESTARTS} ] && exec sleep 1000; \
                 [ $run -eq 1 ] && read -r _ <{dir}/go; exit 1"
            );
            json!({"name": format!("c{n}"), "command": ["/bin/sh", "-c", script]})
        })
        .collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restless"},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": containers},
    });
    // Readers of a named pipe wait until somebody writes: no looking, no sleeping.
    let made = std::process::Command::new("mkfifo").arg(format!("{dir}/go")).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    world.write("restless.json", &pod.to_string())
}

/// Every container runs and has been restarted `restarts` times.
fn all_at(world: &World, restarts: usize) -> Option<()> {
    let pods = world.get_json("pods");
    let statuses = pods["items"][0]["status"]["containerStatuses"].as_array()?;
    let there =
        |status: &&Value| status["restartCount"] == restarts && status["state"]["running"].is_object();
    (statuses.iter().filter(there).count() == CONTAINERS).then_some(())
}

#[test]
fn a_thousand_restarts_leave_nothing_and_neither_does_kill_9() {
    let world = World::new();
    let file = restless(&world);
    let args = ["--max-container-restart-period", "1s"];
    let mut agent = world.run(&[&file], &args);
    eventually("all containers run", SOON, || all_at(&world, 0));
    let before = Footprint::of(&world, &agent);
    assert!(before.children_of_agent > CONTAINERS, "{before:?}");

    // A reader may come to the pipe late, so it is opened and closed until all have passed.
    let go = world.dir().join("go");
    eventually("all containers were restarted", AFTER_A_WHILE, || {
        let _ = fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&go);
        all_at(&world, RESTARTS)
    });

    let mut seen = None;
    eventually("the footprint of the first start", SOON, || {
        let now = Footprint::of(&world, &agent);
        let same = now == before;
        if seen.as_ref() != Some(&now) {
            eprintln!("{now:?}");
        }
        seen = Some(now);
        same.then_some(())
    });
    check_logs(&world);

    let old = pod_uids(&world.get_json("pods"));
    let survivors: BTreeSet<u32> =
        procs::in_network_namespace(world.net().inode()).iter().map(|process| process.pid).collect();
    agent.kill_hard();
    let mut agent = world.run(&[&file], &args);
    eventually("the next start runs all containers", SOON, || all_at(&world, 0));
    let still: Vec<_> = procs::in_network_namespace(world.net().inode())
        .into_iter()
        .filter(|process| survivors.contains(&process.pid))
        .collect();
    assert!(still.is_empty(), "left over from the killed agent: {still:?}");
    let cgroups: Vec<PathBuf> = old.iter().flat_map(|uid| procs::pod_cgroups(uid)).collect();
    assert!(cgroups.is_empty(), "left over from the killed agent: {cgroups:?}");
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

/// The current and the previous instance's logs are there, and no others.
fn check_logs(world: &World) {
    let pods: Vec<PathBuf> = list(&world.state_dir().join("pods"));
    assert_eq!(pods.len(), 1, "{pods:?}");
    for n in 0..CONTAINERS {
        let mut instances: BTreeSet<String> = BTreeSet::new();
        let mut files = 0;
        for path in list(&pods[0].join(format!("c{n}"))) {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            if let Some((instance, _)) = name.split_once(".log") {
                instances.insert(instance.to_owned());
                files += 1;
            }
        }
        let expected = BTreeSet::from([RESTARTS.to_string(), (RESTARTS - 1).to_string()]);
        assert_eq!(instances, expected, "container c{n}");
        assert!(files <= 2 * LOG_FILES_MAX, "container c{n} keeps {files} log files");
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.flatten().map(|entry| entry.path()).collect()
}

#[test]
fn a_second_agent_on_the_same_state_says_who_holds_it() {
    let world = World::new();
    let pod = world.write(
        "sleeper.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: sleeper}\nspec: {terminationGracePeriodSeconds: 2, containers: [{name: main, command: [sleep, '1000']}]}\n",
    );
    let mut first = world.run(&[&pod], &[]);
    first.wait_for("Started container main", SOON);
    let mut second = world.run(&[&pod], &[]);
    assert_eq!(second.wait(), 1);
    let log = second.log().all().join("\n");
    assert!(log.contains(&first.pid().to_string()), "names nobody:\n{log}");
    assert_eq!(first.terminate(), 0);
    world.assert_nothing_left();
}
