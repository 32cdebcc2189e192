//! The tables of the semantics, a test for each row, in full length: what the built binary makes of an HTTP answer (section
//! 4.4), of a command (6), and the events that it tells (17). The rows of section 7 are in tests/grpc.rs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, Agent, World, eventually};

/// Where [`serve`] listens; and where nobody does.
const PORT: u16 = 8080;
const CLOSED: u16 = 81;

/// A pod named `p` with a container `c`, which sleeps unless the fields say otherwise.
struct Scene {
    world: World,
    agent: Agent,
}

impl Scene {
    fn new(fields: Value) -> Scene {
        Scene::of(World::new(), "containers", fields)
    }

    /// `list` is `containers`, or `initContainers` for a sidecar beside a container that sleeps.
    fn of(world: World, list: &str, fields: Value) -> Scene {
        let mut container = json!({"name": "c", "command": ["sleep", "100000"]});
        for (key, value) in fields.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        let mut spec = json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "command": ["sleep", "100000"]}],
        });
        spec[list] = json!([container]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
        let file = world.write("pod.yaml", &pod.to_string());
        let agent = world.run(&[&file], &[]);
        Scene { world, agent }
    }

    /// With a readiness probe, run each second.
    fn probing(world: World, mut probe: Value) -> Scene {
        probe["periodSeconds"] = json!(1);
        Scene::of(world, "containers", json!({"readinessProbe": probe}))
    }

    /// An event of this type, reason and text comes; `{pod}` stands for the pod's full name.
    fn tells(&self, kind: &str, reason: &str, message: &str) {
        eventually(&format!("{kind} {reason} {message:?}"), AFTER_A_WHILE, || {
            let pods = self.world.get_json("pods");
            let uid = pods["items"][0]["metadata"]["uid"].as_str().unwrap_or_default();
            let message = message.replace("{pod}", &format!("p_default({uid})"));
            let events = self.world.get_json("events");
            let is_it = |event: &&Value| {
                (&event["type"], &event["reason"], &event["message"])
                    == (&json!(kind), &json!(reason), &json!(message))
            };
            events["items"].as_array().into_iter().flatten().find(is_it).map(|_| ())
        });
    }

    fn is_ready(&self) -> bool {
        self.world.container_status("p", "c")["ready"] == true
    }

    fn gets_ready(&self) {
        eventually("it is ready", AFTER_A_WHILE, || self.is_ready().then_some(()));
    }

    /// No event tells of a probe.
    fn is_silent_about_probes(&self) {
        let lines = self.agent.events().all();
        assert!(!lines.iter().any(|line| line.contains(" probe ")), "{lines:?}");
    }

    fn end(mut self) {
        assert_eq!(self.agent.terminate(), 0, "{}", self.agent.printed());
        self.world.assert_nothing_left();
    }
}

/// A server in the world that gives every request this answer, and closes.
fn serve(world: &World, answer: &'static str) {
    let listener =
        world.net().inside(|| TcpListener::bind(("127.0.0.1", PORT))).expect("each world has its own ports");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes early is served by nobody.
            let _ = give(stream, answer);
        }
    });
}

fn give(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut bytes = [0; 1_024];
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&bytes[..count]),
        }
    }
    stream.write_all(answer.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    while stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}

/// A scene whose readiness probe gets this answer.
fn answered(answer: &'static str) -> Scene {
    let world = World::new();
    serve(&world, answer);
    Scene::probing(world, json!({"httpGet": {"path": "/x", "port": PORT}}))
}

#[test]
fn row_4_01_a_transport_error_is_a_failure() {
    let scene = Scene::probing(World::new(), json!({"httpGet": {"path": "/x", "port": CLOSED}}));
    let text = "Readiness probe failed: Get \"http://127.0.0.1:81/x\": dial tcp 127.0.0.1:81: connect: connection \
                refused";
    scene.tells("Warning", "Unhealthy", text);
    assert!(!scene.is_ready(), "ROW-4-01");
    scene.end();
}

