//! What the API shows: pods and events, each change with a resourceVersion of its own.
//!
//! The executors publish, readers copy references out; nothing here is on the path of a probe or a
//! restart. Everything is bounded: pods by the agent, events and the history of changes here.

mod history;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use probe_core::decide::events::{MergedEvent, MergedEvents};
use probe_core::model::event::PodEvent;
use probe_core::model::id::PodUid;
use probe_core::model::limits::EVENTS_MAX;
use probe_core::model::status::PodSnapshot;
use probe_core::model::time::Mono;
use tokio::sync::watch;

use history::History;
pub use history::{Change, ChangeKind, Expired};

/// Changes of events that are kept for watchers. Who falls further behind lists again.
pub const EVENT_HISTORY_MAX: usize = 8_192;
/// What the kept changes of pods may take, in bytes; as with events, who falls further behind lists again.
pub const POD_HISTORY_MAX_BYTES: usize = 32 * 1024 * 1024;
/// What a change is reckoned to take for every container, whose whole state it keeps.
const CONTAINER_STATE_BYTES: usize = 1_024;
/// How long an event is shown after it last happened: the API server's default.
pub const EVENT_TTL: Duration = Duration::from_secs(3_600);

/// What executors publish.
#[derive(Clone, Debug)]
pub enum StoreUpdate {
    Event(PodEvent),
    /// The pod is new, or something visible of it changed.
    Status(Box<PodSnapshot>),
    /// The deleted pod is gone. Its events stay for [`EVENT_TTL`].
    PodGone(PodUid),
}

/// A pod as the API shows it.
#[derive(Clone, Debug)]
pub struct PodObject {
    /// resourceVersion of its last change.
    pub version: u64,
    pub snapshot: Arc<PodSnapshot>,
}

/// A line of the merged event view.
#[derive(Clone, Debug)]
pub struct EventObject {
    /// resourceVersion of its last change.
    pub version: u64,
    pub line: Arc<MergedEvent>,
}

/// The raw stream: every event as it happened.
#[derive(Clone, Debug)]
pub struct RawEvents {
    /// Oldest first, at most [`EVENTS_MAX`].
    pub events: Vec<PodEvent>,
    /// Older ones that had to make room.
    pub dropped: u64,
}

/// A list together with the resourceVersion that it shows.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    pub version: u64,
    pub items: Vec<T>,
}

/// A handle; clones share the same content.
#[derive(Clone, Debug)]
pub struct Store {
    state: Arc<Mutex<State>>,
    newest: watch::Sender<u64>,
}

impl Store {
    /// An empty store. `start_version` is at least every resourceVersion that an earlier life of this node
    /// has given out.
    pub fn new(start_version: u64) -> Store {
        let state = Arc::new(Mutex::new(State::new(start_version)));
        Store { state, newest: watch::Sender::new(start_version) }
    }

    /// Takes one update in and wakes the watchers. Returns the newest resourceVersion.
    pub fn apply(&self, update: StoreUpdate) -> u64 {
        self.change(|state| match update {
            StoreUpdate::Event(event) => state.event(event),
            StoreUpdate::Status(snapshot) => state.status(snapshot),
            StoreUpdate::PodGone(pod) => state.gone(pod),
        })
    }

    /// Forgets the events that last happened more than [`EVENT_TTL`] before `now`.
    pub fn expire_events(&self, now: Mono) {
        self.change(|state| state.expire_events(now));
    }

