//! The verbs that talk to a running agent, as a person types them.

use test_support::{AFTER_A_WHILE, Agent, SOON, World, eventually};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: talker
  labels: {app: talker}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: none
    command: [sh, -c, 'echo first; echo second; trap \"exit 0\" TERM; sleep 1000 & wait']
    livenessProbe:
      exec: {command: [test, -e, well]}
      initialDelaySeconds: 1000
";

const ENDING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: ending}
spec:
  containers:
  - name: main
    image: none
    command: [sh, -c, 'echo run; while [ ! -e go ]; do sleep 0.05; done; echo end; exit 3']
";

/// Runs the verb, expects success, and gives its standard output.
#[track_caller]
fn ok(world: &World, args: &[&str]) -> String {
    let done = world.defib(args);
    assert_eq!(done.code, 0, "{args:?}: {}{}", done.stdout, done.stderr);
    done.stdout
}

/// Runs the verb, expects this exit code, and gives its standard error.
#[track_caller]
fn fails(world: &World, args: &[&str], code: i32) -> String {
    let done = world.defib(args);
    assert_eq!(done.code, code, "{args:?}: {}{}", done.stdout, done.stderr);
    done.stderr
}

#[test]
fn a_pod_from_apply_to_delete() {
    let world = World::new();
    let text = fails(&world, &["get", "pods"], 69);
    assert!(text.contains(world.socket().to_str().unwrap()) && text.contains("defib run"), "{text}");

    let file = world.write("talker.yaml", POD);
    // The second pod keeps the agent when the first is deleted.
    let other = world.write("ending.yaml", ENDING);
    let mut agent = world.run(&[&file, &other], &[]);
    agent.wait_for("pod/talker                 Started container main", AFTER_A_WHILE);

    let pods = ok(&world, &["get", "pods"]);
    let rows: Vec<Vec<&str>> = pods.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(rows[2][..4], ["talker", "1/1", "Running", "0"]);
    assert_eq!(ok(&world, &["get", "pod", "talker", "-o", "name"]), "pod/talker\n");
    assert!(ok(&world, &["get", "pod/talker", "-o", "yaml"]).starts_with("apiVersion: v1\nkind: Pod\n"));
    assert!(ok(&world, &["get", "po", "-o", "wide", "-A"]).contains("READINESS GATES\ndefault "));
    assert_eq!(
        fails(&world, &["get", "pods", "x"], 1),
        "Error from server (NotFound): pods \"x\" not found\n"
    );
    let empty = world.defib(&["get", "pods", "-n", "other"]);
    assert_eq!((empty.code, &*empty.stderr), (0, "No resources found in other namespace.\n"));
    assert!(fails(&world, &["get", "nodes"], 2).contains("resource type \"nodes\""));

    let events = ok(&world, &["get", "events"]);
    assert!(events.lines().any(|line| line.ends_with("pod/talker   Started container main")), "{events}");
    let described = ok(&world, &["describe", "pod", "talker"]);
    let probe = "Liveness:       exec [test -e well] delay=1000s timeout=1s period=10s #success=1 #failure=3";
    assert!(described.contains(probe), "{described}");
    assert!(described.contains("kubelet  Started container main"), "{described}");
    let lines = eventually("both lines are written", SOON, || {
        Some(ok(&world, &["logs", "talker"])).filter(|log| log.lines().count() == 2)
    });
    assert_eq!(lines, "first\nsecond\n");
    assert_eq!(ok(&world, &["logs", "talker", "main", "--tail", "1"]), "second\n");
    let no_previous = fails(&world, &["logs", "-p", "talker"], 1);
    let text = "previous terminated container \"main\" in pod \"talker\" not found";
    assert_eq!(no_previous, format!("Error from server (BadRequest): {text}\n"));
    assert!(fails(&world, &["logs", "talker", "--timestamps"], 1).contains("without times"));

    let failed = world.defib(&["probe", "talker", "main", "liveness"]);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(failed.stdout.starts_with("PHASE") && failed.stdout.contains("\nfailure"), "{}", failed.stdout);
    world.write("well", "");
    assert!(ok(&world, &["probe", "talker"]).ends_with("success\n"));

    assert_eq!(ok(&world, &["apply", "-f", &file]), "pod/talker unchanged\n");
    let changed = world.write("talker.yaml", &POD.replace("first", "third"));
    assert_eq!(ok(&world, &["apply", "-f", &changed]), "pod/talker configured\n");
    agent.wait_for("Container main definition changed, will be restarted", AFTER_A_WHILE);
    let forbidden = world.write("talker.yaml", &POD.replace("PeriodSeconds: 2", "PeriodSeconds: 3"));
    let text = fails(&world, &["apply", "-f", &forbidden], 1);
    assert!(text.contains("Forbidden: pod updates may not change fields other than"), "{text}");
    assert!(text.contains("spec.terminationGracePeriodSeconds"), "{text}");
    let invalid = world.write("talker.yaml", &POD.replace("name: talker", "name: Talker"));
    assert!(fails(&world, &["apply", "-f", &invalid], 3).contains("metadata.name: Invalid value"));

    assert_eq!(ok(&world, &["delete", "pod", "talker"]), "pod \"talker\" deleted\n");
    let gone = fails(&world, &["describe", "pod", "talker"], 1);
    assert_eq!(gone, "Error from server (NotFound): pods \"talker\" not found\n");
    assert_eq!(fails(&world, &["delete", "pod/talker"], 1), gone);
    agent.terminate();
    assert!(!world.socket().exists(), "the socket's file is removed");
}