#[test]
fn row_4_02_a_broken_body_is_an_error() {
    let scene = answered("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    let text = "Readiness probe errored and resulted in failure state: unexpected EOF";
    scene.tells("Warning", "Unhealthy", text);
    assert!(!scene.is_ready(), "ROW-4-02");
    scene.end();
}

#[test]
fn row_4_03_2xx_is_a_success() {
    let scene = answered("HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n");
    scene.gets_ready();
    // ROW-4-03
    scene.is_silent_about_probes();
    scene.end();
}

#[test]
fn row_4_04_3xx_is_a_warning() {
    let scene = answered("HTTP/1.1 304 Same\r\n\r\n");
    let text = "Readiness probe warning: Probe terminated redirects, Response body: ";
    scene.tells("Warning", "ProbeWarning", text);
    // ROW-4-04: it counts as a success.
    scene.gets_ready();
    scene.end();
}

#[test]
fn row_4_05_any_other_status_is_a_failure() {
    let scene = answered("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbody");
    scene.tells("Warning", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503");
    assert!(!scene.is_ready(), "ROW-4-05");
    scene.end();
}

fn command(command: &[&str]) -> Scene {
    Scene::probing(World::new(), json!({"exec": {"command": command}}))
}

#[test]
fn row_6_01_exit_0_is_a_success() {
    let scene = command(&["echo", "ROW-6-01"]);
    scene.gets_ready();
    scene.is_silent_about_probes();
    scene.end();
}

#[test]
fn row_6_02_another_exit_is_a_failure() {
    // ROW-6-02: what it wrote to standard output comes first.
    let scene = command(&["sh", "-c", "echo err >&2; echo out; exit 3"]);
    scene.tells("Warning", "Unhealthy", "Readiness probe failed: out\nerr\n");
    assert!(!scene.is_ready());
    scene.end();
}

#[test]
fn row_6_03_a_timeout_is_a_failure() {
    let scene = command(&["sh", "-c", "sleep 10"]);
    let text = "Readiness probe failed: command timed out: \"sh -c sleep 10\" timed out after 1s";
    scene.tells("Warning", "Unhealthy", text);
    assert!(!scene.is_ready(), "ROW-6-03");
    scene.end();
}

#[test]
fn row_6_04_what_cannot_be_run_is_an_error() {
    let scene = command(&["no-such-program"]);
    let text = "Readiness probe errored and resulted in unknown state: failed to exec in container: exec: \
                \"no-such-program\": executable file not found in $PATH";
    scene.tells("Warning", "Unhealthy", text);
    assert!(!scene.is_ready(), "ROW-6-04");
    scene.end();
}

/// The annotation `errored-runs` on the same probe: what ROW-6-04 never counts restarts the container.
#[test]
fn errored_runs_may_count() {
    let world = World::new();
    let probe = json!({"exec": {"command": ["no-such-program"]}, "periodSeconds": 1, "failureThreshold": 2});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"c.defib.dev/liveness.errored-runs": "Failure"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "command": ["sleep", "100000"], "livenessProbe": probe}],
        },
    });
    let file = world.write("pod.yaml", &pod.to_string());
    let agent = world.run(&[&file], &[]);
    let scene = Scene { world, agent };
    let text = "Liveness probe failed: failed to exec in container: exec: \"no-such-program\": executable file not \
                found in $PATH";
    scene.tells("Warning", "Unhealthy", text);
    scene.tells("Normal", "Killing", "Container c failed liveness probe, will be restarted");
    eventually("a restart", AFTER_A_WHILE, || {
        scene.world.container_status("p", "c")["restartCount"].as_u64().filter(|count| *count > 0)
    });
    scene.end();
}

fn failing(kind: &str) -> Value {
    json!({kind: {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}})
}

#[test]
fn row_17_01_a_failed_run() {
    for (kind, word) in
        [("livenessProbe", "Liveness"), ("readinessProbe", "Readiness"), ("startupProbe", "Startup")]
    {
        let scene = Scene::new(failing(kind));
        scene.tells("Warning", "Unhealthy", &format!("{word} probe failed: "));
        scene.end();
    }
    // ROW-17-01
}

