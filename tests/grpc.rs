//! Group GRPC: gRPC probes against real servers, from the manifest to the event and the restart.

#[path = "grpc/ill.rs"]
mod ill;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ill::{SETTINGS, read_to_its_end, serve_ill};
use test_support::{AFTER_A_WHILE, Done, Freezer, SOON, World, eventually, pass, procs};
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::HealthReporter;

/// Where the servers of a world listen; nobody listens on `CLOSED`.
const HEALTHY: u16 = 5000;
const ODD: u16 = 5001;
const WITHOUT_HEALTH: u16 = 5002;
const MUTE: u16 = 5003;
const HTTP1: u16 = 5004;
const BREAKS: u16 = 5005;
const RESETS: u16 = 5006;
const LEAVES: u16 = 5007;
const HTML: u16 = 5008;
const CODE_77: u16 = 5009;
const BAD_DETAILS: u16 = 5010;
const REFUSES_ONCE: u16 = 5011;
const DRAINS_ONCE: u16 = 5012;
const DRAINS: u16 = 5013;
const NO_TRAILERS: u16 = 5014;
const LONG: u16 = 5015;
const MESH: u16 = 5016;
const WRONG_LENGTH: u16 = 5017;
const CLOSED: u16 = 32;

/// A health service whose answers no reporter gives.
struct Odd;

#[tonic::async_trait]
impl Health for Odd {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let answer = |status| Ok(Response::new(HealthCheckResponse { status }));
        let agent = request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok());
        match request.get_ref().service.as_str() {
            "hangs" => std::future::pending().await,
            // What it does, not what anybody waits for.
            "slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                answer(1)
            }
            "agent" => Err(Status::internal(agent.unwrap_or_default())),
            "unknown" => answer(0),
            "not-known" => answer(3),
            "locked" => Err(Status::permission_denied("who are you?")),
            other => Err(Status::not_found(other)),
        }
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("no watch"))
    }
}

fn listen(world: &World, port: u16) -> TcpListener {
    world.net().inside(|| TcpListener::bind(("127.0.0.1", port))).expect("each world has its own ports")
}

/// Serves until the test ends.
fn serve<F>(make: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = Result<(), tonic::transport::Error>>,
{
    thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio.block_on(async { make().await }).expect("it serves");
    });
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    listener.set_nonblocking(true).expect("a plain socket");
    TcpIncoming::from(tokio::net::TcpListener::from_std(listener).expect("an epoll"))
}

fn serve_odd(listener: TcpListener) {
    serve(|| Server::builder().add_service(HealthServer::new(Odd)).serve_with_incoming(incoming(listener)));
}

/// tonic-health's own server. The name "" is SERVING until somebody says otherwise.
fn serve_healthy(world: &World) -> HealthReporter {
    let listener = listen(world, HEALTHY);
    let (reporter, service) = tonic_health::server::health_reporter();
    serve(|| Server::builder().add_service(service).serve_with_incoming(incoming(listener)));
    reporter
}

fn say(reporter: &HealthReporter, service: &str, status: ServingStatus) {
    let tokio = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    tokio.block_on(reporter.set_service_status(service, status));
}

/// Every kind of server.
fn serve_all(world: &World) -> HealthReporter {
    let reporter = serve_healthy(world);
    say(&reporter, "good", ServingStatus::Serving);
    say(&reporter, "bad", ServingStatus::NotServing);
    serve_odd(listen(world, ODD));
    let without = listen(world, WITHOUT_HEALTH);
    serve(|| {
        let routes = tonic::service::Routes::default();
        Server::builder().add_routes(routes).serve_with_incoming(incoming(without))
    });
    let mute = listen(world, MUTE);
    each_connection(mute, |_, mut stream| read_to_its_end(&mut stream));
    each_connection(listen(world, HTTP1), |_, mut stream| {
        let _ = stream.read(&mut [0; 256]);
        let _ =
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    // An HTTP/2 server that goes away in the middle of the call: SETTINGS, then the end.
    each_connection(listen(world, BREAKS), |_, mut stream| {
        let _ = stream.write_all(&SETTINGS);
        let _ = stream.shutdown(Shutdown::Write);
        read_to_its_end(&mut stream);
    });
    serve_ill(world);
    reporter
}

/// `serve` gets the connection's number, from 0, and the connection.
fn each_connection(listener: TcpListener, serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(number, stream));
        }
    });
}

