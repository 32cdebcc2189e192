//! The VAL cases, defaulting, and that nothing that can be typed makes the loader panic.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{JsonContext, LoadErrors, LoadOptions, LoadedPod, pod_from_json};
use crate::model::id::PodUid;
use crate::model::limits::PROBE_PERIOD_MIN_DEFAULT;
use crate::model::pod::{PodSpec, RestartPolicy, Role};
use crate::model::probe::{Handler, ProbeKind, ProbeSpec};

const CONTEXT: JsonContext<'static> = JsonContext { namespace: "default", base_dir: None };

fn load(bytes: &[u8], initial_delay: Duration) -> Result<LoadedPod, LoadErrors> {
    let mut new_uid = || PodUid(7);
    let mut options = LoadOptions {
        strict: false,
        default_initial_delay: initial_delay,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut new_uid,
    };
    pod_from_json(bytes, &CONTEXT, &mut options)
}

fn load_pod(pod: &Value) -> Result<PodSpec, Vec<String>> {
    load(pod.to_string().as_bytes(), Duration::ZERO)
        .map(|loaded| loaded.spec)
        .map_err(|errors| errors.problems.into_iter().map(|problem| problem.text).collect())
}

/// A pod whose only container has this field.
fn with_field(field: &str, value: &Value) -> Value {
    let mut container = json!({"name": "c", "command": ["x"]});
    container[field] = value.clone();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}})
}

struct Case {
    id: &'static str,
    probe: &'static str,
    value: Value,
    /// After `spec.containers[0].`; none: valid.
    errors: &'static [&'static str],
}

fn check(cases: &[Case]) {
    for case in cases {
        let errors = load_pod(&with_field(case.probe, &case.value)).err().unwrap_or_default();
        let expected: Vec<String> =
            case.errors.iter().map(|error| format!("spec.containers[0].{error}")).collect();
        assert_eq!(errors, expected, "{} {}", case.id, case.value);
    }
}

