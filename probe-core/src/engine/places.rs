//! Places of calls in flight (gRPC): who has one, who waits, and in which order.
//!
//! A place is held until the call ends, and a mute target holds it for a whole timeout. So no pod may have more than its
//! share: what goes beyond waits behind the pod's own calls, and keeps nobody else.

use std::collections::{HashMap, VecDeque};

use super::targets::Job;
use crate::model::id::PodUid;
use crate::model::limits::{GRPC_CALLS_MAX, GRPC_POD_CALLS_MAX};

/// Whose share of the places a call is part of.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Holder {
    Pod(PodUid),
    /// All calls outside of any schedule.
    Onces,
}

/// Due calls, until they have ended or nobody wants them.
#[derive(Default)]
pub struct Places {
    in_flight: usize,
    /// Of shares with room, in the order in which they came.
    ready: VecDeque<(Holder, Job)>,
    /// Without those of `ready`.
    waiting: usize,
    shares: HashMap<Holder, Share>,
}

/// One that admits nobody any more is removed.
#[derive(Default)]
struct Share {
    /// In flight, or ready for it.
    admitted: usize,
    waiting: VecDeque<Job>,
}

impl Places {
    /// A call is due.
    pub fn ask(&mut self, holder: Holder, job: Job) {
        let share = self.shares.entry(holder).or_default();
        if share.admitted < GRPC_POD_CALLS_MAX {
            share.admitted += 1;
            self.ready.push_back((holder, job));
        } else {
            share.waiting.push_back(job);
            self.waiting += 1;
        }
    }

    /// The next call to begin. It holds its place until [`Places::give_back`].
    pub fn take(&mut self) -> Option<(Holder, Job)> {
        if self.in_flight >= GRPC_CALLS_MAX {
            return None;
        }
        let next = self.ready.pop_front()?;
        self.in_flight += 1;
        Some(next)
    }

    /// A call in flight has ended.
    pub fn give_back(&mut self, holder: Holder) {
        self.in_flight -= 1;
        self.leave(holder);
    }

    /// Nobody wants this call any more, which waits.
    pub fn forget(&mut self, holder: Holder, job: Job) {
        let Some(share) = self.shares.get_mut(&holder) else { return };
        if let Some(at) = share.waiting.iter().position(|waiting| *waiting == job) {
            share.waiting.remove(at);
            self.waiting -= 1;
        } else if let Some(at) = self.ready.iter().position(|(_, ready)| *ready == job) {
            self.ready.remove(at);
            self.leave(holder);
        }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Due calls without a place.
    pub fn waiting(&self) -> usize {
        self.ready.len() + self.waiting
    }

    /// The share has room for one more.
    fn leave(&mut self, holder: Holder) {
        let Some(share) = self.shares.get_mut(&holder) else { return };
        if let Some(job) = share.waiting.pop_front() {
            self.waiting -= 1;
            self.ready.push_back((holder, job));
            return;
        }
        share.admitted -= 1;
        if share.admitted == 0 {
            self.shares.remove(&holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::ProbeKey;

    const POD: Holder = Holder::Pod(PodUid(1));

    fn job(index: usize) -> Job {
        Job::Probe { key: ProbeKey { executor: 0, index: index as u32 }, generation: 1 }
    }

    fn take_all(places: &mut Places) -> Vec<Job> {
        std::iter::from_fn(|| places.take().map(|(_, job)| job)).collect()
    }

    #[test]
    fn a_pod_beyond_its_share_keeps_nobody_else() {
        let mut places = Places::default();
        (0..GRPC_CALLS_MAX).for_each(|index| places.ask(POD, job(index)));
        places.ask(Holder::Onces, job(9_999));
        let began = take_all(&mut places);
        assert_eq!(began.len(), GRPC_POD_CALLS_MAX + 1);
        assert_eq!(began.last(), Some(&job(9_999)));
        assert_eq!(places.waiting(), GRPC_CALLS_MAX - GRPC_POD_CALLS_MAX);
        // The pod's own calls come one by one as earlier ones end.
        places.give_back(POD);
        assert_eq!(take_all(&mut places), [job(GRPC_POD_CALLS_MAX)]);
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let mut places = Places::default();
        for index in 0..2 * GRPC_CALLS_MAX {
            places.ask(Holder::Pod(PodUid(index as u128)), job(index));
        }
        assert_eq!(take_all(&mut places).len(), GRPC_CALLS_MAX);
        places.give_back(Holder::Pod(PodUid(0)));
        assert_eq!(take_all(&mut places), [job(GRPC_CALLS_MAX)], "the one that came first");
    }

    #[test]
    fn what_is_forgotten_never_begins_and_leaves_nothing() {
        let mut places = Places::default();
        let many = GRPC_POD_CALLS_MAX + 2;
        (0..many).for_each(|index| places.ask(POD, job(index)));
        // One that waits behind its pod's share, and one that has only to be taken: its room goes to the last one.
        places.forget(POD, job(many - 2));
        places.forget(POD, job(0));
        let began = take_all(&mut places);
        let wanted: Vec<_> = (1..many - 2).chain([many - 1]).map(job).collect();
        assert_eq!(began, wanted);
        began.iter().for_each(|_| places.give_back(POD));
        assert_eq!((places.in_flight(), places.waiting(), places.shares.len()), (0, 0, 0));
    }
}
