//! The E2E-C cases of the conformance table, and the E2E-S cases, which are the same on a sidecar: probes of real containers
//! under the built binary.

#[path = "container_probes/scene.rs"]
mod scene;

use std::time::Duration;

use serde_json::{Value, json};
use test_support::eventually;
use test_support::pace::{is_real_time, patience, seconds};

use scene::Kind::{Regular, Sidecar};
use scene::{Kind, Scene, app, exec, get, probed, sh};

/// Seconds of upstream; each becomes what the pace makes of it.
const LONG_DELAY_S: u64 = 30;
const DELAY_S: u64 = 15;
const MIDDLE_DELAY_S: u64 = 10;
const SHORT_DELAY_S: u64 = 5;

fn readiness_after_its_delay(id: &str, kind: Kind) {
    let delay_s = seconds(LONG_DELAY_S);
    let probe = get("/", json!({"initialDelaySeconds": delay_s}));
    let mut scene = Scene::new(kind, probed(app(), "readinessProbe", probe), &[]);
    scene.gets_ready(id);
    let started = scene.status()["state"]["running"]["startedAt"].clone();
    let ready = scene.condition("ContainersReady")["lastTransitionTime"].clone();
    // Sidecars count for the condition too.
    let between = since_1970_s(&ready) - since_1970_s(&started);
    assert!(between >= delay_s, "{id}: ready {between} s after the start");
    assert_eq!(scene.status()["restartCount"], 0, "{id}");
    scene.end(id);
}

fn readiness_of_a_closed_port(id: &str, kind: Kind) {
    let probe = json!({"httpGet": {"path": "/", "port": 81}});
    Scene::new(kind, probed(app(), "readinessProbe", probe), &[]).never_gets_ready(id);
}

fn health_file(fields: Value) -> Value {
    exec(&["sh", "-c", "cat $DIR/health"], fields)
}

fn exec_liveness_of_a_file_that_goes(id: &str, kind: Kind) {
    let well_s = seconds(10);
    let script = format!("echo ok >$DIR/health; sleep {well_s}; rm -f $DIR/health; sleep 600");
    let probe = health_file(
        json!({"initialDelaySeconds": seconds(DELAY_S), "timeoutSeconds": 5, "failureThreshold": 1}),
    );
    Scene::new(kind, probed(sh(&script), "livenessProbe", probe), &[]).restarts_to(id, 1);
}

fn exec_liveness_of_a_file_that_stays(id: &str, kind: Kind) {
    let probe = health_file(
        json!({"initialDelaySeconds": seconds(DELAY_S), "timeoutSeconds": 5, "failureThreshold": 1}),
    );
    let container = sh("echo ok >$DIR/health; exec sleep 600");
    Scene::new(kind, probed(container, "livenessProbe", probe), &[]).keeps_running(id);
}

fn http_liveness_that_turns_bad(id: &str, kind: Kind) {
    let probe = get(
        "/healthz",
        json!({"initialDelaySeconds": seconds(DELAY_S), "timeoutSeconds": 5, "failureThreshold": 1}),
    );
    Scene::new(kind, probed(app(), "livenessProbe", probe), &[]).restarts_to(id, 1);
}

fn tcp_liveness_beside_http_errors(id: &str, kind: Kind) {
    let probe =
        json!({"tcpSocket": {"port": 8080}, "initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1});
    Scene::new(kind, probed(app(), "livenessProbe", probe), &[]).keeps_running(id);
}

fn five_restarts(id: &str, kind: Kind) {
    let probe = get(
        "/healthz",
        json!({"initialDelaySeconds": seconds(SHORT_DELAY_S), "timeoutSeconds": 5, "failureThreshold": 1}),
    );
    let container = probed(app(), "livenessProbe", probe);
    // Waits of 1, 2, 4 and 8 s: a tenth of the standard ones.
    let shrunk: &[&str] = if is_real_time() { &[] } else { &["--reduced-restart-backoff"] };
    Scene::new(kind, container, shrunk).restarts_to(id, 5);
}

fn http_liveness_that_stays_well(id: &str, kind: Kind) {
    let probe = get(
        "/",
        json!({"initialDelaySeconds": seconds(DELAY_S), "timeoutSeconds": 5, "failureThreshold": 5}),
    );
    Scene::new(kind, probed(app(), "livenessProbe", probe), &[]).keeps_running(id);
}

fn exec_liveness_beyond_its_timeout(id: &str, kind: Kind) {
    let probe = exec(
        &["sh", "-c", "sleep 10"],
        json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1}),
    );
    Scene::new(kind, probed(sh("exec sleep 600"), "livenessProbe", probe), &[]).restarts_to(id, 1);
}

