//! What defib's engine says of a case: from the manifest to the ring.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use probe_core::decide::target::resolve;
use probe_core::engine::once;
use probe_core::model::id::PodUid;
use probe_core::model::probe::{Target, Verdict};
use probe_core::ring::RingKind;
use probe_core::spec::{JsonContext, LoadOptions, pod_from_json};
use probe_core::sys::clock;
use serde_json::json;

use super::Opinion;
use super::behaviour::{Act, Behaviour};

/// Rings at once; each mostly waits.
const AT_ONCE: usize = 16;

pub fn opinions(behaviours: &[Behaviour], timeout_ms: u64) -> Result<BTreeMap<u16, Opinion>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(u16, Opinion)>> {
        let mut done = Vec::new();
        while let Some(behaviour) = behaviours.get(next.fetch_add(1, Ordering::Relaxed)) {
            let opinion = opinion(behaviour, timeout_ms).with_context(|| format!("case {}", behaviour.id))?;
            done.push((behaviour.id, opinion));
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let mut all = BTreeMap::new();
        for thread in threads {
            let Ok(done) = thread.join() else { bail!("a thread of the engine panicked") };
            all.extend(done?);
        }
        Ok(all)
    })
}

fn opinion(behaviour: &Behaviour, timeout_ms: u64) -> Result<Opinion> {
    let target = Arc::new(target(behaviour)?);
    let result = once(RingKind::Uring, target, Duration::from_millis(timeout_ms), clock::now)?;
    let verdict = match result.verdict {
        Verdict::Success => "success",
        Verdict::Warning => "warning",
        Verdict::Failure => "failure",
        Verdict::Errored => "errored",
        Verdict::Inconclusive => "inconclusive",
    };
    let text = result.detail.map(String::from).unwrap_or_default();
    Ok(Opinion { verdict: verdict.to_owned(), text, requests: Vec::new() })
}

/// The probe as a pod's manifest has it.
fn target(behaviour: &Behaviour) -> Result<Target> {
    let headers: Vec<_> =
        behaviour.headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let mut get = json!({
        "scheme": behaviour.scheme.to_uppercase(),
        "port": behaviour.door.port(),
        "path": behaviour.path,
    });
    if !headers.is_empty() {
        get["httpHeaders"] = headers.into();
    }
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "case"},
        "spec": {"containers": [{
            "name": "c", "image": "none", "command": ["none"], "livenessProbe": {"httpGet": get},
        }]},
    });
    let bytes = serde_json::to_vec(&manifest).context("the manifest")?;
    let mut new_uid = || PodUid(1);
    let mut options = LoadOptions {
        strict: true,
        default_initial_delay: Duration::ZERO,
        min_probe_period: Duration::from_millis(10),
        new_uid: &mut new_uid,
    };
    let loaded = pod_from_json(&bytes, &JsonContext { namespace: "default", base_dir: None }, &mut options)?;
    let container = loaded.spec.containers.first().context("a container")?;
    let probe = container.liveness.as_ref().context("a probe")?;
    Ok(resolve(&probe.handler, container, IpAddr::V4(behaviour.host())))
}

/// A script for people.
pub fn shown(script: &[Act]) -> String {
    let act = |act: &Act| match act {
        Act::Send(bytes) => format!("send \"{}\"", bytes.escape_ascii()),
        Act::Trickle(bytes, at_once) => format!("send \"{}\" by {at_once}", bytes.escape_ascii()),
        Act::Hang => "hang".to_owned(),
        Act::Reset => "reset".to_owned(),
    };
    script.iter().map(act).collect::<Vec<_>>().join(", ")
}
