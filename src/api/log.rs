//! `GET pods/{name}/log`: which file a request is about, in kubelet's words when there is none.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use probe_core::model::id::{ContainerId, ContainerIx, PodUid};
use probe_core::model::pod::{PodSpec, Role};
use probe_core::model::status::{ContainerState, ContainerStatus, PodSnapshot, Terminated};
use serde::Deserialize;

use super::error::ApiError;
use super::query::{Taken, flag, number, taken};
use super::{PodPath, Served, stream};
use crate::logs::{Follow, LogJob, LogName, Start};
use crate::store::Store;

/// `core/v1.PodLogOptions`.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct LogQuery {
    container: Option<String>,
    previous: Option<String>,
    follow: Option<String>,
    tail_lines: Option<String>,
    limit_bytes: Option<String>,
    timestamps: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    stream: Option<String>,
}

pub async fn get(
    State(api): State<Arc<Served>>,
    Path(path): Path<PodPath>,
    query: Taken<LogQuery>,
) -> Result<Response, ApiError> {
    let query = taken(query)?;
    refuse_times(&query)?;
    let pod = api.pod(&path)?;
    let spec = &*pod.snapshot.spec;
    let ix = container_of(spec, query.container.as_deref().unwrap_or_default())?;
    let which = if flag("previous", query.previous.as_deref())? { Which::Previous } else { Which::Current };
    let instance = instance_of(&pod.snapshot, ix, which)?;
    let start = match number("tailLines", query.tail_lines.as_deref())? {
        Some(lines) => Start::LastLines(lines),
        None => Start::Beginning,
    };
    let follow = flag("follow", query.follow.as_deref())?.then(|| {
        let store = api.store.clone();
        let (uid, id) = (spec.uid, instance.id);
        Follow { store: store.clone(), goes_on: Box::new(move || is_running(&store, uid, ix, id)) }
    });
    let (out, body) = stream::body();
    let job = LogJob {
        name: LogName {
            pod_dir: pod_dir(spec),
            container: spec.containers[ix.at()].name.clone(),
            restart_count: instance.restart_count,
        },
        start,
        limit_bytes: number("limitBytes", query.limit_bytes.as_deref())?,
        follow,
        out,
    };
    api.logs.read(job).await.map_err(|error| {
        ApiError::Internal(format!("unable to retrieve container logs for {}: {error}", instance.id))
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

/// The container that is meant by `name`; empty means the only regular one.
///
/// # Errors
/// There is no such container, or there are several and none is named.
pub fn container_of(spec: &PodSpec, name: &str) -> Result<ContainerIx, ApiError> {
    if !name.is_empty() {
        let found = spec.indexed().find(|(_, container)| *container.name == *name);
        return found.map(|(ix, _)| ix).ok_or_else(|| {
            ApiError::BadRequest(format!("container {name} is not valid for pod {}", spec.name))
        });
    }
    let names = |regular: bool| -> Vec<&str> {
        let own = spec.containers.iter().filter(|container| (container.role == Role::Regular) == regular);
        own.map(|container| &*container.name).collect()
    };
    let mut regular = spec.indexed().filter(|(_, container)| container.role == Role::Regular);
    if let (Some((ix, _)), None) = (regular.next(), regular.next()) {
        return Ok(ix);
    }
    let mut text = format!(
        "a container name must be specified for pod {}, choose one of: [{}]",
        spec.name,
        names(true).join(" ")
    );
    let init = names(false);
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(ApiError::BadRequest(text))
}

/// `<namespace>_<name>_<uid>` (design 9.1).
fn pod_dir(spec: &PodSpec) -> PathBuf {
    format!("{}_{}_{}", spec.namespace, spec.name, spec.uid).into()
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Which {
    Current,
    Previous,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Instance {
    id: ContainerId,
    restart_count: u32,
}

/// Whose log is read (kubelet `validateContainerLogStatus`): the running or ended instance, or, while the
/// next one has not started, the last that ended.
fn instance_of(pod: &PodSnapshot, ix: ContainerIx, which: Which) -> Result<Instance, ApiError> {
    let status = &pod.status.containers[ix.at()];
    let (container, name) = (&status.name, &pod.spec.name);
    let of_end = |end: &Terminated| instance_of_end(status, end);
    let missing = |text: String| ApiError::BadRequest(text);
    match (which, &status.state, &status.last_state) {
        (Which::Previous, _, Some(last)) => Ok(of_end(last)),
        (Which::Previous, _, None) => {
            Err(missing(format!("previous terminated container \"{container}\" in pod \"{name}\" not found")))
        }
        (Which::Current, ContainerState::Running { .. }, _) => {
            let id = status.container_id.ok_or_else(|| {
                missing(format!("container \"{container}\" in pod \"{name}\" is not available"))
            })?;
            Ok(Instance { id, restart_count: status.restart_count })
        }
        (Which::Current, ContainerState::Terminated(end), _) => Ok(of_end(end)),
        (Which::Current, ContainerState::Waiting { .. }, Some(last)) => Ok(of_end(last)),
        (Which::Current, ContainerState::Waiting { reason, .. }, None) => {
            Err(missing(if reason.is_empty() {
                format!("container \"{container}\" in pod \"{name}\" is waiting to start - no logs yet")
            } else {
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
            }))
        }
    }
}

/// The newest instance carries the current restart count, the one before it has one less.
fn instance_of_end(status: &ContainerStatus, end: &Terminated) -> Instance {
    let is_newest = status.container_id == Some(end.container_id);
    let restart_count = if is_newest { status.restart_count } else { status.restart_count.saturating_sub(1) };
    Instance { id: end.container_id, restart_count }
}

fn is_running(store: &Store, pod: PodUid, ix: ContainerIx, id: ContainerId) -> bool {
    store.pod_by_uid(pod).is_some_and(|pod| {
        let status = pod.snapshot.status.containers.get(ix.at());
        status.is_some_and(|status| {
            status.container_id == Some(id) && matches!(status.state, ContainerState::Running { .. })
        })
    })
}

/// Design 9.6: the process writes straight to its file, so nobody knows when a line was written.
fn refuse_times(query: &LogQuery) -> Result<(), ApiError> {
    let asked = [
        ("timestamps", flag("timestamps", query.timestamps.as_deref())?),
        ("sinceSeconds", query.since_seconds.is_some()),
        ("sinceTime", query.since_time.is_some()),
    ];
    if let Some((name, _)) = asked.iter().find(|(_, asked)| *asked) {
        return Err(ApiError::BadRequest(format!(
            "{name} is not available with the process runtime: a container writes straight to its log file, without times"
        )));
    }
    match query.stream.as_deref() {
        None | Some("" | "All") => Ok(()),
        Some(_) => Err(ApiError::BadRequest(
            "stream is not available with the process runtime: standard output and standard error share one file".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{ended, running, spec};

    fn waiting(reason: &str) -> ContainerState {
        ContainerState::Waiting { reason: reason.to_owned().into(), message: None }
    }

    fn check(which: Which, edit: impl FnOnce(&mut ContainerStatus)) -> Result<u32, String> {
        let mut pod = running(spec(1, "y", &["x"]));
        edit(&mut pod.status.containers[0]);
        instance_of(&pod, ContainerIx(0), which)
            .map(|instance| instance.restart_count)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn which_instance() {
        let restarted = |status: &mut ContainerStatus| {
            status.restart_count = 3;
            status.last_state = Some(ended(9));
        };
        assert_eq!(check(Which::Current, restarted), Ok(3));
        assert_eq!(check(Which::Previous, restarted), Ok(2));
        // In back-off the newest record has moved to lastState.
        let back_off = |status: &mut ContainerStatus| {
            status.restart_count = 3;
            status.state = waiting("CrashLoopBackOff");
            status.last_state = Some(ended(0));
        };
        assert_eq!(check(Which::Current, back_off), Ok(3));
        assert_eq!(check(Which::Previous, back_off), Ok(3));
        let text = |which, edit: fn(&mut ContainerStatus)| check(which, edit).unwrap_err();
        assert_eq!(
            text(Which::Previous, |_| ()),
            "previous terminated container \"x\" in pod \"y\" not found"
        );
        assert_eq!(
            text(Which::Current, |status| status.state = waiting("ContainerCreating")),
            "container \"x\" in pod \"y\" is waiting to start: ContainerCreating"
        );
        assert_eq!(
            text(Which::Current, |status| status.state = waiting("")),
            "container \"x\" in pod \"y\" is waiting to start - no logs yet"
        );
    }

    #[test]
    fn which_container() {
        let one = spec(1, "y", &["a"]);
        let two = spec(1, "y", &["a", "b"]);
        assert_eq!(container_of(&one, ""), Ok(ContainerIx(0)));
        assert_eq!(container_of(&two, "b"), Ok(ContainerIx(1)));
        let text = |spec, name| container_of(spec, name).unwrap_err().to_string();
        assert_eq!(text(&one, "z"), "container z is not valid for pod y");
        assert_eq!(text(&two, ""), "a container name must be specified for pod y, choose one of: [a b]");
    }
}
