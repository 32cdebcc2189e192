//! Which slots have something new: told by epoll through one waker for each slot, or by a push.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Every slot stands in it at most once. Only the ring's own thread touches it; the lock is for tokio, whose
/// wakers may be sent anywhere.
pub struct ReadyList {
    state: Mutex<State>,
}

struct State {
    slots: Vec<u32>,
    is_listed: Vec<bool>,
    /// The future that waits for slots, while there is one.
    sleeper: Option<Waker>,
}

struct SlotWaker {
    list: Arc<ReadyList>,
    index: u32,
}

impl ReadyList {
    pub fn new(slots: u32) -> ReadyList {
        let slots = slots as usize;
        let state = State { slots: Vec::with_capacity(slots), is_listed: vec![false; slots], sleeper: None };
        ReadyList { state: Mutex::new(state) }
    }

    /// Adds the slot of this index when it is woken.
    pub fn waker(list: &Arc<ReadyList>, index: u32) -> Waker {
        Waker::from(Arc::new(SlotWaker { list: list.clone(), index }))
    }

    /// Something was pushed on the slot, or epoll has told of it.
    pub fn add(&self, index: u32) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.is_listed[index as usize], true) {
            state.slots.push(index);
        }
        let sleeper = state.sleeper.take();
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Moves all into `batch`, which is empty; `sleeper` is woken by the next one.
    pub fn take(&self, batch: &mut Vec<u32>, sleeper: &Waker) {
        let mut state = self.lock();
        std::mem::swap(&mut state.slots, batch);
        for index in &*batch {
            state.is_listed[*index as usize] = false;
        }
        match &mut state.sleeper {
            Some(known) => known.clone_from(sleeper),
            unknown => *unknown = Some(sleeper.clone()),
        }
    }

    /// Nobody waits any more: the next one only stands in the list.
    pub fn forget_sleeper(&self) {
        self.lock().sleeper = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.list.add(self.index);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.list.add(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_slot_is_listed_once_and_the_sleeper_woken_once() {
        let list = Arc::new(ReadyList::new(4));
        let count = Arc::new(Count::default());
        let sleeper = Waker::from(count.clone());
        let mut batch = Vec::new();
        list.add(3);
        list.take(&mut batch, &sleeper);
        assert_eq!(batch, [3]);
        batch.clear();
        let told = ReadyList::waker(&list, 1);
        told.wake_by_ref();
        told.wake_by_ref();
        list.add(2);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        list.take(&mut batch, &sleeper);
        assert_eq!(batch, [1, 2]);
        list.forget_sleeper();
        told.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