#[test]
fn a_refused_start_leaves_nothing_and_prints_no_events() {
    let world = World::new();
    let (good, bad) = (world.write("good.yaml", POD), world.write("bad.yaml", "hello"));
    let state = world.dir().join("new-state");
    let state = state.to_str().unwrap();
    let no_folder = world.dir().join("missing/defib.sock");
    let no_folder = no_folder.to_str().unwrap();
    for (args, code) in [
        (&["run", "-f", &bad, "--state-dir", state][..], 3),
        (&["run", &good, "--filename", &bad, "--state-dir", state], 3),
        (&["run", "-f", &good, "--state-dir", state, "--socket", no_folder], 1),
        (&["run", "--state-dir", state], 2),
    ] {
        let done = world.defib(args);
        assert_eq!((done.code, &*done.stdout), (code, ""), "{args:?}: {}", done.stderr);
        assert!(!world.dir().join("new-state").exists(), "{args:?}");
    }
    let script = "ulimit -n 256; exec \"$0\" run -f \"$1\"";
    let done =
        std::process::Command::new("/bin/sh").args(["-c", script]).arg(world.binary()).arg(&bad).output();
    let log = String::from_utf8_lossy(&done.expect("a shell").stderr).into_owned();
    assert!(log.contains("RLIMIT_NOFILE is 256"), "{log}");
}

/// Obeys no signal, and would be given an hour.
fn stubborn(name: &str) -> String {
    let script = "trap \"\" TERM; while :; do sleep 1000; done";
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}, kind: stubborn}}}}, \
         spec: {{terminationGracePeriodSeconds: 3600, containers: [{{name: main, command: [sh, -c, '{script}']}}]}}}}"
    )
}

#[test]
fn ways_to_delete() {
    let world = World::new();
    let files = ["a", "b", "c", "d"].map(|name| world.write(&format!("{name}.yaml"), &stubborn(name)));
    let mut agent = world.run(&files.each_ref().map(String::as_str), &[]);
    for name in ["a", "b", "c", "d"] {
        agent.wait_for(&format!("pod/{name:<22} Started container main"), AFTER_A_WHILE);
    }
    let usage = |args: &[&str], expected: &str| {
        assert_eq!(fails(&world, &[&["delete"], args].concat(), 2), format!("error: {expected}\n"));
    };
    usage(&[], "You must provide one or more resources by argument or filename");
    usage(&["pods"], "resource(s) were provided, but no name was specified");
    usage(&["pods", "--all", "a"], "name cannot be provided when a selector is specified");
    usage(
        &["pod", "a", "--now", "--grace-period=3"],
        "--now and --grace-period cannot be specified together",
    );
    let both = "when paths, URLs, or stdin is provided as resource input, you may not specify resource arguments as well";
    usage(&["-f", &files[0], "pod", "a"], both);

    let done = world.defib(&["delete", "pod", "a", "--force"]);
    assert_eq!((done.code, &*done.stdout), (0, "pod \"a\" force deleted\n"), "{}", done.stderr);
    assert!(done.stderr.starts_with("Warning: Immediate deletion does not wait for"), "{}", done.stderr);
    assert_eq!(
        ok(&world, &["get", "pods", "-l", "kind=stubborn,app notin (d)", "-o", "name"]),
        "pod/b\npod/c\n"
    );
    let none = world.defib(&["get", "pods", "-l", "kind!=stubborn"]);
    assert_eq!((none.code, &*none.stderr), (0, "No resources found in default namespace.\n"));
    assert!(fails(&world, &["get", "pods", "-l", "a b"], 1).contains("unable to parse requirement"));
    assert!(fails(&world, &["get", "pod", "b", "-l", "a"], 2).contains("name cannot be provided"));
    let events = ok(&world, &["get", "events", "--for", "pod/b", "--no-headers"]);
    assert!(events.lines().count() == 2 && events.lines().all(|line| line.contains(" pod/b ")), "{events}");
    assert!(fails(&world, &["get", "events", "--for", "b"], 2).contains("resource/name form"));
    assert!(fails(&world, &["get", "pods", "--for", "pod/b"], 2).contains("get events --for"));

    assert_eq!(ok(&world, &["delete", "-f", &files[1], "--now"]), "pod \"b\" deleted\n");
    let wrong = fails(&world, &["delete", "-n", "x", "-f", &stubborn_elsewhere(&world)], 1);
    assert!(wrong.contains("You must pass '--namespace=other' to perform this operation."), "{wrong}");
    assert_eq!(ok(&world, &["get", "pods", "-o", "name"]), "pod/c\npod/d\n");

    assert_eq!(ok(&world, &["delete", "pods", "--all", "-n", "x"]), "No resources found\n");
    assert_eq!(ok(&world, &["delete", "pods", "-l", "app=a"]), "No resources found\n");
    // Without pods the agent ends; the verb has seen the end of both before.
    let all = ok(&world, &["delete", "pods", "--all", "--grace-period=0"]);
    assert_eq!(all, "pod \"c\" deleted\npod \"d\" deleted\n");
    assert_eq!(agent.wait(), 0, "{}", agent.printed());
}

