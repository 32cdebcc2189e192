//! Get, create, replace and delete of pods.
//!
//! The agent does what is asked in its own time; the answer waits (bounded) until the store shows it, so
//! that a client reads what it wrote.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use probe_core::model::limits::MANIFEST_MAX_BYTES;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::backend::Manifest;
use super::change;
use super::error::ApiError;
use super::object;
use super::query::{Taken, number, taken};
use super::{Api, PodPath, Served};
use crate::store::{PodObject, Store};

/// How long an answer waits for the agent to act. It acts within microseconds unless it is in trouble.
const ACT_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to send a body.
const BODY_MAX: Duration = Duration::from_secs(30);
/// Largest body: a manifest.
const BODY_MAX_BYTES: usize = MANIFEST_MAX_BYTES as usize;

/// Parameters of create and replace.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct WriteQuery {
    dry_run: Option<String>,
    /// Of defib itself: the folder that relative commands resolve against, since client and agent share
    /// the host.
    base_dir: Option<PathBuf>,
}

pub async fn get(State(api): State<Arc<Served>>, Path(path): Path<PodPath>) -> Result<Json<Value>, ApiError> {
    Ok(api.show(&api.pod(&path)?))
}

pub async fn create(
    State(api): State<Arc<Served>>,
    Path(namespace): Path<String>,
    query: Taken<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let query = taken(query)?;
    refuse_dry_run(query.dry_run.as_deref())?;
    let sent = change::Sent::read(&json_body(&headers, body).await?, &api.node_name)?;
    sent.check_namespace(&namespace)?;
    let manifest =
        Manifest { body: &sent.body, namespace: &namespace, uid: None, base_dir: query.base_dir.as_deref() };
    let invalid = |causes| ApiError::Invalid { name: sent.name.clone(), causes };
    let spec = api.backend.parse(&manifest).map_err(invalid)?;
    let (uid, name) = (spec.uid, spec.name.clone());
    if let Some(existing) = api.store.pod(&namespace, &name) {
        return Err(match existing.snapshot.status.deletion {
            Some(_) => ApiError::BeingDeleted { name },
            None => ApiError::AlreadyExists { name },
        });
    }
    api.backend.create(spec).map_err(|refusal| ApiError::refused(refusal, &name))?;
    let pod = shown(&api.store, |store| store.pod_by_uid(uid)).await?;
    Ok((StatusCode::CREATED, api.show(&pod)).into_response())
}

pub async fn replace(
    State(api): State<Arc<Served>>,
    Path(path): Path<PodPath>,
    query: Taken<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let query = taken(query)?;
    refuse_dry_run(query.dry_run.as_deref())?;
    let sent = change::Sent::read(&json_body(&headers, body).await?, &api.node_name)?;
    sent.check_namespace(&path.namespace)?;
    let existing = api.pod(&path)?;
    sent.check_target(&existing)?;
    let old = &existing.snapshot.spec;
    let manifest = Manifest {
        body: &sent.body,
        namespace: &path.namespace,
        uid: Some(old.uid),
        base_dir: Some(query.base_dir.as_deref().unwrap_or(&old.base_dir)),
    };
    let invalid = |causes| ApiError::Invalid { name: path.name.as_str().into(), causes };
    let spec = api.backend.parse(&manifest).map_err(invalid)?;
    if spec.manifest_json == old.manifest_json && spec.base_dir == old.base_dir {
        return Ok(api.show(&existing));
    }
    change::check(old, &spec).map_err(|cause| invalid(vec![cause]))?;
    let (uid, wanted) = (spec.uid, Arc::clone(&spec.manifest_json));
    api.backend.update(old, spec).map_err(|refusal| ApiError::refused(refusal, &path.name))?;
    let pod = shown(&api.store, |store| match store.pod_by_uid(uid) {
        Some(pod) if pod.snapshot.spec.manifest_json != wanted => None,
        Some(pod) => Some(Some(pod)),
        None => Some(None),
    })
    .await?;
    pod.map(|pod| api.show(&pod)).ok_or_else(|| not_found(&path.name))
}

/// `meta/v1.DeleteOptions`; what has no meaning here (`propagationPolicy`) is ignored.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteQuery {
    grace_period_seconds: Option<String>,
    dry_run: Option<String>,
}

