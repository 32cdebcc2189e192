//! What annotations of probes do, and what is said of wrong ones.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::model::id::PodUid;
use crate::model::limits::PROBE_PERIOD_MIN_DEFAULT;
use crate::model::pod::PodSpec;
use crate::model::probe::{ErroredRuns, Handler, HttpGetAction, ProbeKind, TcpClose, TcpSocketAction};
use crate::spec::{JsonContext, LoadOptions, pod_from_json};

/// A pod with these annotations; container `web` has an HTTPS liveness and an HTTP readiness probe, `db` a TCP liveness
/// and an exec startup probe.
fn load(annotations: &Value, folder: &Path) -> Result<PodSpec, Vec<String>> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "annotations": annotations},
        "spec": {"containers": [
            {"name": "web", "command": ["x"],
             "livenessProbe": {"httpGet": {"port": 443, "scheme": "HTTPS"}},
             "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "connection", "value": "close"}]}}},
            {"name": "db", "command": ["x"],
             "livenessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 3},
             "startupProbe": {"exec": {"command": ["x"]}}},
            {"name": "cache", "command": ["x"], "readinessProbe": {"tcpSocket": {"port": 1, "host": "h"}}}]}
    });
    let mut new_uid = || PodUid(7);
    let mut options = LoadOptions {
        strict: false,
        default_initial_delay: Duration::ZERO,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut new_uid,
    };
    let context = JsonContext { namespace: "default", base_dir: Some(folder) };
    pod_from_json(pod.to_string().as_bytes(), &context, &mut options)
        .map(|loaded| loaded.spec)
        .map_err(|errors| errors.problems.into_iter().map(|problem| problem.text).collect())
}

#[track_caller]
fn check_errors(annotations: Value, expected: &[&str]) {
    let errors = load(&annotations, Path::new("/srv/app")).err().unwrap_or_default();
    let expected: Vec<String> = expected.iter().map(|error| format!("metadata.annotations{error}")).collect();
    assert_eq!(errors, expected, "{annotations}");
}

#[test]
fn keys_that_mean_nothing() {
    let any = "defib knows no such annotation; there are on-child-oom, base-dir and <probe>.<setting>: \
               docs/annotations.md";
    let setting = "defib knows no such setting of a probe; there are period-ms, timeout-ms, unix-socket, keep-alive, \
                   tls-verify, tls-ca, tls-server-name, tcp-close, redirects, broken-body, reset-on-restart, \
                   errored-runs";
    let probe = "defib knows no such probe; there are startup, readiness, liveness";
    for (key, text) in [
        ("defib.dev/liveness", any),
        ("defib.dev/liveness.period", setting),
        ("defib.dev/Liveness.period-ms", probe),
        ("defib.dev/x.period-ms", probe),
    ] {
        check_errors(json!({key: "20"}), &[&format!(": Invalid value: {key:?}: {text}")]);
    }
    check_errors(
        json!({"other.defib.dev/liveness.period-ms": "20"}),
        &[
            ": Invalid value: \"other.defib.dev/liveness.period-ms\": the pod has no container of this name; it has web, db, cache",
        ],
    );
    check_errors(
        json!({"db.defib.dev/readiness.period-ms": "20"}),
        &[": Invalid value: \"db.defib.dev/readiness.period-ms\": container db has no readinessProbe"],
    );
    check_errors(
        json!({"defib.dev/liveness.keep-alive": "true"}),
        &[
            ": Invalid value: \"defib.dev/liveness.keep-alive\": livenessProbe of container db: it has an effect on \
            httpGet only: name the container that is meant: <container>.defib.dev/liveness.keep-alive",
        ],
    );
    check_errors(
        json!({"db.defib.dev/startup.unix-socket": "/x"}),
        &[
            ": Invalid value: \"db.defib.dev/startup.unix-socket\": startupProbe of container db: it has an effect on \
            httpGet and tcpSocket only: leave it out",
        ],
    );
    check_errors(
        json!({"web.defib.dev/readiness.tls-server-name": "x"}),
        &[
            ": Invalid value: \"web.defib.dev/readiness.tls-server-name\": readinessProbe of container web: it has an \
            effect on httpGet with scheme HTTPS only: leave it out",
        ],
    );
    check_errors(
        json!({"web.defib.dev/liveness.tcp-close": "Reset"}),
        &[
            ": Invalid value: \"web.defib.dev/liveness.tcp-close\": livenessProbe of container web: it has an effect on \
            tcpSocket only: leave it out",
        ],
    );
}

