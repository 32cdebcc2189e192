//! The timers of a shard: a hierarchical wheel (Varghese and Lauck 1987), every operation O(1).
//!
//! Six levels of 64 places; a place of the lowest level is one tick, a place of each further level covers a
//! whole turn of the level below. A timer sits on the level of the highest bits in which its tick differs
//! from the wheel's, and moves down as that moment comes near. Timers fire when their deadline has passed,
//! to the nanosecond; only the wake-up is rounded up to ticks, so that many share one.

use super::targets::grow;
use crate::model::time::Mono;

const LEVELS: usize = 6;
const PLACE_BITS: u32 = 6;
const PLACES: usize = 1 << PLACE_BITS;
/// One tick is 2^18 ns, 262 µs.
const TICK_BITS: u32 = 18;
/// Farthest that a timer is placed, in ticks (about 200 days); a later one is looked at again then.
const REACH_TICKS: u64 = (1 << (PLACE_BITS * LEVELS as u32)) - (2 << (PLACE_BITS * (LEVELS as u32 - 1)));
const NONE: u32 = u32::MAX;

/// Handle of a pending timer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

/// Timers that carry a `T`.
pub struct Wheel<T> {
    /// The tick up to which places were emptied.
    tick: u64,
    nodes: Vec<Node<T>>,
    /// Head of the list of unused nodes.
    free: u32,
    lists: [[List; PLACES]; LEVELS],
    /// One bit per place that has timers.
    occupied: [u64; LEVELS],
    len: usize,
}

struct Node<T> {
    deadline: Mono,
    generation: u32,
    prev: u32,
    next: u32,
    level: u8,
    place: u8,
    /// None: unused.
    value: Option<T>,
}

#[derive(Copy, Clone)]
struct List {
    first: u32,
    last: u32,
}

impl<T> Wheel<T> {
    pub fn new() -> Wheel<T> {
        let empty = List { first: NONE, last: NONE };
        Wheel {
            tick: 0,
            nodes: Vec::new(),
            free: NONE,
            lists: [[empty; PLACES]; LEVELS],
            occupied: [0; LEVELS],
            len: 0,
        }
    }

    /// Takes the memory for so many timers, so that setting one of them takes none.
    pub fn reserve(&mut self, timers: usize) {
        grow(&mut self.nodes, timers);
    }

    /// Timers pending.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Sets a timer. A deadline that has passed fires at the next [`Wheel::expire`].
    pub fn insert(&mut self, deadline: Mono, value: T) -> TimerId {
        let index = self.take_node(deadline, value);
        self.place(index);
        self.len += 1;
        TimerId { index, generation: self.nodes[index as usize].generation }
    }

    /// Takes a timer back; None when it has fired or was taken back before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let node = self.nodes.get(id.index as usize)?;
        if node.generation != id.generation || node.value.is_none() {
            return None;
        }
        self.unlink(id.index);
        self.release_node(id.index)
    }

    /// Moves every timer whose deadline is at or before `now` into `fired`. Those of one tick come in the
    /// order in which they were set, ticks in their order.
    pub fn expire(&mut self, now: Mono, fired: &mut Vec<T>) {
        let target = tick_of(now).max(self.tick);
        while let Some((level, place, start)) = self.next_place().filter(|(_, _, start)| *start <= target) {
            self.tick = self.tick.max(start);
            let list = self.empty_place(level, place);
            let is_partial = level == 0 && start == target;
            self.fire_or_replace(list, now, fired);
            if is_partial {
                break;
            }
        }
        self.tick = target;
    }

    /// When to call [`Wheel::expire`] next: less than a tick after the earliest deadline, or earlier;
    /// [`Mono::MAX`] when nothing is pending.
    pub fn next_wake(&self) -> Mono {
        match self.next_place() {
            // The whole place is due at its end.
            Some((0, _, start)) => Mono::from_ns((start + 1) << TICK_BITS),
            Some((_, _, start)) => Mono::from_ns(start << TICK_BITS),
            None => Mono::MAX,
        }
    }

    /// The first occupied place: level, place and the tick at which it begins.
    fn next_place(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS).filter(|level| self.occupied[*level] != 0).map(|level| self.next_of_level(level)).next()
    }

    fn next_of_level(&self, level: usize) -> (usize, usize, u64) {
        let shift = PLACE_BITS * level as u32;
        let current = self.tick >> shift;
        let current_place = (current % PLACES as u64) as u32;
        let ahead = self.occupied[level].rotate_right(current_place).trailing_zeros();
        let place = (current_place + ahead) as usize % PLACES;
        (level, place, (current + u64::from(ahead)) << shift)
    }

    fn empty_place(&mut self, level: usize, place: usize) -> u32 {
        let list = &mut self.lists[level][place];
        let first = list.first;
        *list = List { first: NONE, last: NONE };
        self.occupied[level] &= !(1 << place);
        first
    }

    /// Goes through a list taken out of its place: fires what is due, places the rest anew.
    fn fire_or_replace(&mut self, first: u32, now: Mono, fired: &mut Vec<T>) {
        let mut index = first;
        while index != NONE {
            let node = &self.nodes[index as usize];
            let (next, is_due) = (node.next, node.deadline <= now);
            if is_due {
                fired.extend(self.release_node(index));
            } else {
                self.place(index);
            }
            index = next;
        }
    }

    /// Links a node into the place that its deadline asks for.
    fn place(&mut self, index: u32) {
        let when = tick_of(self.nodes[index as usize].deadline).clamp(self.tick, self.tick + REACH_TICKS);
        let differing = (self.tick ^ when) | (PLACES as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / PLACE_BITS).min(LEVELS as u32 - 1);
        let place = (when >> (PLACE_BITS * level)) as usize % PLACES;
        let list = &mut self.lists[level as usize][place];
        let last = list.last;
        list.last = index;
        if last == NONE {
            list.first = index;
        }
        self.occupied[level as usize] |= 1 << place;
        if let Some(before) = self.nodes.get_mut(last as usize) {
            before.next = index;
        }
        let node = &mut self.nodes[index as usize];
        (node.prev, node.next, node.level, node.place) = (last, NONE, level as u8, place as u8);
    }

    fn unlink(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let (prev, next, level, place) =
            (node.prev, node.next, usize::from(node.level), usize::from(node.place));
        match self.nodes.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => self.lists[level][place].first = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(after) => after.prev = prev,
            None => self.lists[level][place].last = prev,
        }
        if self.lists[level][place].first == NONE {
            self.occupied[level] &= !(1 << place);
        }
    }

    fn take_node(&mut self, deadline: Mono, value: T) -> u32 {
        if let Some(node) = self.nodes.get_mut(self.free as usize) {
            let index = self.free;
            self.free = node.next;
            node.deadline = deadline;
            node.value = Some(value);
            return index;
        }
        let index =
            u32::try_from(self.nodes.len()).expect("timers are fewer than 2^32: one or two per probe");
        let node =
            Node { deadline, generation: 0, prev: NONE, next: NONE, level: 0, place: 0, value: Some(value) };
        self.nodes.push(node);
        index
    }

    fn release_node(&mut self, index: u32) -> Option<T> {
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.wrapping_add(1);
        node.next = self.free;
        self.free = index;
        self.len -= 1;
        node.value.take()
    }
}