fn exec_readiness_beyond_its_timeout(id: &str, kind: Kind) {
    let probe = exec(
        &["sh", "-c", "sleep 10"],
        json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1}),
    );
    Scene::new(kind, probed(sh("exec sleep 600"), "readinessProbe", probe), &[]).never_gets_ready(id);
}

fn exec_liveness_whose_child_holds_the_pipes(id: &str, kind: Kind) {
    let probe = exec(
        &["sh", "-c", "sleep 10 & exit 1"],
        json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1}),
    );
    Scene::new(kind, probed(sh("exec sleep 600"), "livenessProbe", probe), &[]).restarts_to(id, 1);
}

fn redirect_on_the_same_host(id: &str, kind: Kind) {
    let probe = get(
        "/redirect?loc=%2Fhealthz",
        json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1}),
    );
    Scene::new(kind, probed(app(), "livenessProbe", probe), &[]).restarts_to(id, 1);
}

fn redirect_to_another_host(id: &str, kind: Kind) {
    let path = "/redirect?loc=http%3A%2F%2F0.0.0.0%2F";
    let probe = get(path, json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1}));
    let scene = Scene::new(kind, probed(app(), "livenessProbe", probe), &[]);
    let text = "Probe terminated redirects, Response body: <a href=\"http://0.0.0.0/\">Found</a>.";
    eventually(&format!("{id}: a warning"), patience(), || {
        let is_it = |line: &String| line.contains("ProbeWarning") && line.contains(text);
        scene.events().iter().any(is_it).then_some(())
    });
    scene.keeps_running(id);
}

fn startup_that_fails(id: &str, kind: Kind) {
    let startup =
        exec(&["/bin/false"], json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 3}));
    let liveness =
        exec(&["/bin/true"], json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1}));
    let container = probed(probed(sh("exec sleep 600"), "startupProbe", startup), "livenessProbe", liveness);
    Scene::new(kind, container, &[]).restarts_to(id, 1);
}

fn liveness_waits_for_startup(id: &str, kind: Kind) {
    let startup =
        exec(&["/bin/false"], json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 60}));
    let liveness =
        exec(&["/bin/false"], json!({"initialDelaySeconds": seconds(DELAY_S), "failureThreshold": 1}));
    let container = probed(probed(sh("exec sleep 600"), "startupProbe", startup), "livenessProbe", liveness);
    Scene::new(kind, container, &[]).keeps_running(id);
}

fn ready_soon_after_started(id: &str, kind: Kind) {
    let starts_s = seconds(32);
    let script = format!("echo ok >$DIR/health; sleep {starts_s}; echo ok >$DIR/startup; sleep 600");
    // In full length: readiness that waited for its own period would come 26 s after the start.
    let readiness = health_file(json!({"periodSeconds": 30}));
    let startup = exec(
        &["sh", "-c", "cat $DIR/startup"],
        json!({"periodSeconds": seconds(5), "failureThreshold": 120}),
    );
    let container = probed(probed(sh(&script), "readinessProbe", readiness), "startupProbe", startup);
    let mut scene = Scene::new(kind, container, &[]);
    eventually(&format!("{id}: it has started"), patience(), || {
        let status = scene.status();
        assert!(status["ready"] != true || status["started"] == true, "{id}: {status}");
        (status["started"] == true).then_some(())
    });
    eventually(&format!("{id}: it is ready"), Duration::from_secs(20), || scene.is_ready().then_some(()));
    scene.end(id);
}

