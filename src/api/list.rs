//! Lists and watches, the same for every kind.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

use super::error::{ApiError, Cause};
use super::labels::LabelSelector;
use super::object;
use super::query::ListQuery;
use super::resource::Resource;
use super::selector::FieldSelector;
use super::stream;
use super::{PodPath, Served};
use crate::store::{Change, ChangeKind, Store};

/// Changes taken from the store at a time.
const BATCH_MAX: usize = 64;
/// A chunk is handed over when it has grown to this: a pod may be megabytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// How often a watcher that asked for bookmarks gets one: the API server's pace.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` lasts so long: the API server ends them after 30 to 60 minutes.
const WATCH_MAX: Duration = Duration::from_secs(3_600);

/// A list, or a watch when the query says so. `namespace` None is all namespaces.
///
/// # Errors
/// Bad parameters; a version to watch from that lies in the future.
pub fn list_or_watch<R: Resource>(
    api: &Arc<Served>,
    namespace: Option<String>,
    query: &ListQuery,
) -> Result<Response, ApiError> {
    let labels = LabelSelector::parse(query.label_selector.as_deref().unwrap_or_default())?;
    let selector = FieldSelector::parse(query.field_selector.as_deref().unwrap_or_default(), R::LABELS)?;
    let scope = Scope { namespace, selector, labels };
    if query.is_watch()? { watch::<R>(api, scope, query) } else { Ok(list::<R>(api, &scope)) }
}

/// Which objects were asked for.
struct Scope {
    namespace: Option<String>,
    selector: FieldSelector,
    labels: LabelSelector,
}

impl Scope {
    fn holds<R: Resource>(&self, object: &R::Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == R::namespace(object))
            && self.selector.matches(|label| R::field(object, label))
            && self.labels.matches(|| R::labels(object))
    }

    /// The change as it looks from here: an object whose labels are changed may come in or leave.
    fn seen<'a, R: Resource>(&self, change: &'a Change<R::Object>) -> Option<(&'static str, &'a R::Object)> {
        let is_inside = self.holds::<R>(&change.object);
        let before = change.before.as_ref().filter(|before| self.holds::<R>(before));
        let was_inside = if change.before.is_some() { before.is_some() } else { is_inside };
        match (change.kind, was_inside, is_inside) {
            (ChangeKind::Added, _, true) | (ChangeKind::Modified, false, true) => {
                Some(("ADDED", &change.object))
            }
            (ChangeKind::Modified, true, true) => Some(("MODIFIED", &change.object)),
            (ChangeKind::Modified, true, false) => before.map(|before| ("DELETED", before)),
            (ChangeKind::Deleted, _, true) => Some(("DELETED", &change.object)),
            (_, _, false) => None,
        }
    }
}

fn list<R: Resource>(api: &Served, scope: &Scope) -> Response {
    let listed = R::list(&api.store, scope.namespace.as_deref());
    let items: Vec<Value> = listed
        .items
        .iter()
        .filter(|object| scope.holds::<R>(object))
        .map(|object| R::render(object, &api.node_name))
        .collect();
    let list = json!({
        "kind": format!("{}List", R::KIND),
        "apiVersion": "v1",
        "metadata": {"resourceVersion": listed.version.to_string()},
        "items": items,
    });
    Json(list).into_response()
}

