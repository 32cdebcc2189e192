//! Containers that are looked at again soon, because what happened to them was not certain yet.

use std::collections::BTreeMap;

use super::source::Key;
use super::watched::Next;
use crate::model::limits::OOM_LOOKS;
use crate::model::time::Mono;

/// At most one entry for each container.
#[derive(Default, Debug)]
pub(super) struct Early {
    waiting: BTreeMap<Key, Look>,
}

#[derive(Copy, Clone, Debug)]
struct Look {
    at: Mono,
    /// Looks so far.
    number: usize,
}

impl Early {
    /// Something new has happened to the container: its looks begin again.
    pub fn forget(&mut self, key: Key) {
        self.waiting.remove(&key);
    }

    /// What a look at the container said. False after the last of [`OOM_LOOKS`]: it is let go.
    pub fn set(&mut self, key: Key, next: Next, now: Mono) -> bool {
        let number = match (next, self.waiting.get(&key)) {
            (Next::Nothing, _) => return true,
            (Next::Settled, _) => {
                self.waiting.remove(&key);
                return true;
            }
            (Next::LookAgain, None) => 0,
            // Something else happened to it meanwhile: the look that was planned stays.
            (Next::LookAgain, Some(look)) if look.at > now => return true,
            (Next::LookAgain, Some(look)) => look.number + 1,
        };
        match OOM_LOOKS.get(number) {
            Some(wait) => {
                self.waiting.insert(key, Look { at: now.after(*wait), number });
                true
            }
            None => {
                self.waiting.remove(&key);
                false
            }
        }
    }

    /// When the next look is due.
    pub fn next(&self) -> Option<Mono> {
        self.waiting.values().map(|look| look.at).min()
    }

    /// Those that are due. [`Early::set`] must follow for each.
    pub fn due(&self, now: Mono) -> Vec<Key> {
        let due = self.waiting.iter().filter(|(_, look)| look.at <= now);
        due.map(|(key, _)| *key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_further_and_further_apart_and_end() {
        let mut early = Early::default();
        let (key, mut now) = (Key(7), Mono::from_ns(1_000));
        assert_eq!(early.next(), None);
        for wait in OOM_LOOKS {
            early.set(key, Next::LookAgain, now);
            let due = now.after(wait);
            assert_eq!((early.next(), early.due(now)), (Some(due), Vec::new()));
            // A busy thread that comes by earlier uses no look up.
            early.set(key, Next::LookAgain, now);
            assert_eq!(early.next(), Some(due));
            now = due;
            assert_eq!(early.due(now), [key]);
        }
        assert!(!early.set(key, Next::LookAgain, now));
        assert_eq!(early.next(), None, "let go");
        early.set(key, Next::LookAgain, now);
        early.set(key, Next::LookAgain, now.after(OOM_LOOKS[0]));
        early.forget(key);
        early.set(key, Next::LookAgain, now);
        assert_eq!(early.next(), Some(now.after(OOM_LOOKS[0])), "from the beginning");
        early.set(key, Next::LookAgain, now);
        early.set(key, Next::Nothing, now);
        assert!(early.next().is_some(), "still planned");
        early.set(key, Next::Settled, now);
        assert_eq!(early.next(), None, "nothing more to see");
    }
}