/// Port, service, timeout in seconds, what comes of it: None is success.
type Case = (&'static str, u16, &'static str, u32, Option<&'static str>);

const CASES: &[Case] = &[
    (
        "GRPC-01, ROW-7-01",
        CLOSED,
        "",
        1,
        Some("timeout: failed to connect service \"127.0.0.1:32\" within 1s: context deadline exceeded"),
    ),
    (
        "GRPC-02",
        HTTP1,
        "",
        1,
        Some("timeout: failed to connect service \"127.0.0.1:5004\" within 1s: context deadline exceeded"),
    ),
    (
        "section 7, a server that accepts and says nothing",
        MUTE,
        "",
        1,
        Some("timeout: failed to connect service \"127.0.0.1:5003\" within 1s: context deadline exceeded"),
    ),
    ("GRPC-03, ROW-7-06", HEALTHY, "bad", 20, Some("service unhealthy (responded with \"NOT_SERVING\")")),
    ("GRPC-04, ROW-7-04", ODD, "hangs", 2, Some("timeout: health rpc did not complete within 2s")),
    ("GRPC-05, ROW-7-07", HEALTHY, "", 20, None),
    ("GRPC-06", HEALTHY, "good", 20, None),
    ("section 7, an answer that takes its time", ODD, "slow", 20, None),
    (
        "GRPC-07, ROW-7-03",
        WITHOUT_HEALTH,
        "",
        20,
        Some("error: this server does not implement the grpc health protocol (grpc.health.v1.Health):"),
    ),
    (
        "ROW-7-05, a service that the server does not know",
        HEALTHY,
        "absent",
        20,
        Some("error: health rpc probe failed: rpc error: code = NotFound desc = service not registered"),
    ),
    (
        "section 7, PermissionDenied",
        ODD,
        "locked",
        20,
        Some("error: health rpc probe failed: rpc error: code = PermissionDenied desc = who are you?"),
    ),
    (
        "section 7, the user agent",
        ODD,
        "agent",
        20,
        Some("error: health rpc probe failed: rpc error: code = Internal desc = kube-probe/1.34"),
    ),
    ("section 7, UNKNOWN", ODD, "unknown", 20, Some("service unhealthy (responded with \"UNKNOWN\")")),
    (
        "section 7, SERVICE_UNKNOWN",
        ODD,
        "not-known",
        20,
        Some("service unhealthy (responded with \"SERVICE_UNKNOWN\")"),
    ),
    (
        "section 7, a connection that breaks",
        BREAKS,
        "",
        20,
        Some(
            "error: health rpc probe failed: rpc error: code = Unavailable desc = error reading from server: EOF",
        ),
    ),
    (
        "section 7, a stream that is reset",
        RESETS,
        "",
        20,
        Some(
            "error: health rpc probe failed: rpc error: code = Internal desc = stream terminated by RST_STREAM with \
             error code: INTERNAL_ERROR",
        ),
    ),
    (
        "section 7, a goodbye and the end",
        LEAVES,
        "",
        20,
        Some(
            "error: health rpc probe failed: rpc error: code = Unavailable desc = closing transport due to: \
             connection error: desc = \"error reading from server: EOF\", received prior goaway: code: NO_ERROR, \
             debug data: \"bye\"",
        ),
    ),
    (
        "section 7, an HTTP/2 server without gRPC",
        HTML,
        "",
        20,
        Some(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unexpected HTTP \
             status code received from server: 404 (Not Found); transport: received unexpected content-type \
             \"text/html\"",
        ),
    ),
    (
        "section 7, a code that gRPC does not have",
        CODE_77,
        "",
        20,
        Some("error: health rpc probe failed: rpc error: code = Code(77) desc = what is it"),
    ),
    (
        "section 7, details that nobody can read",
        BAD_DETAILS,
        "",
        20,
        Some("error: health rpc probe failed: rpc error: code = NotFound desc = no"),
    ),
    (
        "section 7, an answer without its end",
        NO_TRAILERS,
        "",
        20,
        Some(
            "error: health rpc probe failed: rpc error: code = Internal desc = server closed the stream without \
             sending trailers",
        ),
    ),
    (
        "section 7, an answer that only says how long it will be",
        LONG,
        "",
        20,
        Some(
            "error: health rpc probe failed: rpc error: code = ResourceExhausted desc = grpc: received message larger \
             than max (2130706432 vs. 65536)",
        ),
    ),
    ("section 7, an answer with the headers of a mesh", MESH, "", 20, None),
    (
        "docs/conformance.md, a length that the answer has not",
        WRONG_LENGTH,
        "",
        20,
        Some(
            "error: health rpc probe failed: rpc error: code = Unavailable desc = error reading from server: stream \
             error detected: unspecific protocol error detected",
        ),
    ),
    ("section 7, a stream that is refused is tried once more", REFUSES_ONCE, "", 20, None),
    ("section 7, a server that leaves, and its successor", DRAINS_ONCE, "", 20, None),
    (
        "section 7, a server that leaves again and again",
        DRAINS,
        "",
        20,
        Some(
            "error: health rpc probe failed: rpc error: code = Unavailable desc = the connection is draining",
        ),
    ),
];

#[test]
fn one_probe_of_every_server() {
    let world = World::new();
    let _reporter = serve_all(&world);
    for (case, port, service, timeout_s, failure) in CASES {
        let url = format!("grpc://127.0.0.1:{port}/{service}");
        let timeout = format!("{timeout_s}s");
        let probe = || world.defib(&["probe", &url, "--timeout", &timeout]);
        // A busy machine may have kept the prober away: then it says that nobody knows.
        let is_judged = |done: &Done| !done.stdout.contains("inconclusive: ");
        let done = eventually(case, AFTER_A_WHILE, || Some(probe()).filter(is_judged));
        let verdict = done.stdout.lines().last().unwrap_or_default();
        match failure {
            None => {
                assert_eq!((done.code, verdict), (0, "success"), "{case}\n{}{}", done.stdout, done.stderr)
            }
            Some(text) => {
                assert_eq!(done.code, 1, "{case}\n{}{}", done.stdout, done.stderr);
                assert!(verdict.starts_with(&format!("failure: {text}")), "{case}\n{}", done.stdout);
            }
        }
    }
}

#[test]
fn a_connection_that_breaks_early_is_made_again() {
    let world = World::new();
    let listener = listen(&world, ODD);
    thread::spawn(move || {
        drop(listener.accept());
        serve_odd(listener);
    });
    let url = format!("grpc://127.0.0.1:{ODD}/slow");
    let done = world.defib(&["probe", &url, "--timeout", "60s"]);
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("connected"), "{}", done.stdout);
}

