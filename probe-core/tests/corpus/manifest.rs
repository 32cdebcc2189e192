//! Any bytes as a manifest: what loads is within its bounds, what does not says why, and nothing panics.
//!
//! An input that begins with a zero byte is a recipe for a pod (`recipe.rs`); any other is the file itself.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use probe_core::decide::target::resolve;
use probe_core::model::id::PodUid;
use probe_core::model::limits::{POD_CONTAINERS_MAX, PROBE_PERIOD_MIN_DEFAULT};
use probe_core::model::pod::{ContainerSpec, PodSpec};
use probe_core::model::probe::{ProbeKind, ProbeSpec};
use probe_core::spec::{JsonContext, LoadErrors, LoadOptions, Loaded, load_files, pod_from_json};

use crate::recipe;

/// The text of one problem quotes a value at most a few times, and each byte of it as six (`\u{1f}`).
const TEXT_BYTES_PER_BYTE: usize = 64;
/// The longest text that quotes nothing: a list of what is supported.
const TEXT_MIN_BYTES: usize = 4_096;
const POD_IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Loads one input in every way; panics when something that must hold does not.
pub fn check(input: &[u8]) {
    match input {
        [0, form, recipe @ ..] => {
            let pod = recipe::pod(recipe);
            if form & 1 == 0 {
                check_json(pod.to_string().as_bytes());
            } else if let Ok(yaml) = serde_saphyr::to_string(&pod) {
                check_text(yaml.as_bytes());
            }
        }
        // The API takes JSON alone; a file may be either.
        text if text.starts_with(b"{") => {
            check_text(text);
            check_json(text);
        }
        text => check_text(text),
    }
}

fn check_text(text: &[u8]) {
    match load(text, false) {
        Ok(loaded) => {
            let passes_strictly = load(text, true).is_ok();
            assert_eq!(passes_strictly, loaded.not_honoured.is_empty(), "{:?}", loaded.not_honoured);
            for pod in &loaded.pods {
                check_pod(pod);
                // What was shown by the API can be applied again.
                check_again(pod);
            }
        }
        Err(errors) => check_errors(&errors, text.len()),
    }
}

fn check_json(text: &[u8]) {
    let context = JsonContext { namespace: "default", base_dir: Some(Path::new("/")) };
    let mut new_uid = || PodUid(1);
    let mut options = LoadOptions {
        strict: false,
        default_initial_delay: Duration::ZERO,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut new_uid,
    };
    match pod_from_json(text, &context, &mut options) {
        Ok(loaded) => check_pod(&loaded.spec),
        Err(errors) => check_errors(&errors, text.len()),
    }
}

fn load(text: &[u8], strict: bool) -> Result<Loaded, LoadErrors> {
    let mut uids = 0;
    let mut new_uid = || {
        uids += 1;
        PodUid(uids)
    };
    let mut options = LoadOptions {
        strict,
        default_initial_delay: Duration::ZERO,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut new_uid,
    };
    load_files(&[PathBuf::from("-")], &mut &*text, &mut options)
}

fn check_errors(errors: &LoadErrors, input_bytes: usize) {
    assert!(!errors.problems.is_empty(), "refused without a word");
    let bound = TEXT_MIN_BYTES + TEXT_BYTES_PER_BYTE * input_bytes;
    for problem in &errors.problems {
        assert!(!problem.text.is_empty(), "refused without a word");
        assert!(problem.text.len() <= bound, "{} bytes about {input_bytes}", problem.text.len());
    }
}

fn check_pod(pod: &PodSpec) {
    assert!(!pod.name.is_empty() && !pod.namespace.is_empty());
    assert!((1..=POD_CONTAINERS_MAX).contains(&pod.containers.len()));
    for container in &pod.containers {
        assert!(!container.name.is_empty());
        assert!((1..=64).contains(&container.stop_signal), "signal {}", container.stop_signal);
        for kind in ProbeKind::ALL {
            if let Some(probe) = container.probe(kind) {
                check_probe(kind, probe, container);
            }
        }
    }
}

fn check_probe(kind: ProbeKind, probe: &ProbeSpec, container: &ContainerSpec) {
    assert!(probe.timeout.as_millis() >= 1 && probe.period >= PROBE_PERIOD_MIN_DEFAULT, "{probe:?}");
    assert!(probe.success_threshold >= 1 && probe.failure_threshold >= 1, "{probe:?}");
    assert!(kind == ProbeKind::Readiness || probe.success_threshold == 1, "{probe:?}");
    assert!(probe.termination_grace_s.is_none_or(|grace_s| grace_s >= 1), "{probe:?}");
    // A target that cannot be resolved is a value too.
    let _ = resolve(&probe.handler, container, POD_IP);
}

/// The defaulted manifest of a pod loads, and to the same containers.
fn check_again(pod: &PodSpec) {
    let mut new_uid = || pod.uid;
    let mut options = LoadOptions {
        strict: false,
        default_initial_delay: Duration::ZERO,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut new_uid,
    };
    let context = JsonContext { namespace: &pod.namespace, base_dir: Some(&pod.base_dir) };
    let loaded = pod_from_json(pod.manifest_json.as_bytes(), &context, &mut options);
    let again = loaded.unwrap_or_else(|errors| panic!("{errors}\n{}", pod.manifest_json));
    assert_eq!(again.spec.containers, pod.containers, "{}", pod.manifest_json);
}