fn grace_period_of_the_probe(id: &str, kind: Kind) {
    let probe = json!({
        "httpGet": {"path": "/healthz", "port": 8080}, "initialDelaySeconds": seconds(MIDDLE_DELAY_S),
        "failureThreshold": 1, "terminationGracePeriodSeconds": 5,
    });
    // The whole group ignores the signal. With the pod's grace period it would be seen alive for 500 s.
    let container = probed(sh("trap '' TERM; sleep 1000"), "livenessProbe", probe);
    Scene::in_pod(kind, container, 500, &[]).restarts_and_is_killed(id);
}

/// Takes its files away when it is asked to end, and takes its time.
fn reluctant() -> Value {
    let takes_s = if is_real_time() { 20 } else { 4 };
    sh(&format!(
        "touch $DIR/ready $DIR/liveness; trap 'rm -f $DIR/ready $DIR/liveness; sleep {takes_s}; exit 0' TERM; \
         while :; do sleep 0.1; done"
    ))
}

/// A period of these seconds, which is shorter than what [`reluctant`] takes to end.
fn often(period_s: u64) -> Value {
    json!({
        "initialDelaySeconds": seconds(SHORT_DELAY_S), "periodSeconds": seconds(period_s), "failureThreshold": 1,
    })
}

fn readiness_while_the_pod_ends(id: &str, kind: Kind) {
    let probe = exec(&["sh", "-c", "cat $DIR/ready"], often(2));
    let scene = Scene::in_pod(kind, probed(reluctant(), "readinessProbe", probe), 30, &[]);
    ends_unready(id, scene);
}

fn no_liveness_while_the_pod_ends(id: &str, kind: Kind) {
    let readiness = exec(&["sh", "-c", "cat $DIR/ready"], often(2));
    let liveness = exec(&["sh", "-c", "cat $DIR/liveness"], often(1));
    let container = probed(probed(reluctant(), "readinessProbe", readiness), "livenessProbe", liveness);
    let events = ends_unready(id, Scene::in_pod(kind, container, 30, &[]));
    let is_of_liveness =
        |line: &&String| line.contains("failed liveness probe") || line.contains("Liveness probe");
    assert_eq!(events.iter().find(is_of_liveness), None, "{id}");
}

/// Deletes the pod once it is ready, and sees it unready before it is gone. Returns all events.
fn ends_unready(id: &str, mut scene: Scene) -> Vec<String> {
    scene.gets_ready(id);
    let done = scene.world().defib(&["delete", "pod", "p", "--wait=false"]);
    assert_eq!(done.code, 0, "{id}: {}", done.stderr);
    eventually(&format!("{id}: it is unready"), patience(), || (!scene.is_ready()).then_some(()));
    scene.ends_by_itself(id);
    scene.events()
}

/// Watched for so long at true speed.
const CRASHES_FOR_S: u64 = 300;

fn keeps_crashing(id: &str, args: &[&str], restarts: std::ops::RangeInclusive<u64>) {
    let mut scene = Scene::new(Regular, sh("exit 1"), args);
    scene.watch(Duration::from_secs(seconds(CRASHES_FOR_S)), |_| ());
    let count = scene.status()["restartCount"].as_u64().unwrap_or_default();
    assert!(restarts.contains(&count), "{id}: {count} restarts");
    scene.end(id);
}

#[test]
fn e2e_r_10() {
    // Waits of 0, 1, 2, 3, 3, … s: a tenth of those at true speed.
    let shrunk: &[&str] = &["--reduced-restart-backoff", "--max-container-restart-period", "3s"];
    let args = if is_real_time() { &["--max-container-restart-period", "30s"] } else { shrunk };
    keeps_crashing("E2E-R-10", args, 3..=13);
}

#[test]
fn e2e_r_11() {
    // Waits of 0, 1, 2, 4, 8, 16 s, and at true speed further ones of 32 and 60 s.
    let restarts = if is_real_time() { 3..=13 } else { 3..=7 };
    keeps_crashing("E2E-R-11", &["--reduced-restart-backoff"], restarts);
}

/// Seconds since 1970 of a time as the API writes it.
fn since_1970_s(time: &Value) -> u64 {
    let time: jiff::Timestamp = time.as_str().and_then(|text| text.parse().ok()).expect("a time");
    u64::try_from(time.as_second()).expect("a time after 1970")
}

#[test]
fn e2e_c_01() {
    readiness_after_its_delay("E2E-C-01", Regular);
}

