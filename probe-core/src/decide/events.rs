//! The merged view of events, as client-go makes it for `kubectl get events`: identical ones are counted,
//! floods of similar ones collapse (kubelet-semantics 17). Nothing is rate-limited: the raw stream is beside it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::model::event::{PodEvent, Reason};
use crate::model::id::PodUid;
use crate::model::time::{Mono, Now};

/// So many different messages of one pod and reason stand alone.
pub const SIMILAR_MAX: usize = 10;
/// A pause as long as this between similar events starts the count of messages anew.
pub const SIMILAR_WINDOW: Duration = Duration::from_secs(600);

const COMBINED_PREFIX: &str = "(combined from similar events): ";

/// Merged events, at most `capacity`; the one that was touched longest ago makes room.
#[derive(Debug)]
pub struct MergedEvents {
    capacity: usize,
    next_id: u64,
    next_touch: u64,
    by_id: HashMap<u64, Slot>,
    by_key: HashMap<Key, u64>,
    /// Ids in the order of their last touch.
    by_touch: BTreeMap<u64, u64>,
    similar: HashMap<(PodUid, Reason), Similar>,
}

/// One line of the merged view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergedEvent {
    /// Names the line for as long as it exists; never used twice.
    pub id: u64,
    /// The newest event of the line; its message carries the prefix of combined events.
    pub event: PodEvent,
    pub count: u32,
    pub first: Now,
    pub last: Now,
}

/// What [`MergedEvents::add`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    pub line: MergedEvent,
    /// The line is new, not counted up.
    pub is_new: bool,
    /// The line that had to make room.
    pub evicted: Option<MergedEvent>,
}

#[derive(Debug)]
struct Slot {
    line: MergedEvent,
    key: Key,
    touch: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Key {
    Same { pod: PodUid, field_path: String, reason: Reason, message: Box<str> },
    Combined { pod: PodUid, reason: Reason },
}

/// The different messages of one pod and reason. The severity belongs to the reason.
#[derive(Debug)]
struct Similar {
    messages: HashSet<Box<str>>,
    last: Mono,
}

impl MergedEvents {
    /// `capacity`: most lines kept, at least 1.
    pub fn new(capacity: usize) -> MergedEvents {
        MergedEvents {
            capacity: capacity.max(1),
            next_id: 0,
            next_touch: 0,
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            by_touch: BTreeMap::new(),
            similar: HashMap::new(),
        }
    }

    /// Lines in the order in which they were last touched.
    pub fn iter(&self) -> impl Iterator<Item = &MergedEvent> {
        self.by_touch.values().filter_map(|id| self.by_id.get(id)).map(|slot| &slot.line)
    }

    /// Merged events held now, at most the capacity.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Takes one raw event in.
    pub fn add(&mut self, mut event: PodEvent) -> Added {
        let key = if self.is_flood(&event) {
            event.message = format!("{COMBINED_PREFIX}{}", event.message).into();
            Key::Combined { pod: event.pod, reason: event.reason }
        } else {
            let (field_path, message) = (event.field_path(), event.message.clone());
            Key::Same { pod: event.pod, field_path, reason: event.reason, message }
        };
        let touch = self.next_touch;
        self.next_touch += 1;
        if let Some(slot) = self.by_key.get(&key).and_then(|id| self.by_id.get_mut(id)) {
            self.by_touch.remove(&slot.touch);
            self.by_touch.insert(touch, slot.line.id);
            slot.touch = touch;
            slot.line.count = slot.line.count.saturating_add(1);
            slot.line.last = event.at;
            slot.line.event = event;
            return Added { line: slot.line.clone(), is_new: false, evicted: None };
        }
        let evicted = if self.by_id.len() >= self.capacity { self.evict_oldest() } else { None };
        let id = self.next_id;
        self.next_id += 1;
        let line = MergedEvent { id, count: 1, first: event.at, last: event.at, event };
        self.by_key.insert(key.clone(), id);
        self.by_touch.insert(touch, id);
        self.by_id.insert(id, Slot { line: line.clone(), key, touch });
        Added { line, is_new: true, evicted }
    }

    /// Removes the lines last touched before `moment` (the API server forgets events after an hour).
    pub fn expire_before(&mut self, moment: Mono) -> Vec<MergedEvent> {
        let is_old = |line: &MergedEvent| line.last.mono < moment;
        let mut gone = Vec::new();
        while self.iter().next().is_some_and(is_old) {
            gone.extend(self.evict_oldest());
        }
        self.similar.retain(|_, similar| similar.last >= moment);
        gone
    }

    /// Is this one too many of its kind? Counts it.
    fn is_flood(&mut self, event: &PodEvent) -> bool {
        if self.similar.len() >= self.capacity {
            let now = event.at.mono;
            self.similar.retain(|_, similar| now.since(similar.last) <= SIMILAR_WINDOW);
        }
        if self.similar.len() >= self.capacity {
            // Too many pods in trouble at once to watch all of them: their events stand alone.
            self.similar.clear();
        }
        let similar = self
            .similar
            .entry((event.pod, event.reason))
            .or_insert_with(|| Similar { messages: HashSet::new(), last: event.at.mono });
        if event.at.mono.since(similar.last) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = event.at.mono;
        if similar.messages.contains(&event.message) {
            return false;
        }
        if similar.messages.len() >= SIMILAR_MAX {
            return true;
        }
        similar.messages.insert(event.message.clone());
        false
    }

    fn evict_oldest(&mut self) -> Option<MergedEvent> {
        let (_, id) = self.by_touch.pop_first()?;
        let slot = self.by_id.remove(&id)?;
        self.by_key.remove(&slot.key);
        Some(slot.line)
    }
}