fn tick_of(at: Mono) -> u64 {
    at.as_ns() >> TICK_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// Set a timer so many nanoseconds from now.
        Insert(u64),
        /// Take back one of those set so far.
        Cancel(usize),
        /// Let so many nanoseconds pass.
        Pass(u64),
    }

    fn any_ns() -> impl Strategy<Value = u64> {
        // Every order of magnitude up to weeks, and the odd very long one.
        prop_oneof![(0_u32..50).prop_flat_map(|bits| 0..1_u64 << bits), Just(u64::MAX >> 4)]
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any_ns().prop_map(Step::Insert),
            1 => (0_usize..64).prop_map(Step::Cancel),
            3 => (0_u32..50).prop_flat_map(|bits| 0..1_u64 << bits).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(start_ns in any_ns(), steps in prop::collection::vec(any_step(), 1..120)) {
            let mut wheel = Wheel::new();
            let mut now = Mono::from_ns(start_ns);
            wheel.expire(now, &mut Vec::new());
            let mut model: BTreeMap<(Mono, usize), ()> = BTreeMap::new();
            let mut ids: Vec<(TimerId, Mono)> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(ns) => {
                        let deadline = Mono::from_ns(now.as_ns().saturating_add(ns));
                        model.insert((deadline, ids.len()), ());
                        ids.push((wheel.insert(deadline, ids.len()), deadline));
                    }
                    Step::Cancel(pick) => {
                        if let Some((id, deadline)) = ids.get(pick).copied() {
                            let was_pending = model.remove(&(deadline, pick)).is_some();
                            prop_assert_eq!(wheel.cancel(id), was_pending.then_some(pick));
                        }
                    }
                    Step::Pass(ns) => {
                        now = Mono::from_ns(now.as_ns() + ns);
                        let mut fired = Vec::new();
                        wheel.expire(now, &mut fired);
                        fired.sort_unstable();
                        let later = model.split_off(&(Mono::from_ns(now.as_ns() + 1), 0));
                        let mut expected: Vec<usize> = model.keys().map(|(_, n)| *n).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(fired, expected);
                        model = later;
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.keys().next().map_or(Mono::MAX, |(deadline, _)| *deadline);
                let wake = wheel.next_wake();
                prop_assert!(wake.as_ns() <= earliest.as_ns().saturating_add(1 << TICK_BITS));
                prop_assert_eq!(wake == Mono::MAX, model.is_empty());
            }
        }
    }

    #[test]
    fn sleeping_until_the_next_wake_always_gets_on() {
        let mut wheel = Wheel::new();
        let far = Mono::from_ns(90 * 24 * 3_600 * 1_000_000_000);
        wheel.insert(far, ());
        let (mut now, mut fired, mut wakes) = (Mono::ZERO, Vec::new(), 0);
        while fired.is_empty() {
            assert!(wheel.next_wake() > now, "a wake-up in the past at {now:?}");
            now = wheel.next_wake();
            wheel.expire(now, &mut fired);
            wakes += 1;
        }
        assert!(now >= far && wakes <= LEVELS + 1, "{now:?} after {wakes} wake-ups");
    }

    #[test]
    fn a_place_is_due_as_a_whole_but_fires_to_the_nanosecond() {
        let mut wheel = Wheel::new();
        for ns in [1_000, 2_000] {
            wheel.insert(Mono::from_ns(ns), ns);
        }
        assert_eq!(wheel.next_wake(), Mono::from_ns(1 << TICK_BITS));
        let mut fired = Vec::new();
        wheel.expire(Mono::from_ns(1_500), &mut fired);
        assert_eq!(fired, [1_000]);
        wheel.expire(Mono::from_ns(2_000), &mut fired);
        assert_eq!(fired, [1_000, 2_000]);
    }
}