/// A container for each server, with a readiness probe that goes there.
fn pod_of_all() -> String {
    let containers = CASES.iter().enumerate().map(|(at, (_, port, service, timeout_s, _))| {
        format!(
            "  - name: c{at}\n    command: [sleep, '100000']\n    readinessProbe: {{periodSeconds: 1, \
             timeoutSeconds: {timeout_s}, grpc: {{port: {port}, service: '{service}'}}}}\n"
        )
    });
    let containers: String = containers.collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: all}}\nspec:\n  terminationGracePeriodSeconds: 2\n  \
         containers:\n{containers}"
    )
}

#[test]
fn every_server_as_a_readiness_probe() {
    let world = World::new();
    let _reporter = serve_all(&world);
    let pod = world.write("pod.yaml", &pod_of_all());
    let valid = world.defib(&["validate", "-f", &pod, "--strict"]);
    assert_eq!((valid.code, valid.stderr.as_str()), (0, ""));
    let mut agent = world.run(&[&pod], &["--strict"]);
    for (at, (case, .., failure)) in CASES.iter().enumerate() {
        match failure {
            None => eventually(case, AFTER_A_WHILE, || {
                (world.container_status("all", &format!("c{at}"))["ready"] == true).then_some(())
            }),
            Some(text) => drop(agent.wait_for(&format!("Readiness probe failed: {text}"), AFTER_A_WHILE)),
        }
    }
    let describe = world.defib(&["describe", "pod", "all"]).stdout;
    for line in [
        "grpc <pod>:5000 bad delay=0s timeout=20s period=1s #success=1 #failure=3",
        "grpc <pod>:32  delay=0s timeout=1s period=1s #success=1 #failure=3",
    ] {
        assert!(describe.contains(line), "{line:?} is not in\n{describe}");
    }
    let bad = CASES.iter().position(|(case, ..)| case.starts_with("GRPC-03")).expect("a case");
    assert_eq!(world.container_status("all", &format!("c{bad}"))["ready"], false);
    // The container's own probe, now.
    let done = world.defib(&["probe", "all", &format!("c{bad}"), "readiness"]);
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    let verdict = "failure: service unhealthy (responded with \"NOT_SERVING\")";
    assert_eq!(done.stdout.lines().last(), Some(verdict), "{}", done.stdout);
    assert_eq!(agent.terminate(), 0, "{}", agent.printed());
    world.assert_nothing_left();
}

