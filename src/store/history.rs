//! The latest changes of one kind of object, for those who watch.

use std::collections::VecDeque;

/// What happened to an object.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One change; `version` is the resourceVersion it was given.
#[derive(Clone, Debug)]
pub struct Change<T> {
    pub version: u64,
    pub kind: ChangeKind,
    /// The object as it is after the change, or as it last was when it is deleted.
    pub object: T,
    /// The object as it was, if something has changed that it can be selected by. Its version is this change's.
    pub before: Option<T>,
}

/// The watcher wants changes that are no longer kept (`410 Expired`): it has to list again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Expired {
    /// The oldest version that can still be watched from.
    pub oldest: u64,
}

/// Bounded by weight, in the order of versions.
#[derive(Debug)]
pub struct History<T> {
    weight_max: usize,
    weight: usize,
    changes: VecDeque<Kept<T>>,
    /// Every change after this version is still here.
    complete_after: u64,
}

#[derive(Debug)]
struct Kept<T> {
    change: Change<T>,
    weight: usize,
}

impl<T: Clone> History<T> {
    /// Nothing has happened since `version`. The newest change is kept whatever it weighs.
    pub fn new(version: u64, weight_max: usize) -> History<T> {
        History { weight_max, weight: 0, changes: VecDeque::new(), complete_after: version }
    }

    /// `change.version` is greater than all before it. `weight` says what it takes of the room, in the unit
    /// of the limit given to [`History::new`].
    pub fn push(&mut self, change: Change<T>, weight: usize) {
        debug_assert!(self.changes.back().is_none_or(|last| last.change.version < change.version));
        while self.weight + weight > self.weight_max {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.weight -= oldest.weight;
            self.complete_after = oldest.change.version;
        }
        self.weight += weight;
        self.changes.push_back(Kept { change, weight });
    }

    /// The changes after `version`, oldest first, at most `max`.
    ///
    /// # Errors
    /// [`Expired`] when some of them are gone.
    pub fn after(&self, version: u64, max: usize) -> Result<Vec<Change<T>>, Expired> {
        if version < self.complete_after {
            return Err(Expired { oldest: self.complete_after });
        }
        let start = self.changes.partition_point(|kept| kept.change.version <= version);
        Ok(self.changes.range(start..).take(max).map(|kept| kept.change.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_known_is_an_error() {
        let mut history = History::new(10, 3);
        assert_eq!(history.after(9, 9).unwrap_err(), Expired { oldest: 10 });
        for version in [11, 14, 15, 20] {
            history.push(Change { version, kind: ChangeKind::Added, object: (), before: None }, 1);
        }
        let versions = |after, max| {
            let found = history.after(after, max)?;
            Ok(found.iter().map(|change| change.version).collect::<Vec<_>>())
        };
        assert_eq!(versions(10, 9), Err(Expired { oldest: 11 }));
        assert_eq!(versions(11, 9), Ok(vec![14, 15, 20]));
        assert_eq!(versions(12, 2), Ok(vec![14, 15]));
        assert_eq!(versions(20, 9), Ok(vec![]));
        history.push(Change { version: 21, kind: ChangeKind::Added, object: (), before: None }, 2);
        let found = history.after(15, 9).unwrap();
        assert_eq!(found.iter().map(|change| change.version).collect::<Vec<_>>(), [20, 21]);
    }
}
