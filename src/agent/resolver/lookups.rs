//! Which questions for host names are looked up, in which order, and who shares a look-up.
//!
//! A name server that does not answer holds a thread for many seconds, since the system's resolver cannot be stopped. So
//! no pod has more than its share of the threads, and the pods that wait take turns. As in Go's resolver, whoever asks
//! for a name that is being looked up shares that, while somebody still waits for it: a look-up that all have given up
//! may have lost its packet, and would fail one run after the other. A pod that has no thread left for another look-up of
//! the same name shares such a one all the same; the last thread of its share is for names that have none.
//!
//! Probes come back with their periods, so names that hang could meet free threads in every period and others in none. So a
//! name whose last look-up ended when nobody waited any more is slow: it leaves the last thread of its pod, and some of all, to
//! others. And a question keeps its place for a while after its run has given up.

use std::collections::VecDeque;

use probe_core::model::id::PodUid;
use probe_core::model::limits::{
    RESOLVER_PLACE_KEPT, RESOLVER_POD_THREADS, RESOLVER_QUEUE_MAX, RESOLVER_SHARERS_MAX, RESOLVER_SLOW_MAX,
    RESOLVER_THREADS,
};
use probe_core::model::time::Mono;

/// A question, and who is to be told.
pub struct Question<A> {
    pub host: Box<str>,
    /// Whose probe asks; None for one by hand or a hook. All of these count as one pod.
    pub pod: Option<PodUid>,
    pub asked_at: Mono,
    /// From then on nobody waits for it.
    pub until: Mono,
    pub asker: A,
}

/// What became of a question.
#[derive(PartialEq, Eq, Debug)]
pub enum Asked<'a, A> {
    /// It shares a look-up that has begun.
    Shares(&'a A),
    Waits,
}

/// Names a look-up that has begun.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FlightId(u64);

/// All questions without an answer.
pub struct Lookups<A> {
    /// Those that wait. The first pod that may have another thread has the next turn.
    turns: VecDeque<Turn<A>>,
    /// Look-ups that have begun, the oldest first: one for each thread at most.
    flights: Vec<Flight<A>>,
    next_flight: u64,
    /// Names whose last look-up ended when nobody waited any more, the latest last.
    slow: VecDeque<Box<str>>,
}

/// The questions of one pod that wait: at least one.
struct Turn<A> {
    pod: Option<PodUid>,
    questions: VecDeque<Question<A>>,
}

struct Flight<A> {
    id: FlightId,
    host: Box<str>,
    /// On whose share it is.
    pod: Option<PodUid>,
    questions: Vec<Question<A>>,
}

impl<A> Default for Lookups<A> {
    fn default() -> Self {
        Lookups { turns: VecDeque::new(), flights: Vec::new(), next_flight: 0, slow: VecDeque::new() }
    }
}

impl<A> Lookups<A> {
    /// Makes room for one more question. Where too many wait, the pod with the most of them loses its last one, which
    /// comes back.
    #[must_use]
    pub fn make_room(&mut self, now: Mono) -> Option<Question<A>> {
        if self.waiting() < RESOLVER_QUEUE_MAX {
            return None;
        }
        self.forget(|question| question.until > now);
        if self.waiting() < RESOLVER_QUEUE_MAX {
            return None;
        }
        let refused = self.turns.iter_mut().max_by_key(|turn| turn.questions.len())?.questions.pop_back();
        self.turns.retain(|turn| !turn.questions.is_empty());
        refused
    }