const APP: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: app, annotations: {defib.dev/liveness.period-ms: "50"}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: c
    command: [sleep, '100000']
    startupProbe: {grpc: {port: 5000}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}
    livenessProbe: {grpc: {port: 5000, service: app}, timeoutSeconds: 20, failureThreshold: 2}
"#;

#[test]
fn e2e_c_20_a_serving_app_stays_and_one_that_says_not_serving_is_restarted() {
    serves_and_stops("E2E-C-20", APP, "Container c failed liveness probe, will be restarted");
}

#[test]
fn e2e_s_20_the_same_as_a_sidecar() {
    let sidecar = APP
        .replace("  containers:\n  - name: c", "  initContainers:\n  - name: c\n    restartPolicy: Always");
    assert_ne!(sidecar, APP);
    let main = "  containers:\n  - {name: main, command: [sleep, '100000']}\n";
    serves_and_stops("E2E-S-20", &format!("{sidecar}{main}"), "Init container c failed liveness probe");
}

/// Four minutes less the delay of 30 s, every 10 s.
const RUNS_UPSTREAM: u64 = 21;

fn liveness_successes(world: &World) -> u64 {
    let done = world.defib(&["get", "--raw", "/metrics/probes"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let is_wanted = |line: &&str| {
        line.starts_with("prober_probe_total{container=\"c\",namespace=\"default\",pod=\"app\",")
            && line.contains("probe_type=\"Liveness\",result=\"successful\"")
    };
    let found = done.stdout.lines().find(is_wanted).and_then(|line| line.rsplit_once(' '));
    found.map_or(0, |(_, count)| count.parse().expect("a count"))
}

fn serves_and_stops(id: &str, manifest: &str, killing: &str) {
    eprintln!("{id}");
    let world = World::new();
    let reporter = serve_healthy(&world);
    say(&reporter, "app", ServingStatus::Serving);
    let mut agent = world.run(&[&world.write("pod.yaml", manifest)], &[]);
    eventually("it is ready", AFTER_A_WHILE, || {
        (world.container_status("app", "c")["ready"] == true).then_some(())
    });
    eventually("it has run as often as in the four minutes that upstream watches", AFTER_A_WHILE, || {
        (liveness_successes(&world) >= RUNS_UPSTREAM).then_some(())
    });
    let done = world.defib(&["probe", "app", "c"]);
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert_eq!(world.container_status("app", "c")["restartCount"], 0, "{}", agent.printed());
    assert!(!agent.events().all().iter().any(|line| line.contains("probe failed")), "{}", agent.printed());

    say(&reporter, "app", ServingStatus::NotServing);
    let failed = "Liveness probe failed: service unhealthy (responded with \"NOT_SERVING\")";
    agent.wait_for_sequence(&["Started container c", failed, failed, killing], AFTER_A_WHILE);
    say(&reporter, "app", ServingStatus::Serving);
    eventually("it runs again", AFTER_A_WHILE, || {
        let status = world.container_status("app", "c");
        (status["ready"] == true && status["restartCount"].as_u64() > Some(0)).then_some(())
    });
    assert_eq!(agent.terminate(), 0, "{}", agent.printed());
    world.assert_nothing_left();
}

const WAITS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: c
    command: [sleep, '100000']
    readinessProbe: {grpc: {port: 5003}, timeoutSeconds: 100000}
---
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec:
  terminationGracePeriodSeconds: 2
  containers: [{name: c, command: [sleep, '100000']}]
"#;

#[test]
fn a_pod_that_goes_takes_its_calls_along() {
    let world = World::new();
    let listener = listen(&world, MUTE);
    let mut agent = world.run(&[&world.write("pods.yaml", WAITS)], &[]);
    let call = accept(&listener);
    let done = world.defib(&["delete", "pod", "waits"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_ends(call);
    // The agent lives on, so it is the call that has ended.
    assert_eq!(world.container_status("stays", "c")["ready"], true, "{}", agent.printed());
    assert_eq!(agent.terminate(), 0, "{}", agent.printed());
    world.assert_nothing_left();
}

#[test]
fn a_probe_by_hand_ends_when_its_asker_goes_away() {
    let world = World::new();
    let listener = listen(&world, MUTE);
    let mut agent = world.run(&[&world.write("pods.yaml", WAITS)], &[]);
    let _scheduled = accept(&listener);
    let mut asker = world.start(&["probe", "waits", "c", "readiness"]);
    let by_hand = accept(&listener);
    asker.kill_hard();
    assert_ends(by_hand);
    assert_eq!(agent.terminate(), 0, "{}", agent.printed());
    world.assert_nothing_left();
}

/// The next call. Its server says its first frame and nothing more, so that nothing but a cut ends the call.
fn accept(listener: &TcpListener) -> TcpStream {
    let (mut call, _) = listener.accept().expect("the probe comes");
    call.write_all(&SETTINGS).expect("somebody listens");
    call
}

/// The peer has ended the connection, or does so soon.
fn assert_ends(mut call: TcpStream) {
    call.set_read_timeout(Some(SOON)).expect("a plain socket");
    loop {
        match call.read(&mut [0; 256]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the call is not cut");
                return;
            }
        }
    }
}

#[test]
fn a_prober_that_was_away_judges_no_silence() {
    let world = World::new();
    let listener = listen(&world, MUTE);
    let mut probe = world.start(&["probe", &format!("grpc://127.0.0.1:{MUTE}"), "--timeout", "3s"]);
    let (_call, _) = listener.accept().expect("the probe comes");
    let freezer = Freezer::around(probe.pid());
    freezer.freeze();
    pass(Duration::from_secs(4));
    freezer.thaw();
    assert_eq!(probe.wait(), 1, "{}", probe.printed());
    let text = "inconclusive: timeout: failed to connect service \"127.0.0.1:5003\" within 3s: context deadline \
                exceeded; not judged: the prober itself did not run for ";
    assert!(probe.events().all().iter().any(|line| line.starts_with(text)), "{}", probe.printed());
}

const ILL: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: ill
  annotations: {defib.dev/readiness.period-ms: "20", defib.dev/readiness.timeout-ms: "20"}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - {name: a, command: [sleep, '100000'], readinessProbe: {grpc: {port: 5001, service: hangs}}}
  - {name: b, command: [sleep, '100000'], readinessProbe: {grpc: {port: 5003}}}
  - {name: c, command: [sleep, '100000'], readinessProbe: {grpc: {port: 5005}}}
"#;

#[test]
fn ill_servers_leave_no_descriptors_behind() {
    let world = World::new();
    let _reporter = serve_all(&world);
    let mut agent = world.run(&[&world.write("pod.yaml", ILL)], &[]);
    let after = |runs: usize| {
        let mut from = 0;
        for _ in 0..runs {
            from = agent.wait_from(from, "Readiness probe failed: ", AFTER_A_WHILE).0 + 1;
        }
        procs::open_descriptors(agent.pid())
    };
    let (few, many) = (after(30), after(600));
    // In flight at a moment: one call for each container, and the connections of a few that have just ended.
    assert!(many < few + 30, "{few} descriptors after 30 runs, {many} after 600");
    assert_eq!(agent.terminate(), 0, "{}", agent.printed());
    world.assert_nothing_left();
}