#[test]
fn e2e_c_02() {
    readiness_of_a_closed_port("E2E-C-02", Regular);
}

#[test]
fn e2e_c_03() {
    exec_liveness_of_a_file_that_goes("E2E-C-03", Regular);
}

#[test]
fn e2e_c_04() {
    exec_liveness_of_a_file_that_stays("E2E-C-04", Regular);
}

#[test]
fn e2e_c_05() {
    http_liveness_that_turns_bad("E2E-C-05", Regular);
}

#[test]
fn e2e_c_06() {
    tcp_liveness_beside_http_errors("E2E-C-06", Regular);
}

#[test]
fn e2e_c_07() {
    five_restarts("E2E-C-07", Regular);
}

#[test]
fn e2e_c_08() {
    http_liveness_that_stays_well("E2E-C-08", Regular);
}

#[test]
fn e2e_c_09() {
    exec_liveness_beyond_its_timeout("E2E-C-09", Regular);
}

#[test]
fn e2e_c_10() {
    exec_readiness_beyond_its_timeout("E2E-C-10", Regular);
}

#[test]
fn e2e_c_11() {
    exec_liveness_whose_child_holds_the_pipes("E2E-C-11", Regular);
}

#[test]
fn e2e_c_12() {
    redirect_on_the_same_host("E2E-C-12", Regular);
}

#[test]
fn e2e_c_13() {
    redirect_to_another_host("E2E-C-13", Regular);
}

#[test]
fn e2e_c_14() {
    startup_that_fails("E2E-C-14", Regular);
}

#[test]
fn e2e_c_15() {
    liveness_waits_for_startup("E2E-C-15", Regular);
}

#[test]
fn e2e_c_17() {
    ready_soon_after_started("E2E-C-17", Regular);
}

#[test]
fn e2e_c_18() {
    grace_period_of_the_probe("E2E-C-18", Regular);
}

#[test]
fn e2e_c_22() {
    readiness_while_the_pod_ends("E2E-C-22", Regular);
}

#[test]
fn e2e_c_23() {
    no_liveness_while_the_pod_ends("E2E-C-23", Regular);
}

#[test]
fn e2e_s_01() {
    readiness_after_its_delay("E2E-S-01", Sidecar);
}

#[test]
fn e2e_s_02() {
    readiness_of_a_closed_port("E2E-S-02", Sidecar);
}

#[test]
fn e2e_s_03() {
    exec_liveness_of_a_file_that_goes("E2E-S-03", Sidecar);
}

#[test]
fn e2e_s_04() {
    exec_liveness_of_a_file_that_stays("E2E-S-04", Sidecar);
}

#[test]
fn e2e_s_05() {
    http_liveness_that_turns_bad("E2E-S-05", Sidecar);
}

#[test]
fn e2e_s_07() {
    five_restarts("E2E-S-07", Sidecar);
}

#[test]
fn e2e_s_08() {
    http_liveness_that_stays_well("E2E-S-08", Sidecar);
}

#[test]
fn e2e_s_09() {
    exec_liveness_beyond_its_timeout("E2E-S-09", Sidecar);
}

#[test]
fn e2e_s_10() {
    exec_readiness_beyond_its_timeout("E2E-S-10", Sidecar);
}

#[test]
fn e2e_s_11() {
    exec_liveness_whose_child_holds_the_pipes("E2E-S-11", Sidecar);
}

#[test]
fn e2e_s_12() {
    redirect_on_the_same_host("E2E-S-12", Sidecar);
}

#[test]
fn e2e_s_13() {
    redirect_to_another_host("E2E-S-13", Sidecar);
}

#[test]
fn e2e_s_14() {
    startup_that_fails("E2E-S-14", Sidecar);
}

#[test]
fn e2e_s_15() {
    liveness_waits_for_startup("E2E-S-15", Sidecar);
}

#[test]
fn e2e_s_17() {
    ready_soon_after_started("E2E-S-17", Sidecar);
}

#[test]
fn e2e_s_22() {
    readiness_while_the_pod_ends("E2E-S-22", Sidecar);
}

#[test]
fn e2e_s_23() {
    no_liveness_while_the_pod_ends("E2E-S-23", Sidecar);
}
