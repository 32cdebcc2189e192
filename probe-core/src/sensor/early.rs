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
    /// What a look at the container said. After the last of [`OOM_LOOKS`] it is let go.
    pub fn set(&mut self, key: Key, next: Next, now: Mono) {
        let number = match (next, self.waiting.get(&key)) {
            (Next::Nothing, _) => return,
            (Next::Settled, _) => {
                self.waiting.remove(&key);
                return;
            }
            (Next::LookAgain, None) => 0,
            // Something else happened to it meanwhile: the look that was planned stays.
            (Next::LookAgain, Some(look)) if look.at > now => return,
            (Next::LookAgain, Some(look)) => look.number + 1,
        };
        match OOM_LOOKS.get(number) {
            Some(wait) => drop(self.waiting.insert(key, Look { at: now.after(*wait), number })),
            None => drop(self.waiting.remove(&key)),
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
        early.set(key, Next::LookAgain, now);
        assert_eq!(early.next(), None, "let go");
        early.set(key, Next::LookAgain, now);
        early.set(key, Next::Nothing, now);
        assert!(early.next().is_some(), "still planned");
        early.set(key, Next::Settled, now);
        assert_eq!(early.next(), None, "nothing more to see");
    }
}