    /// The resourceVersion of the newest change.
    pub fn version(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Changes whenever [`Store::version`] does.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodObject> {
        self.lock().pods.get(&(namespace.into(), name.into())).cloned()
    }

    /// The pod with this uid, if it is not gone.
    pub fn pod_by_uid(&self, pod: PodUid) -> Option<PodObject> {
        let state = self.lock();
        state.names.get(&pod).and_then(|name| state.pods.get(name)).cloned()
    }

    /// Pods by namespace and name; of one namespace, or of all.
    pub fn pods(&self, namespace: Option<&str>) -> Listed<PodObject> {
        let state = self.lock();
        let inside = |pod: &&PodObject| namespace.is_none_or(|ns| *pod.snapshot.spec.namespace == *ns);
        Listed { version: state.version, items: state.pods.values().filter(inside).cloned().collect() }
    }

    /// Merged events, the one that happened longest ago first; of one namespace, or of all.
    pub fn events(&self, namespace: Option<&str>) -> Listed<EventObject> {
        let state = self.lock();
        let inside = |line: &&MergedEvent| namespace.is_none_or(|ns| *line.event.namespace == *ns);
        let items = state.merged.iter().filter(inside).filter_map(|line| state.lines.get(&line.id));
        Listed { version: state.version, items: items.cloned().collect() }
    }

    /// Every event as it happened; of one namespace, or of all.
    pub fn raw_events(&self, namespace: Option<&str>) -> RawEvents {
        let state = self.lock();
        let inside = |event: &&PodEvent| namespace.is_none_or(|ns| *event.namespace == *ns);
        RawEvents { events: state.raw.iter().filter(inside).cloned().collect(), dropped: state.raw_dropped }
    }

    /// Changes of pods after `version`, oldest first, at most `max`.
    ///
    /// # Errors
    /// [`Expired`] when some of them are no longer kept.
    pub fn pod_changes(&self, version: u64, max: usize) -> Result<Vec<Change<PodObject>>, Expired> {
        self.lock().pod_history.after(version, max)
    }

    /// Changes of merged events after `version`, oldest first, at most `max`.
    ///
    /// # Errors
    /// [`Expired`] when some of them are no longer kept.
    pub fn event_changes(&self, version: u64, max: usize) -> Result<Vec<Change<EventObject>>, Expired> {
        self.lock().event_history.after(version, max)
    }

    /// Waits until `found` finds what it looks for; it is asked now and after every change.
    pub async fn wait_for<T>(&self, mut found: impl FnMut(&Store) -> Option<T>) -> T {
        let mut newest = self.subscribe();
        loop {
            newest.mark_unchanged();
            if let Some(value) = found(self) {
                return value;
            }
            // The sender lives in `self`, so this ends only with a change.
            if newest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn change(&self, act: impl FnOnce(&mut State)) -> u64 {
        let version = {
            let mut state = self.lock();
            act(&mut state);
            state.version
        };
        self.newest.send_if_modified(|newest| {
            let is_newer = version > *newest;
            *newest = version.max(*newest);
            is_newer
        });
        version
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another reader leaves whole updates behind: each is done under one lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type PodName = (Box<str>, Box<str>);

#[derive(Debug)]
struct State {
    version: u64,
    pods: BTreeMap<PodName, PodObject>,
    names: HashMap<PodUid, PodName>,
    pod_history: History<PodObject>,
    raw: VecDeque<PodEvent>,
    raw_dropped: u64,
    merged: MergedEvents,
    /// The lines of `merged` by id, with their versions.
    lines: HashMap<u64, EventObject>,
    event_history: History<EventObject>,
}

impl State {
    fn new(version: u64) -> State {
        State {
            version,
            pods: BTreeMap::new(),
            names: HashMap::new(),
            pod_history: History::new(version, POD_HISTORY_MAX_BYTES),
            raw: VecDeque::new(),
            raw_dropped: 0,
            merged: MergedEvents::new(EVENTS_MAX),
            lines: HashMap::new(),
            event_history: History::new(version, EVENT_HISTORY_MAX),
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn status(&mut self, snapshot: Box<PodSnapshot>) {
        let name = (snapshot.spec.namespace.clone(), snapshot.spec.name.clone());
        let kind = match self.pods.get(&name) {
            None => ChangeKind::Added,
            Some(known) if known.snapshot.spec.uid != snapshot.spec.uid => {
                // The name was given to a new pod: the old one is gone.
                let old = known.snapshot.spec.uid;
                self.gone(old);
                ChangeKind::Added
            }
            Some(known) => {
                let same = Arc::ptr_eq(&known.snapshot.spec, &snapshot.spec)
                    && known.snapshot.status == snapshot.status;
                if same {
                    return;
                }
                ChangeKind::Modified
            }
        };
        let version = self.next_version();
        self.names.insert(snapshot.spec.uid, name.clone());
        let object = PodObject { version, snapshot: Arc::from(snapshot) };
        // Labels are in the manifest.
        let is_other =
            |old: &PodObject| old.snapshot.spec.manifest_json != object.snapshot.spec.manifest_json;
        let before = self.pods.insert(name, object.clone()).filter(is_other);
        let before = before.map(|old| PodObject { version, ..old });
        let weights = [Some(&object), before.as_ref()].into_iter().flatten();
        let weight = weights.map(|object| weight_bytes(&object.snapshot)).sum();
        self.pod_history.push(Change { version, kind, object, before }, weight);
    }

    fn gone(&mut self, pod: PodUid) {
        let Some(name) = self.names.remove(&pod) else { return };
        let Some(mut object) = self.pods.remove(&name) else { return };
        let version = self.next_version();
        object.version = version;
        let weight = weight_bytes(&object.snapshot);
        self.pod_history.push(Change { version, kind: ChangeKind::Deleted, object, before: None }, weight);
    }

    fn event(&mut self, event: PodEvent) {
        self.expire_events(event.at.mono);
        if self.raw.len() >= EVENTS_MAX {
            self.raw.pop_front();
            self.raw_dropped += 1;
        }
        self.raw.push_back(event.clone());
        let added = self.merged.add(event);
        if let Some(evicted) = added.evicted {
            self.forget_line(evicted.id);
        }
        let version = self.next_version();
        let kind = if added.is_new { ChangeKind::Added } else { ChangeKind::Modified };
        let object = EventObject { version, line: Arc::new(added.line) };
        self.lines.insert(object.line.id, object.clone());
        self.event_history.push(Change { version, kind, object, before: None }, 1);
    }

    fn expire_events(&mut self, now: Mono) {
        let ttl_ns = u64::try_from(EVENT_TTL.as_nanos()).unwrap_or(u64::MAX);
        let moment = Mono::from_ns(now.as_ns().saturating_sub(ttl_ns));
        for line in self.merged.expire_before(moment) {
            self.forget_line(line.id);
        }
        while self.raw.front().is_some_and(|event| event.at.mono < moment) {
            self.raw.pop_front();
        }
    }

    fn forget_line(&mut self, id: u64) {
        let Some(mut object) = self.lines.remove(&id) else { return };
        let version = self.next_version();
        object.version = version;
        self.event_history.push(Change { version, kind: ChangeKind::Deleted, object, before: None }, 1);
    }
}

/// Changes of one pod mostly share its spec; each is reckoned as if it alone kept it, since a client may change
/// the spec every time.
pub fn weight_bytes(snapshot: &PodSnapshot) -> usize {
    snapshot.spec.manifest_json.len() + snapshot.status.containers.len() * CONTAINER_STATE_BYTES
}

#[cfg(test)]
pub mod samples;
#[cfg(test)]
mod tests;