fn watch<R: Resource>(api: &Arc<Served>, scope: Scope, query: &ListQuery) -> Result<Response, ApiError> {
    if query.wants_initial_events()? {
        // What an API server without that feature answers; clients then list first.
        let cause = Cause {
            reason: "FieldValueForbidden".into(),
            field: "sendInitialEvents".into(),
            message: "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled".into(),
        };
        return Err(ApiError::Invalid { name: "".into(), causes: vec![cause] });
    }
    let from = query.version()?;
    let current = api.store.version();
    if let Some(asked) = from.filter(|asked| *asked > current) {
        return Err(ApiError::FutureVersion { asked, current });
    }
    let bookmarks = if query.wants_bookmarks()? { Bookmarks::Send } else { Bookmarks::Omit };
    let (out, body) = stream::body();
    let end = sleep(query.timeout()?.unwrap_or(WATCH_MAX).min(WATCH_MAX)).deadline();
    let watcher = Watcher { api: Arc::clone(api), scope, bookmarks, out, end };
    tokio::spawn(watcher.run::<R>(from));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Bookmarks {
    Send,
    Omit,
}

struct Watcher {
    api: Arc<Served>,
    scope: Scope,
    bookmarks: Bookmarks,
    out: Sender<Bytes>,
    end: Instant,
}

impl Watcher {
    /// Feeds the client until it is gone, the time is over, or it has fallen too far behind.
    async fn run<R: Resource>(self, from: Option<u64>) {
        let mut cursor = match from {
            Some(version) => version,
            None => match self.send_existing::<R>().await {
                Some(version) => version,
                None => return,
            },
        };
        let mut newest = self.api.store.subscribe();
        let mut bookmark = interval(BOOKMARK_EVERY);
        // The first one is due after a period, not now.
        bookmark.reset();
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = sleep_until(self.end);
        tokio::pin!(end);
        let mut ending = self.api.ending.clone();
        let mut is_last_round = false;
        loop {
            // The version is marked as seen before the changes are read, so none can slip through.
            let seen = *newest.borrow_and_update();
            match R::changes(&self.api.store, cursor, BATCH_MAX) {
                Ok(changes) => match changes.last() {
                    Some(last) => {
                        cursor = last.version;
                        if !self.send_changes::<R>(&changes).await {
                            return;
                        }
                        continue;
                    }
                    None if is_last_round => return,
                    None => cursor = cursor.max(seen),
                },
                Err(expired) => {
                    let error = ApiError::Expired { asked: cursor, oldest: expired.oldest };
                    self.send(line("ERROR", error.status())).await;
                    return;
                }
            }
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = self.out.closed() => return,
                () = &mut end => return,
                _ = ending.changed() => is_last_round = true,
                _ = bookmark.tick(), if self.bookmarks == Bookmarks::Send => {
                    if !self.send(line("BOOKMARK", bookmark_of::<R>(cursor))).await {
                        return;
                    }
                }
            }
        }
    }

    /// False when nothing more is to be sent: the client is gone, or did not take this before the watch's time
    /// was over.
    async fn send(&self, chunk: Bytes) -> bool {
        matches!(timeout_at(self.end, self.out.send(chunk)).await, Ok(Ok(())))
    }

    /// ADDED for everything that exists; the version from which changes follow, None when the watch is over.
    async fn send_existing<R: Resource>(&self) -> Option<u64> {
        let listed = R::list(&self.api.store, self.scope.namespace.as_deref());
        for object in listed.items.iter().filter(|object| self.scope.holds::<R>(object)) {
            if !self.send(line("ADDED", R::render(object, &self.api.node_name))).await {
                return None;
            }
        }
        Some(listed.version)
    }

    /// False when the watch is over.
    async fn send_changes<R: Resource>(&self, changes: &[Change<R::Object>]) -> bool {
        let mut chunk = Vec::new();
        for (word, object) in changes.iter().filter_map(|change| self.scope.seen::<R>(change)) {
            chunk.extend_from_slice(&line(word, R::render(object, &self.api.node_name)));
            if chunk.len() >= CHUNK_BYTES && !self.send(std::mem::take(&mut chunk).into()).await {
                return false;
            }
        }
        chunk.is_empty() || self.send(chunk.into()).await
    }
}

fn bookmark_of<R: Resource>(version: u64) -> Value {
    json!({"kind": R::KIND, "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}})
}

fn line(kind: &str, object: Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}

/// The raw stream of events (issue 2: the merged view hides how often and when each happened).
pub fn raw_events(store: &Store, namespace: Option<&str>) -> Json<Value> {
    let raw = store.raw_events(namespace);
    let items: Vec<Value> = raw.events.iter().map(object::raw_event).collect();
    Json(json!({
        "kind": "RawEventList",
        "apiVersion": super::discovery::OWN_GROUP_VERSION,
        "metadata": {},
        "dropped": raw.dropped,
        "items": items,
    }))
}

/// One event by name.
pub async fn get_event(
    State(api): State<Arc<Served>>,
    Path(path): Path<PodPath>,
) -> Result<Json<Value>, ApiError> {
    let listed = api.store.events(Some(&path.namespace)).items;
    let found = listed.iter().find(|object| object::event_name(&object.line) == path.name);
    let event = found.map(|object| Json(object::event(object, &api.node_name)));
    event.ok_or_else(|| ApiError::NotFound { kind: "events", name: path.name.into() })
}

/// An empty body with only a status line is what axum answers to some mistakes; ours always say why.
pub async fn no_such_path() -> ApiError {
    ApiError::NoSuchPath
}

/// As [`no_such_path`], for a method.
pub async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