#[test]
fn values_that_are_wrong() {
    let whole = "must be a whole number of milliseconds between 1 and 2147483647, inclusive";
    for value in ["", "0", "-5", "1.5", "50ms", "+20", "2147483648", "99999999999999999999"] {
        check_errors(
            json!({"defib.dev/liveness.timeout-ms": value}),
            &[&format!("[defib.dev/liveness.timeout-ms]: Invalid value: {value:?}: {whole}")],
        );
    }
    check_errors(
        json!({"defib.dev/liveness.period-ms": "5"}),
        &[
            "[defib.dev/liveness.period-ms]: Invalid value: \"5\": below this node's floor of 10 ms: give at least 10, \
            or start defib with --min-probe-period-ms 5",
        ],
    );
    check_errors(
        json!({"web.defib.dev/liveness.keep-alive": "yes"}),
        &["[web.defib.dev/liveness.keep-alive]: Invalid value: \"yes\": must be \"true\" or \"false\""],
    );
    check_errors(
        json!({"db.defib.dev/liveness.tcp-close": "reset"}),
        &[
            "[db.defib.dev/liveness.tcp-close]: Invalid value: \"reset\": supported values: \"Reset\", \"Graceful\"",
        ],
    );
    check_errors(
        json!({"db.defib.dev/startup.errored-runs": "Error"}),
        &[
            "[db.defib.dev/startup.errored-runs]: Invalid value: \"Error\": supported values: \"Ignore\", \"Failure\"",
        ],
    );
    check_errors(
        json!({"db.defib.dev/liveness.errored-runs": "Failure"}),
        &[
            ": Invalid value: \"db.defib.dev/liveness.errored-runs\": livenessProbe of container db: it has an effect on \
             exec only: leave it out",
        ],
    );
    check_errors(
        json!({"db.defib.dev/liveness.unix-socket": ""}),
        &["[db.defib.dev/liveness.unix-socket]: Invalid value: \"\": the path of a Unix socket is expected"],
    );
    // The folder counts: 9 bytes and a slash.
    let long = "s".repeat(97);
    assert!(load(&json!({"db.defib.dev/liveness.unix-socket": long}), Path::new("/srv/apps")).is_ok());
    let error = format!(
        "[db.defib.dev/liveness.unix-socket]: Invalid value: \"{long}s\": the whole path has 107 bytes: the path of a \
         Unix socket has at most 107"
    );
    assert!(
        load(&json!({"db.defib.dev/liveness.unix-socket": format!("{long}s")}), Path::new("/srv/app"))
            .is_ok()
    );
    let errors =
        load(&json!({"db.defib.dev/liveness.unix-socket": format!("{long}s")}), Path::new("/srv/apps")).err();
    let error = error.replace("has 107 bytes", "has 108 bytes");
    assert_eq!(errors, Some(vec![format!("metadata.annotations{error}")]));
    check_errors(
        json!({"web.defib.dev/liveness.tls-server-name": "a b"}),
        &[
            "[web.defib.dev/liveness.tls-server-name]: Invalid value: \"a b\": must be a DNS name or an IP address",
        ],
    );
}

#[test]
fn annotations_that_do_not_go_together() {
    let web = "livenessProbe of container web";
    check_errors(
        json!({"web.defib.dev/liveness.tls-verify": "true"}),
        &[&format!(
            ": Invalid value: \"web.defib.dev/liveness.tls-verify\": {web}: verification needs tls-ca: the PEM file \
             with the certificates of the authority"
        )],
    );
    check_errors(
        json!({"web.defib.dev/liveness.tls-ca": "no-such.pem"}),
        &[
            "[web.defib.dev/liveness.tls-ca]: Invalid value: \"no-such.pem\": /srv/app/no-such.pem: no such file: a PEM \
             file with the authority's certificates is expected",
            &format!(
                ": Invalid value: \"web.defib.dev/liveness.tls-ca\": {web}: it has an effect with tls-verify: \"true\" \
                 only"
            ),
        ],
    );
    check_errors(
        json!({"web.defib.dev/readiness.keep-alive": "true"}),
        &[
            ": Invalid value: \"web.defib.dev/readiness.keep-alive\": readinessProbe of container web: httpHeaders has a \
            Connection header, which decides the same: leave one of them out",
        ],
    );
    check_errors(
        json!({"cache.defib.dev/readiness.unix-socket": "x", "cache.defib.dev/readiness.tcp-close": "Graceful"}),
        &[
            ": Invalid value: \"cache.defib.dev/readiness.unix-socket\": readinessProbe of container cache: \
             tcpSocket.host has no effect on a Unix socket: leave one of them out",
            ": Invalid value: \"cache.defib.dev/readiness.tcp-close\": readinessProbe of container cache: a Unix socket \
             knows no reset: leave it out",
        ],
    );
}