// Reason for length: one table.
#[test]
fn numbers_of_a_probe() {
    let exec = json!({"command": ["x"]});
    check(&[
        Case {
            id: "VAL-03",
            probe: "livenessProbe",
            value: json!({"exec": exec, "timeoutSeconds": 0, "initialDelaySeconds": 10}),
            errors: &[],
        },
        Case {
            id: "VAL-05",
            probe: "livenessProbe",
            value: json!({"exec": exec, "initialDelaySeconds": -10}),
            errors: &[
                "livenessProbe.initialDelaySeconds: Invalid value: -10: must be greater than or equal to 0",
            ],
        },
        Case {
            id: "VAL-06",
            probe: "livenessProbe",
            value: json!({"exec": exec, "timeoutSeconds": -10}),
            errors: &["livenessProbe.timeoutSeconds: Invalid value: -10: must be greater than or equal to 0"],
        },
        Case {
            id: "VAL-07",
            probe: "livenessProbe",
            value: json!({"exec": exec, "initialDelaySeconds": -10, "timeoutSeconds": -10}),
            errors: &[
                "livenessProbe.initialDelaySeconds: Invalid value: -10: must be greater than or equal to 0",
                "livenessProbe.timeoutSeconds: Invalid value: -10: must be greater than or equal to 0",
            ],
        },
        Case {
            id: "VAL-08",
            probe: "readinessProbe",
            value: json!({"exec": exec, "periodSeconds": -1, "successThreshold": -1, "failureThreshold": -1}),
            errors: &[
                "readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "readinessProbe.successThreshold: Invalid value: -1: must be greater than or equal to 0",
                "readinessProbe.failureThreshold: Invalid value: -1: must be greater than or equal to 0",
            ],
        },
        Case {
            id: "VAL-17",
            probe: "livenessProbe",
            value: json!({"exec": exec, "successThreshold": 2}),
            errors: &["livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        },
        Case {
            id: "VAL-18",
            probe: "startupProbe",
            value: json!({"exec": exec, "successThreshold": 2}),
            errors: &["startupProbe.successThreshold: Invalid value: 2: must be 1"],
        },
        Case {
            id: "VAL-19",
            probe: "readinessProbe",
            value: json!({"exec": exec, "successThreshold": 5}),
            errors: &[],
        },
        Case {
            id: "VAL-20",
            probe: "livenessProbe",
            value: json!({"exec": exec, "terminationGracePeriodSeconds": -1}),
            errors: &[
                "livenessProbe.terminationGracePeriodSeconds: Invalid value: -1: must be greater than 0",
            ],
        },
        Case {
            id: "VAL-20",
            probe: "livenessProbe",
            value: json!({"exec": exec, "terminationGracePeriodSeconds": 0}),
            errors: &[
                "livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
            ],
        },
        Case {
            id: "VAL-21",
            probe: "readinessProbe",
            value: json!({"exec": exec, "terminationGracePeriodSeconds": 5}),
            errors: &[
                "readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
            ],
        },
    ]);
}

#[test]
fn handlers_of_a_probe() {
    check(&[
        Case { id: "VAL-01", probe: "livenessProbe", value: Value::Null, errors: &[] },
        Case {
            id: "VAL-04 PRB-02",
            probe: "livenessProbe",
            value: json!({}),
            errors: &["livenessProbe: Required value: must specify a handler type"],
        },
        Case {
            id: "VAL-09",
            probe: "livenessProbe",
            value: json!({"exec": {"command": ["x"]}, "httpGet": {"port": 80}}),
            errors: &["livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type"],
        },
        Case {
            id: "VAL-10",
            probe: "livenessProbe",
            value: json!({"exec": {"command": []}}),
            errors: &["livenessProbe.exec.command: Required value"],
        },
        Case {
            id: "VAL-12",
            probe: "livenessProbe",
            value: json!({"httpGet": {"port": "this-is-a-too-long-name"}}),
            errors: &[
                "livenessProbe.httpGet.port: Invalid value: \"this-is-a-too-long-name\": must be no more than 15 characters",
            ],
        },
        Case {
            id: "VAL-14",
            probe: "livenessProbe",
            value: json!({"httpGet": {"port": 80, "scheme": "FTP"}}),
            errors: &[
                "livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
            ],
        },
        Case {
            id: "VAL-14 in small letters",
            probe: "livenessProbe",
            value: json!({"httpGet": {"port": 80, "scheme": "http"}}),
            errors: &[
                "livenessProbe.httpGet.scheme: Unsupported value: \"http\": supported values: \"HTTP\", \"HTTPS\"",
            ],
        },
        Case {
            id: "VAL-15",
            probe: "livenessProbe",
            value: json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "X:Foo", "value": "bar"}]}}),
            errors: &[
                "livenessProbe.httpGet.httpHeaders: Invalid value: \"X:Foo\": a valid HTTP header must consist of \
                 alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            ],
        },
        Case {
            id: "HOOK-05",
            probe: "lifecycle",
            value: json!({"preStop": {}}),
            errors: &["lifecycle.preStop: Required value: must specify a handler type"],
        },
    ]);
}

/// VAL-23 and VAL-24: sidecars are looked at like all others, ephemeral containers have no probes. PRB-08: nor has
/// anything a kind of probe that is not known.
#[test]
fn probes_in_other_places() {
    let probe = json!({"exec": {"command": ["x"]}, "timeoutSeconds": -1});
    let mut pod = with_field("livenessProbe", &Value::Null);
    pod["spec"]["initContainers"] =
        json!([{"name": "s", "command": ["x"], "restartPolicy": "Always", "livenessProbe": probe}]);
    let negative = "spec.initContainers[0].livenessProbe.timeoutSeconds: Invalid value: -1: \
                    must be greater than or equal to 0";
    assert_eq!(load_pod(&pod).unwrap_err(), [negative], "VAL-23");

    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let mut pod = with_field("livenessProbe", &Value::Null);
        pod["spec"]["ephemeralContainers"] = json!([{"name": "e", "command": ["x"]}]);
        pod["spec"]["ephemeralContainers"][0][field] = json!({"exec": {"command": ["x"]}});
        let forbidden = format!(
            "spec.ephemeralContainers[0].{field}: Forbidden: cannot be set for an Ephemeral Container"
        );
        assert_eq!(load_pod(&pod).unwrap_err(), [forbidden], "VAL-24");
    }

    let unknown = with_field("aliveProbe", &json!({"exec": {"command": ["x"]}}));
    let error = "strict decoding error: unknown field \"spec.containers[0].aliveProbe\"";
    assert_eq!(load_pod(&unknown).unwrap_err(), [error], "PRB-08");
}

