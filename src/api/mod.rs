//! The Kubernetes-shaped HTTP API: pods, their logs and events, on a Unix socket.
//!
//! Handlers read the store and ask the agent through [`Backend`]; they do no file I/O (that is the log
//! door's, `logs`) and never wait for the agent longer than a named time.

mod backend;
mod change;
mod discovery;
mod error;
mod labels;
mod list;
mod log;
mod metrics;
mod object;
mod pods;
mod probe;
mod qos;
mod query;
mod resource;
mod selector;
mod serve;
mod stream;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::watch;

use crate::logs::LogDoor;
use crate::store::Store;

pub use backend::{Backend, Manifest, Parts, ProbeNow, Refusal};
pub use error::{ApiError, Cause};
pub use probe::result_json;
pub use serve::{Socket, serve};

use query::{ListQuery, Taken, taken};
use resource::{Events, Pods, Resource};

/// What the handlers share.
pub struct Api {
    pub store: Store,
    pub backend: Arc<dyn Backend>,
    pub logs: LogDoor,
    /// `spec.nodeName` of every pod.
    pub node_name: Arc<str>,
}

/// The API while it is served.
struct Served {
    api: Api,
    /// Its sender is dropped when the agent ends: a watch then sends what has happened, and ends.
    ending: watch::Receiver<()>,
}

impl Deref for Served {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// `{namespace}` and `{name}` of a path.
#[derive(Deserialize, Debug)]
struct PodPath {
    namespace: String,
    name: String,
}

fn router(api: Arc<Served>) -> Router {
    let in_namespace = "/api/v1/namespaces/{namespace}";
    let own = "/apis/defib.dev/v1";
    Router::new()
        .route("/version", get(discovery::version))
        .route("/metrics/probes", get(metrics::probes))
        .route("/api", get(discovery::core_versions))
        .route("/apis", get(discovery::groups))
        .route("/apis/defib.dev", get(discovery::own_group))
        .route("/api/v1", get(discovery::core_resources))
        .route(own, get(discovery::own_resources))
        .route("/api/v1/pods", get(list_all::<Pods>))
        .route("/api/v1/events", get(list_all::<Events>))
        .route(&format!("{in_namespace}/pods"), get(list_in::<Pods>).post(pods::create))
        .route(
            &format!("{in_namespace}/pods/{{name}}"),
            get(pods::get).put(pods::replace).delete(pods::delete),
        )
        .route(&format!("{in_namespace}/pods/{{name}}/log"), get(log::get))
        .route(&format!("{in_namespace}/events"), get(list_in::<Events>))
        .route(&format!("{in_namespace}/events/{{name}}"), get(list::get_event))
        .route(&format!("{own}/rawevents"), get(raw_all))
        .route(&format!("{own}/namespaces/{{namespace}}/rawevents"), get(raw_in))
        .route(&format!("{own}/namespaces/{{namespace}}/pods/{{name}}/probe"), post(probe::run))
        .fallback(list::no_such_path)
        .method_not_allowed_fallback(list::method_not_allowed)
        .with_state(api)
}

async fn list_all<R: Resource>(
    State(api): State<Arc<Served>>,
    query: Taken<ListQuery>,
) -> Result<Response, ApiError> {
    list::list_or_watch::<R>(&api, None, &taken(query)?)
}

async fn list_in<R: Resource>(
    State(api): State<Arc<Served>>,
    Path(namespace): Path<String>,
    query: Taken<ListQuery>,
) -> Result<Response, ApiError> {
    list::list_or_watch::<R>(&api, Some(namespace), &taken(query)?)
}

async fn raw_all(State(api): State<Arc<Served>>) -> axum::Json<serde_json::Value> {
    list::raw_events(&api.store, None)
}

async fn raw_in(
    State(api): State<Arc<Served>>,
    Path(namespace): Path<String>,
) -> axum::Json<serde_json::Value> {
    list::raw_events(&api.store, Some(&namespace))
}