#[test]
fn a_container_goes_before_the_pod() {
    let pod = load(
        &json!({
            "defib.dev/liveness.period-ms": "50", "web.defib.dev/liveness.period-ms": "1500",
            "defib.dev/liveness.timeout-ms": "20",
        }),
        Path::new("/"),
    )
    .unwrap();
    let timing = |name: &str| {
        let probe =
            pod.containers.iter().find(|one| &*one.name == name).and_then(|one| one.liveness.as_ref());
        probe.map(|probe| (probe.period.as_millis(), probe.timeout.as_millis()))
    };
    assert_eq!(timing("web"), Some((1_500, 20)));
    assert_eq!(timing("db"), Some((50, 20)));
}

fn http(pod: &PodSpec, kind: ProbeKind) -> &HttpGetAction {
    match pod.containers[0].probe(kind).map(|probe| &probe.handler) {
        Some(Handler::HttpGet(http)) => http,
        other => panic!("{other:?}"),
    }
}

fn tcp(pod: &PodSpec) -> &TcpSocketAction {
    match pod.containers[1].liveness.as_ref().map(|probe| &probe.handler) {
        Some(Handler::TcpSocket(tcp)) => tcp,
        other => panic!("{other:?}"),
    }
}

#[test]
fn errored_runs() {
    for (annotations, expected) in [
        (json!({}), ErroredRuns::Ignore),
        (json!({"defib.dev/startup.errored-runs": "Ignore"}), ErroredRuns::Ignore),
        (json!({"defib.dev/startup.errored-runs": "Failure"}), ErroredRuns::Failure),
    ] {
        let pod = load(&annotations, Path::new("/")).unwrap();
        let startup = pod.containers[1].startup.as_ref().map(|probe| probe.errored_runs);
        assert_eq!(startup, Some(expected), "{annotations}");
    }
}

#[test]
fn what_annotations_do() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::new(vec!["ca".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    let plain = load(&json!({}), dir.path()).unwrap();
    let any = http(&plain, ProbeKind::Liveness).tls.clone().unwrap();
    assert_eq!(any.server_name, None);
    assert_eq!(http(&plain, ProbeKind::Readiness).tls, None);
    assert_eq!((tcp(&plain).close, &tcp(&plain).unix_socket), (TcpClose::Reset, &None));

    let pod = load(
        &json!({
            "web.defib.dev/liveness.tls-verify": "true", "web.defib.dev/liveness.tls-ca": "ca.pem",
            "web.defib.dev/liveness.tls-server-name": "example.com", "web.defib.dev/liveness.keep-alive": "true",
            "web.defib.dev/liveness.unix-socket": "run/web.sock", "db.defib.dev/liveness.tcp-close": "Graceful",
        }),
        dir.path(),
    )
    .unwrap();
    let web = http(&pod, ProbeKind::Liveness);
    let tls = web.tls.as_ref().unwrap();
    assert_ne!(tls.config, any.config);
    assert_eq!(tls.server_name.as_deref(), Some("example.com"));
    assert!(web.keep_alive);
    assert_eq!(web.unix_socket.as_deref(), Some(&*dir.path().join("run/web.sock")));
    assert_eq!(tcp(&pod).close, TcpClose::Graceful);

    std::fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    let wrong =
        json!({"web.defib.dev/liveness.tls-verify": "true", "web.defib.dev/liveness.tls-ca": "ca.pem"});
    let errors = load(&wrong, dir.path()).unwrap_err();
    assert!(
        errors[0].ends_with("ca.pem: no certificate in it: give PEM with BEGIN CERTIFICATE"),
        "{errors:?}"
    );
}

#[test]
fn the_example_of_the_documentation_loads() {
    let text = include_str!("../../../../docs/annotations.md");
    let (_, after) = text.split_once("```yaml\n").unwrap();
    let (yaml, _) = after.split_once("```").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::new(vec!["ca".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut new_uid = || PodUid(7);
    let mut options = LoadOptions {
        strict: true,
        default_initial_delay: Duration::ZERO,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut new_uid,
    };
    let loaded = crate::spec::load_files(&[file], &mut std::io::empty(), &mut options).unwrap();
    let periods =
        loaded.pods[0].containers.iter().map(|one| one.liveness.as_ref().unwrap().period.as_millis());
    assert_eq!(periods.collect::<Vec<_>>(), [50, 50, 50]);
}