#[test]
fn zeros_become_the_defaults() {
    // VAL-25
    let zeros = json!({"tcpSocket": {"port": 80}, "periodSeconds": 0, "timeoutSeconds": 0, "failureThreshold": 0,
                       "successThreshold": 0, "initialDelaySeconds": 0});
    for value in [zeros, json!({"tcpSocket": {"port": 80}})] {
        let pod = load_pod(&with_field("livenessProbe", &value)).unwrap();
        let probe = pod.containers[0].probe(ProbeKind::Liveness).unwrap();
        let ProbeSpec { initial_delay_s, timeout, period, success_threshold, failure_threshold, .. } = probe;
        assert_eq!([initial_delay_s, success_threshold, failure_threshold], [&0, &1, &3]);
        assert_eq!([timeout.as_secs(), period.as_secs()], [1, 10]);
    }
}

#[test]
fn the_default_delay_is_only_for_probes_without_one() {
    for (value, expected) in [
        (json!({"tcpSocket": {"port": 80}}), 10),
        (json!({"tcpSocket": {"port": 80}, "initialDelaySeconds": 0}), 0),
        (json!({"tcpSocket": {"port": 80}, "initialDelaySeconds": 3}), 3),
    ] {
        let text = with_field("livenessProbe", &value).to_string();
        let pod = load(text.as_bytes(), Duration::from_secs(10)).unwrap().spec;
        assert_eq!(pod.containers[0].liveness.as_ref().unwrap().initial_delay_s, expected, "{value}");
    }
}

#[test]
fn a_pod_becomes_its_model() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"defib.dev/base-dir": "/srv"}},
        "spec": {
            "securityContext": {"runAsUser": 5, "runAsGroup": 6},
            "initContainers": [
                {"name": "i", "command": ["x"]},
                {"name": "s", "command": ["x"], "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 80}}},
            ],
            "containers": [{
                "name": "c", "command": ["x"], "securityContext": {"runAsUser": 7},
                "resources": {"limits": {"memory": "64Mi", "cpu": "250m"}},
                "readinessProbe": {"httpGet": {"port": "http", "host": ""}},
            }],
        },
    });
    let pod = load_pod(&pod).unwrap();
    let roles: Vec<Role> = pod.containers.iter().map(|container| container.role).collect();
    // A sidecar may have probes.
    assert_eq!(roles, [Role::Init, Role::Sidecar, Role::Regular]);
    assert_eq!(pod.restart_policy, RestartPolicy::Always);
    assert_eq!((pod.termination_grace_s, pod.base_dir.to_str()), (30, Some("/srv")));
    let last = &pod.containers[2];
    assert_eq!((last.run_as_user, last.run_as_group), (Some(7), Some(6)));
    assert_eq!((last.memory_limit_bytes, last.cpu_limit_millicores), (Some(64 << 20), Some(250)));
    let Handler::HttpGet(get) = &last.readiness.as_ref().unwrap().handler else { panic!("not a GET") };
    assert_eq!((&*get.path, get.host.as_deref()), ("/", None));
    assert!(pod.manifest_json.contains(&pod.uid.to_string()));
}

#[test]
fn the_hash_follows_the_container_and_nothing_else() {
    let hash = |value: &Value| load_pod(value).unwrap().containers[0].spec_hash;
    let mut pod = with_field("workingDir", &json!("/a"));
    let before = hash(&pod);
    pod["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(hash(&pod), before);
    pod["spec"]["containers"][0]["args"] = json!(["y"]);
    assert_ne!(hash(&pod), before);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z:/.$() -]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        "[a-z]{1,8}",
        Just("command".to_owned()),
        Just("livenessProbe".to_owned()),
        Just("httpGet".to_owned()),
        Just("port".to_owned()),
        Just("env".to_owned()),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = load(&bytes, Duration::ZERO);
    }

    #[test]
    fn no_field_makes_it_panic(field in "[a-zA-Z]{1,16}", value in any_json()) {
        let _ = load_pod(&with_field(&field, &value));
    }

    #[test]
    fn no_spec_makes_it_panic(spec in any_json()) {
        let _ = load_pod(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}));
    }
}
