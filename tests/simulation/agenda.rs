//! Things to happen at their time, and ways that messages travel with a delay.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use probe_core::model::time::Mono;

/// Items by time; equal times in the order in which they were put in.
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    count: u64,
}

struct Entry<T> {
    at: Mono,
    order: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> Agenda<T> {
    pub fn new() -> Agenda<T> {
        Agenda { heap: BinaryHeap::new(), count: 0 }
    }

    pub fn push(&mut self, at: Mono, item: T) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at, order: self.count, item }));
    }

    pub fn next_at(&self) -> Mono {
        self.heap.peek().map_or(Mono::MAX, |Reverse(entry)| entry.at)
    }

    pub fn take_due(&mut self, now: Mono) -> Option<(Mono, T)> {
        if self.next_at() > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.item))
    }
}

/// A queue between two threads: messages arrive in order, each after some delay.
pub struct Pipe<T> {
    queue: VecDeque<(Mono, T)>,
    latest: Mono,
}

impl<T> Pipe<T> {
    pub fn new() -> Pipe<T> {
        Pipe { queue: VecDeque::new(), latest: Mono::ZERO }
    }

    /// Returns when it will arrive.
    pub fn send(&mut self, now: Mono, delay: Duration, item: T) -> Mono {
        self.latest = self.latest.max(now.after(delay));
        self.queue.push_back((self.latest, item));
        self.latest
    }

    pub fn next_at(&self) -> Mono {
        self.queue.front().map_or(Mono::MAX, |(at, _)| *at)
    }

    pub fn take_due(&mut self, now: Mono) -> Option<T> {
        if self.next_at() > now {
            return None;
        }
        self.queue.pop_front().map(|(_, item)| item)
    }
}