    /// Takes a question in, after [`Lookups::make_room`].
    pub fn ask(&mut self, now: Mono, question: Question<A>) -> Asked<'_, A> {
        let may_begin = self.may_begin(question.pod, &question.host);
        let mut flights = self.flights.iter_mut().rev().filter(|flight| flight.host == question.host);
        let shared = flights.find_map(|flight| {
            if flight.questions.len() >= RESOLVER_SHARERS_MAX {
                flight.questions.retain(|question| question.until > now);
            }
            let has_room = flight.questions.len() < RESOLVER_SHARERS_MAX;
            (has_room && (!may_begin || flight.is_awaited(now))).then_some(flight)
        });
        if let Some(flight) = shared {
            let at = flight.questions.len();
            flight.questions.push(question);
            return Asked::Shares(&flight.questions[at].asker);
        }
        match self.turns.iter_mut().find(|turn| turn.pod == question.pod) {
            Some(turn) => turn.questions.push_back(question),
            None => self.turns.push_back(Turn { pod: question.pod, questions: [question].into() }),
        }
        Asked::Waits
    }

    /// The next host name to look up, which whoever takes it does until [`Lookups::done`].
    pub fn take(&mut self, now: Mono) -> Option<(FlightId, Box<str>)> {
        self.forget(|question| question.until.after(RESOLVER_PLACE_KEPT) > now);
        let (at, place) = self.turns.iter().enumerate().find_map(|(at, turn)| {
            let place =
                turn.questions.iter().position(|question| self.may_begin(turn.pod, &question.host))?;
            Some((at, place))
        })?;
        let mut turn = self.turns.remove(at)?;
        let pod = turn.pod;
        let first = turn.questions.remove(place)?;
        if !turn.questions.is_empty() {
            self.turns.push_back(turn);
        }
        let host = first.host.clone();
        let mut questions = vec![first];
        questions.extend(self.take_waiting(&host, RESOLVER_SHARERS_MAX - 1));
        for question in questions.iter_mut().filter(|question| question.until > now) {
            // Until now their time stood still.
            question.until = question.until.after(now.since(question.asked_at));
        }
        let id = FlightId(self.next_flight);
        self.next_flight += 1;
        self.flights.push(Flight { id, host: host.clone(), pod, questions });
        Some((id, host))
    }

    /// Who waits for this look-up.
    pub fn askers(&self, id: FlightId) -> impl Iterator<Item = &A> {
        let flight = self.flights.iter().find(|flight| flight.id == id);
        flight.into_iter().flat_map(|flight| flight.questions.iter().map(|question| &question.asker))
    }

    /// A look-up has ended. Comes back who is to be told: an address is news to all that ask for this name, an error only
    /// to those that waited for this look-up.
    pub fn done(&mut self, now: Mono, id: FlightId, is_found: bool) -> Vec<A> {
        let Some(at) = self.flights.iter().position(|flight| flight.id == id) else { return Vec::new() };
        let flight = self.flights.remove(at);
        let is_slow = !flight.is_awaited(now);
        let Flight { host, mut questions, .. } = flight;
        self.slow.retain(|slow| *slow != host);
        if is_slow {
            if self.slow.len() >= RESOLVER_SLOW_MAX {
                self.slow.pop_front();
            }
            self.slow.push_back(host.clone());
        }
        if is_found {
            for other in self.flights.iter_mut().filter(|flight| flight.host == host) {
                questions.append(&mut other.questions);
            }
            questions.extend(self.take_waiting(&host, RESOLVER_QUEUE_MAX));
        }
        questions.into_iter().map(|question| question.asker).collect()
    }

    /// Questions whose look-up has not begun.
    pub fn waiting(&self) -> usize {
        self.turns.iter().map(|turn| turn.questions.len()).sum()
    }

    /// Whether the pod may have one more look-up, of this name.
    fn may_begin(&self, pod: Option<PodUid>, host: &str) -> bool {
        let of_pod = || self.flights.iter().filter(|flight| flight.pod == pod);
        let of_name = self.flights.iter().filter(|flight| *flight.host == *host).count();
        let is_another = of_pod().any(|flight| *flight.host == *host);
        let is_slow = self.slow.iter().any(|slow| **slow == *host);
        let spared = if is_slow { RESOLVER_POD_THREADS } else { 0 };
        of_pod().count() + usize::from(is_another || is_slow) < RESOLVER_POD_THREADS
            && of_name < RESOLVER_POD_THREADS - 1
            && self.flights.len() + spared < RESOLVER_THREADS
    }

    /// Drops the waiting questions that have no place any more.
    fn forget(&mut self, has_place: impl Fn(&Question<A>) -> bool) {
        for turn in &mut self.turns {
            turn.questions.retain(&has_place);
        }
        self.turns.retain(|turn| !turn.questions.is_empty());
    }

    /// Takes up to `max` waiting questions for this name, whosever they are.
    fn take_waiting(&mut self, host: &str, max: usize) -> Vec<Question<A>> {
        let mut taken = Vec::new();
        for turn in &mut self.turns {
            for _ in 0..turn.questions.len() {
                let Some(question) = turn.questions.pop_front() else { break };
                if *question.host == *host && taken.len() < max {
                    taken.push(question);
                } else {
                    turn.questions.push_back(question);
                }
            }
        }
        self.turns.retain(|turn| !turn.questions.is_empty());
        taken
    }
}

impl<A> Flight<A> {
    fn is_awaited(&self, now: Mono) -> bool {
        self.questions.iter().any(|question| question.until > now)
    }
}
