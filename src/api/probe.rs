//! Run one probe now: a resource of defib's own, since Kubernetes has none.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use probe_core::model::pod::{ContainerSpec, PodSpec};
use probe_core::model::probe::{ProbeKind, RunResult, Verdict};
use probe_core::model::time::Mono;
use serde::Deserialize;
use serde_json::{Value, json};

use super::discovery::OWN_GROUP_VERSION;
use super::error::ApiError;
use super::log::container_of;
use super::query::{Taken, taken};
use super::{PodPath, Served};

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub struct ProbeQuery {
    /// May be left out when the pod has one container.
    container: Option<String>,
    /// `liveness` (also when left out), `readiness` or `startup`.
    probe: Option<String>,
}

pub async fn run(
    State(api): State<Arc<Served>>,
    Path(path): Path<PodPath>,
    query: Taken<ProbeQuery>,
) -> Result<Json<Value>, ApiError> {
    let query = taken(query)?;
    let kind = kind_of(query.probe.as_deref())?;
    let pod = api.pod(&path)?;
    let spec = &*pod.snapshot.spec;
    let ix = container_of(spec, query.container.as_deref().unwrap_or_default())?;
    let container = &spec.containers[ix.at()];
    if container.probe(kind).is_none() {
        return Err(ApiError::BadRequest(no_probe(spec, container, kind)));
    }
    let result = api.backend.probe_now(spec.uid, ix, kind).await;
    let result = result.map_err(|problem| ApiError::BadRequest(problem.into()))?;
    Ok(Json(json!({
        "kind": "ProbeResult",
        "apiVersion": OWN_GROUP_VERSION,
        "metadata": {"name": spec.name, "namespace": spec.namespace, "uid": spec.uid.to_string()},
        "container": container.name,
        "probe": kind.as_str().to_lowercase(),
        "result": result_json(&result),
    })))
}

/// The outcome of one run; phases are nanoseconds from the start.
pub fn result_json(result: &RunResult) -> Value {
    let phases = &result.phases;
    let from_due =
        |at: Option<Mono>| at.map(|at| u64::try_from(at.since(phases.due).as_nanos()).unwrap_or(u64::MAX));
    json!({
        "verdict": verdict_word(result.verdict),
        "detail": result.detail,
        "phases": {
            "resolvedNs": from_due(phases.resolved),
            "submittedNs": from_due(phases.submitted),
            "connectedNs": from_due(phases.connected),
            "sentNs": from_due(phases.sent),
            "firstByteNs": from_due(phases.first_byte),
            "doneNs": from_due(Some(phases.done)),
        },
    })
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Success => "success",
        Verdict::Warning => "warning",
        Verdict::Failure => "failure",
        Verdict::Errored => "error",
        Verdict::Inconclusive => "inconclusive",
    }
}

fn kind_of(word: Option<&str>) -> Result<ProbeKind, ApiError> {
    match word {
        None | Some("" | "liveness") => Ok(ProbeKind::Liveness),
        Some("readiness") => Ok(ProbeKind::Readiness),
        Some("startup") => Ok(ProbeKind::Startup),
        Some(other) => Err(ApiError::BadRequest(format!(
            "probe: Unsupported value: \"{other}\": supported values: \"liveness\", \"readiness\", \"startup\""
        ))),
    }
}

fn no_probe(spec: &PodSpec, container: &ContainerSpec, kind: ProbeKind) -> String {
    let word = kind.as_str().to_lowercase();
    format!("container \"{}\" in pod \"{}\" has no {word} probe", container.name, spec.name)
}
