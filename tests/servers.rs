//! Real servers, each probed a hundred times a second by the whole agent, say nothing about it: no error, no reset.
//!
//! Requests are in the `access.log` of a server; what it has to say about clients is its container's log, which shall
//! stay empty. What each server counts as worth a word is in tests/servers, with the server.

use std::fs;

use test_support::{AFTER_A_WHILE, Agent, SOON, World, eventually, fixtures};

/// Requests of the liveness probe: ten seconds of them.
const REQUESTS: usize = 1_000;
const ENVOY_ADMIN: u16 = 9901;
const POD: &str = "probed";
const PERIOD: &str = r#"defib.dev/liveness.period-ms: "10""#;
const HTTP: &str = "httpGet: {host: 127.0.0.1, port: 8080, path: /live}";
const HTTPS: &str = "httpGet: {host: 127.0.0.1, port: 8443, scheme: HTTPS, path: /live}";
const TCP: &str = "tcpSocket: {host: 127.0.0.1, port: 8080}";

/// A server and how it is started.
struct Server {
    /// Of tests/servers; they are put where it runs.
    files: &'static [&'static str],
    command: Vec<String>,
}

fn nginx() -> Server {
    let nginx = fixtures::nginx();
    // The first message of a start, before the configuration is read, goes to a file that may not be ours.
    server(&["nginx.conf"], &[&nginx.to_string_lossy(), "-p", ".", "-c", "nginx.conf", "-e", "stderr"])
}

fn go() -> Server {
    server(&[], &[&fixtures::go_server().to_string_lossy()])
}

fn node() -> Server {
    fixtures::require_node();
    server(&["node.js"], &["node", "node.js"])
}

fn python() -> Server {
    server(&["python.py"], &["python3", "python.py"])
}

fn envoy() -> Server {
    let envoy = fixtures::envoy_bin_dir().join("envoy");
    let options =
        ["-c", "envoy.yaml", "--log-level", "warning", "--concurrency", "1", "--disable-hot-restart"];
    server(&["envoy.yaml"], &[&[&*envoy.to_string_lossy()], &options[..]].concat())
}

fn server(files: &'static [&'static str], command: &[&str]) -> Server {
    Server { files, command: command.iter().map(|&word| word.to_owned()).collect() }
}