#[test]
fn row_17_02_an_errored_run() {
    for (kind, word) in [("livenessProbe", "Liveness"), ("startupProbe", "Startup")] {
        let scene = Scene::new(json!({kind: {"exec": {"command": ["no-such-program"]}, "periodSeconds": 1}}));
        let text = format!(
            "{word} probe errored and resulted in unknown state: failed to exec in container: exec: \
             \"no-such-program\": executable file not found in $PATH"
        );
        scene.tells("Warning", "Unhealthy", &text);
        assert_eq!(scene.world.container_status("p", "c")["restartCount"], 0, "ROW-17-02");
        scene.end();
    }
}

#[test]
fn row_17_03_a_warning() {
    let world = World::new();
    serve(&world, "HTTP/1.1 302 Found\r\nLocation: http://0.0.0.0/\r\nContent-Length: 4\r\n\r\nbody");
    let probe = json!({"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1});
    let scene = Scene::of(world, "containers", json!({"livenessProbe": probe}));
    let text = "Liveness probe warning: Probe terminated redirects, Response body: body";
    scene.tells("Warning", "ProbeWarning", text);
    assert_eq!(scene.world.container_status("p", "c")["restartCount"], 0, "ROW-17-03");
    scene.end();
}

#[test]
fn row_17_04_why_a_container_is_stopped() {
    let scene = Scene::new(failing("livenessProbe"));
    scene.tells("Normal", "Killing", "Container c failed liveness probe, will be restarted");
    scene.end();

    let scene = Scene::new(failing("startupProbe"));
    scene.tells("Normal", "Killing", "Container c failed startup probe, will be restarted");
    scene.end();

    let mut sidecar = failing("livenessProbe");
    sidecar["restartPolicy"] = json!("Always");
    let scene = Scene::of(World::new(), "initContainers", sidecar);
    scene.tells("Normal", "Killing", "Init container c failed liveness probe");
    scene.end();

    let scene = Scene::new(json!({}));
    scene.tells("Normal", "Started", "Started container c");
    let done = scene.world.defib(&["delete", "pod", "p"]);
    assert_eq!(done.code, 0, "ROW-17-04: {}", done.stderr);
    eventually("ROW-17-04", AFTER_A_WHILE, || {
        let lines = scene.agent.events().all();
        lines.iter().any(|line| line.contains("Stopping container c")).then_some(())
    });
}

#[test]
fn row_17_05_a_refused_start() {
    let scene = Scene::new(json!({"command": ["false"]}));
    scene.tells("Warning", "BackOff", "Back-off restarting failed container c in pod {pod}");
    // ROW-17-05
    scene.end();
}

#[test]
fn row_17_09_and_10_created_and_started() {
    let scene = Scene::new(json!({}));
    // ROW-17-09, ROW-17-10
    scene.tells("Normal", "Created", "Created container c");
    scene.tells("Normal", "Started", "Started container c");
    scene.end();
}

#[test]
fn row_17_11_a_start_that_fails() {
    let scene = Scene::new(json!({"command": ["./no-such-program"]}));
    let reason = "ROW-17-11";
    eventually(reason, AFTER_A_WHILE, || {
        let events = scene.world.get_json("events");
        let is_it = |event: &&Value| {
            event["type"] == "Warning"
                && event["reason"] == "Failed"
                && event["message"].as_str().is_some_and(|message| message.starts_with("Error: "))
        };
        events["items"].as_array().into_iter().flatten().find(is_it).map(|_| ())
    });
    scene.end();
}

#[test]
fn row_17_13_hooks_that_fail() {
    let hook = json!({"exec": {"command": ["false"]}});
    let scene = Scene::new(json!({"lifecycle": {"postStart": hook}}));
    // ROW-17-13
    scene.tells("Warning", "FailedPostStartHook", "PostStartHook failed");
    scene.tells("Normal", "Killing", "FailedPostStartHook");
    scene.end();

    let mut stopped = failing("livenessProbe");
    stopped["lifecycle"] = json!({"preStop": hook});
    let scene = Scene::new(stopped);
    scene.tells("Warning", "FailedPreStopHook", "PreStopHook failed");
    scene.end();
}