pub async fn delete(
    State(api): State<Arc<Served>>,
    Path(path): Path<PodPath>,
    query: Taken<DeleteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let query = taken(query)?;
    refuse_dry_run(query.dry_run.as_deref())?;
    let body = json_body(&headers, body).await?;
    let options: DeleteOptions = match body.is_empty() {
        true => DeleteOptions::default(),
        false => serde_json::from_slice(&body).map_err(|error| bad_json(&error))?,
    };
    refuse_dry_run(options.dry_run.as_ref().and_then(|stages| stages.first()).map(String::as_str))?;
    let asked = match number("gracePeriodSeconds", query.grace_period_seconds.as_deref())? {
        Some(seconds) => Some(i64::try_from(seconds).unwrap_or(i64::MAX)),
        None => options.grace_period_seconds,
    };
    let grace_s = asked.map(grace).transpose()?;
    let pod = api.pod(&path)?;
    check_preconditions(&pod, &options.preconditions.unwrap_or_default())?;
    let uid = pod.snapshot.spec.uid;
    api.backend.delete(uid, grace_s).map_err(|refusal| ApiError::refused(refusal, &path.name))?;
    let pod = shown(&api.store, |store| match store.pod_by_uid(uid) {
        Some(pod) => pod.snapshot.status.deletion.is_some().then_some(pod),
        // Gone already: the answer is the pod as it last was.
        None => Some(pod.clone()),
    })
    .await?;
    Ok(api.show(&pod))
}

impl Api {
    /// # Errors
    /// `404` when there is none.
    pub(super) fn pod(&self, path: &PodPath) -> Result<PodObject, ApiError> {
        self.store.pod(&path.namespace, &path.name).ok_or_else(|| not_found(&path.name))
    }

    fn show(&self, pod: &PodObject) -> Json<Value> {
        Json(object::pod(pod, &self.node_name))
    }
}

fn not_found(name: &str) -> ApiError {
    ApiError::NotFound { kind: "pods", name: name.into() }
}

/// The body of a request that must be JSON if it is anything.
async fn json_body(headers: &HeaderMap, body: Body) -> Result<bytes::Bytes, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !matches!(kind, "" | "application/json" | "*/*") {
        return Err(ApiError::MediaType);
    }
    let read = timeout(BODY_MAX, axum::body::to_bytes(body, BODY_MAX_BYTES)).await;
    match read {
        Err(_) => Err(ApiError::Timeout(BODY_MAX.as_secs())),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(body_error(&error)),
    }
}

fn body_error(error: &axum::Error) -> ApiError {
    use std::error::Error as _;
    let is_limit = error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    if is_limit {
        ApiError::TooLarge { limit_bytes: BODY_MAX_BYTES }
    } else {
        ApiError::BadRequest(format!("read the request's body: {error}"))
    }
}

pub(super) fn bad_json(error: &serde_json::Error) -> ApiError {
    ApiError::BadRequest(format!("the object provided is unrecognized: {error}"))
}

/// Waits until the store shows what the agent was asked for.
async fn shown<T>(store: &Store, found: impl FnMut(&Store) -> Option<T>) -> Result<T, ApiError> {
    timeout(ACT_MAX, store.wait_for(found)).await.map_err(|_| ApiError::Timeout(ACT_MAX.as_secs()))
}

/// To ignore it would do what was only to be tried.
fn refuse_dry_run(stage: Option<&str>) -> Result<(), ApiError> {
    match stage {
        None | Some("") => Ok(()),
        Some(_) => {
            Err(ApiError::BadRequest("dryRun is not served here; `defib validate` checks a file".into()))
        }
    }
}

fn grace(seconds: i64) -> Result<u32, ApiError> {
    u32::try_from(seconds).map_err(|_| {
        ApiError::BadRequest(format!(
            "gracePeriodSeconds: Invalid value: {seconds}: must be between 0 and {}",
            u32::MAX
        ))
    })
}

fn check_preconditions(pod: &PodObject, wanted: &Preconditions) -> Result<(), ApiError> {
    let is_other =
        |wanted: &Option<String>, own: String| wanted.as_ref().is_some_and(|wanted| *wanted != own);
    let spec = &pod.snapshot.spec;
    if is_other(&wanted.uid, spec.uid.to_string()) {
        return Err(change::conflict(spec, "Precondition failed: the UID is another one"));
    }
    if is_other(&wanted.resource_version, pod.version.to_string()) {
        return Err(change::conflict(spec, change::MODIFIED));
    }
    Ok(())
}