fn stubborn_elsewhere(world: &World) -> String {
    world.write("elsewhere.yaml", &stubborn("a").replace("{name: a,", "{name: a, namespace: other,"))
}

#[test]
fn following_a_log_ends_with_the_instance() {
    let world = World::new();
    let file = world.write("ending.yaml", ENDING);
    let mut agent = world.run(&[&file], &[]);
    agent.wait_for("Started container main", AFTER_A_WHILE);
    world.write("go", "");
    agent.wait_for("Back-off restarting failed container main", AFTER_A_WHILE);
    // The instance has ended: nothing more can come, so following ends by itself.
    assert_eq!(ok(&world, &["logs", "-f", "ending"]), "run\nend\n");
    assert_eq!(ok(&world, &["logs", "-p", "pod/ending"]), "run\nend\n");
    let status = world.container_status("ending", "main");
    assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
    agent.terminate();
}

/// Two watches that have shown a change, and their agent.
fn watched(world: &World) -> (Agent, [Agent; 2]) {
    let files = [world.write("talker.yaml", POD), world.write("ending.yaml", ENDING)];
    let agent = world.run(&[&files[0], &files[1]], &[]);
    let watches = ["pods", "events"].map(|kind| world.start(&["get", kind, "-w"]));
    watches[0].wait_for("talker", AFTER_A_WHILE);
    watches[1].wait_for("Started container main", AFTER_A_WHILE);
    ok(world, &["delete", "pod", "talker"]);
    watches[0].wait_for("Terminating", AFTER_A_WHILE);
    watches[1].wait_for("Killing", AFTER_A_WHILE);
    (agent, watches)
}

#[test]
fn a_watch_ends_well_with_an_agent_that_stops() {
    let world = World::new();
    let (mut agent, mut watches) = watched(&world);
    agent.terminate();
    for watch in &mut watches {
        assert_eq!(watch.wait(), 0, "{}", watch.printed());
        assert!(watch.log().all().is_empty(), "{}", watch.printed());
    }
    let mut late = world.start(&["get", "pods", "-w"]);
    assert_eq!(late.wait(), 69, "{}", late.printed());
}

#[test]
fn a_watch_fails_with_an_agent_that_is_killed() {
    let world = World::new();
    let (mut agent, mut watches) = watched(&world);
    agent.kill_hard();
    for watch in &mut watches {
        assert_eq!(watch.wait(), 69, "{}", watch.printed());
    }
    // The next agent ends what this one left.
    world.run(&[&world.write("ending.yaml", ENDING)], &[]).terminate();
}

#[test]
fn one_probe_of_any_address() {
    let world = World::new();
    let refused = world.defib(&["probe", "tcp://127.0.0.1:9", "-o", "json"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let result: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(result["verdict"], "failure");
    let listener = world.net().inside(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    assert!(ok(&world, &["probe", &address]).ends_with("success\n"));
    assert!(fails(&world, &["probe", "ftp://127.0.0.1:9"], 2).contains("http://"));
    for none in ["0s", "0ms", "0m0s"] {
        let text = fails(&world, &["probe", &address, "--timeout", none], 2);
        assert!(text.contains("--timeout <DURATION>") && text.contains("longer than 0s"), "{text}");
    }
    for (args, why) in [
        (&[&address, "main"][..], "\"main\" has no effect: "),
        (&[&address, "main", "liveness"], "is an address, which has no containers: leave it out"),
        (&["a-pod", "--timeout", "1s"], "--timeout has no effect on a probe of pod a-pod"),
        (&["a-pod", "main", "--engine", "epoll"], "--engine has no effect on a probe of pod a-pod"),
    ] {
        let text = fails(&world, &[&["probe"], args].concat(), 3);
        assert!(text.contains(why), "{args:?}: {text}");
    }
}