/// Runs the server with this liveness probe, in a pod with these annotations besides the period.
fn run(server: &Server, probe: &str, annotation: &str) -> (World, Agent) {
    let world = World::new();
    for file in server.files {
        world.copy(&format!("tests/servers/{file}"));
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    world.write("cert.pem", &certificate.pem());
    world.write("key.pem", &key.serialize_pem());
    let command = serde_json::to_string(&server.command).expect("words");
    let pod = world.write(
        "pod.yaml",
        &format!(
            "
apiVersion: v1
kind: Pod
metadata:
  name: {POD}
  annotations:
    {PERIOD}
    {annotation}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: server
    workingDir: .
    command: {command}
    startupProbe: {{httpGet: {{host: 127.0.0.1, port: 8080, path: /startup}}, periodSeconds: 1, failureThreshold: 60}}
    livenessProbe: {{{probe}, timeoutSeconds: 20}}
"
        ),
    );
    let agent = world.run(&[&pod], &["--strict"]);
    agent.wait_for("Started container server", SOON);
    (world, agent)
}

/// Waits for so many lines with `text` in the file.
fn wait_for_lines(world: &World, agent: &Agent, file: &str, text: &str, lines: usize) {
    let path = world.dir().join(file);
    let seen =
        || fs::read_to_string(&path).unwrap_or_default().lines().filter(|line| line.contains(text)).count();
    eventually(&format!("{lines} × {text:?} in {file}\n{}", agent.printed()), AFTER_A_WHILE, || {
        (seen() >= lines).then_some(())
    });
}

/// What the server has to say.
fn told(world: &World) -> String {
    let done = world.defib(&["logs", POD]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    // nginx tells of its start at this level, and of nothing else.
    let lines = done.stdout.lines().filter(|line| !line.contains(" [notice] "));
    lines.collect::<Vec<_>>().join("\n")
}

fn end(world: &World, agent: &mut Agent) {
    assert_eq!(agent.events().count("Liveness probe"), 0, "{}", agent.printed());
    assert_eq!(world.container_status(POD, "server")["restartCount"], 0);
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

/// Every probe succeeds, and the server has nothing to say about any of them.
#[track_caller]
fn check(server: &Server, probe: &str) {
    let (world, mut agent) = run(server, probe, "");
    wait_for_lines(&world, &agent, "access.log", "/live", REQUESTS);
    assert_eq!(told(&world), "");
    end(&world, &mut agent);
}

#[test]
fn nginx_logs_no_error() {
    check(&nginx(), HTTP);
}

#[test]
fn nginx_with_tls_logs_no_error() {
    check(&nginx(), HTTPS);
}

#[test]
fn go_logs_no_error() {
    check(&go(), HTTP);
}

#[test]
fn go_with_tls_logs_no_error() {
    check(&go(), HTTPS);
}

#[test]
fn node_logs_no_error() {
    check(&node(), HTTP);
}

#[test]
fn node_with_tls_logs_no_error() {
    check(&node(), HTTPS);
}

#[test]
fn python_logs_no_error() {
    check(&python(), HTTP);
}

#[test]
fn envoy_logs_no_error() {
    let (world, mut agent) = run(&envoy(), HTTP, "");
    wait_for_lines(&world, &agent, "access.log", "/live 200 flags=-", REQUESTS);
    assert_eq!(told(&world), "");
    // It counts more than it logs.
    let errors = "/stats?usedonly&filter=(error|reset|active_rq|overflow)";
    let counted = world.http("GET", ENVOY_ADMIN, errors).expect("Envoy answers").body;
    assert_eq!(counted, "");
    end(&world, &mut agent);
}

/// Envoy waits a second for a client to close first, unless the client wants no end (docs/engine.md).
#[test]
fn envoy_may_keep_the_connection() {
    let (world, mut agent) = run(&envoy(), HTTP, r#"defib.dev/liveness.keep-alive: "true""#);
    wait_for_lines(&world, &agent, "access.log", "/live 200 flags=-", REQUESTS);
    assert_eq!(told(&world), "");
    let connections = "/stats?filter=^http.probed.downstream_cx_destroy$";
    let ended = world.http("GET", ENVOY_ADMIN, connections).expect("Envoy answers").body;
    // That of the startup probe.
    assert_eq!(ended.trim(), "http.probed.downstream_cx_destroy: 1");
    end(&world, &mut agent);
}

/// What each of them says of a connection that ends before anything was sent. (So the silence above means something.)
#[test]
fn a_bare_tcp_probe_is_a_reset() {
    let servers = [
        (nginx(), "[info]", "recv() failed (104: Connection reset by peer) while waiting for request"),
        (go(), "read:", "connection reset by peer"),
        (node(), "clientError:", "ECONNRESET"),
        (python(), "ConnectionResetError:", "Connection reset by peer"),
    ];
    for (server, place, text) in servers {
        let (world, mut agent) = run(&server, TCP, "");
        eventually(text, AFTER_A_WHILE, || {
            told(&world).lines().any(|line| line.contains(place) && line.contains(text)).then_some(())
        });
        end(&world, &mut agent);
    }
}

#[test]
fn a_bare_tcp_probe_ends_in_order_by_annotation() {
    let graceful = "defib.dev/liveness.tcp-close: Graceful";
    let (world, mut agent) = run(&go(), TCP, graceful);
    wait_for_lines(&world, &agent, "connections.log", "127.0.0.1", REQUESTS);
    assert_eq!(told(&world), "");
    end(&world, &mut agent);

    // It has a word for this, too.
    let (world, mut agent) = run(&nginx(), TCP, graceful);
    let closed = |line: &&str| line.contains("client closed connection while waiting for request");
    eventually("orderly ends", AFTER_A_WHILE, || {
        (told(&world).lines().filter(closed).count() >= 100).then_some(())
    });
    let told = told(&world);
    assert!(told.lines().all(|line| closed(&line)), "{told}");
    end(&world, &mut agent);
}
