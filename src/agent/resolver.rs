//! Host name look-ups for the engine, off its shards.
//!
//! A shard must not wait for a name server, so it asks here and goes on. The system's resolver is asked
//! anew for every run and nothing is cached (kubelet-semantics 3.2); `lookups` decides what comes next.

mod lookups;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use lookups::{Asked, FlightId, Lookups};
use probe_core::engine;
use probe_core::model::id::{PodUid, Ticket};
use probe_core::model::limits::RESOLVER_THREADS;
use probe_core::model::probe::{LookupError, ProbeCmd, Verdict};
use probe_core::model::time::Mono;
use probe_core::sys::clock;

/// One question, and where its answer goes.
pub struct Question {
    pub ticket: Ticket,
    pub host: Box<str>,
    /// See [`probe_core::model::probe::ProbeEvent::Resolve`].
    pub until: Mono,
    pub pod: Option<PodUid>,
    /// Must not wait.
    pub answer_to: Box<dyn Fn(ProbeCmd) + Send>,
}

/// Hands questions to the look-up threads. They end when the last clone is dropped, each behind the look-up that it is at.
#[derive(Clone)]
pub struct Resolver {
    door: Arc<Door>,
}

/// The asking side. Dropped with the last clone.
struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A question waits, or it is over.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lookups: Lookups<Asker>,
    is_over: bool,
}

struct Asker {
    ticket: Ticket,
    answer_to: Box<dyn Fn(ProbeCmd) + Send>,
}

impl Resolver {
    /// Starts the look-up threads.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start() -> std::io::Result<(Resolver, Vec<JoinHandle<()>>)> {
        Resolver::with(engine::resolve)
    }

    fn with(
        resolve: impl Fn(&str) -> Result<IpAddr, LookupError> + Clone + Send + 'static,
    ) -> std::io::Result<(Resolver, Vec<JoinHandle<()>>)> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let resolver = Resolver { door: Arc::new(Door { shared: Arc::clone(&shared) }) };
        let threads = (0..RESOLVER_THREADS)
            .map(|n| {
                let (shared, resolve) = (Arc::clone(&shared), resolve.clone());
                let body = move || shared.look_up_all(&resolve);
                thread::Builder::new().name(format!("resolver-{n}")).spawn(body)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok((resolver, threads))
    }

    /// Asks. The answer comes to `question.answer_to` from another thread, or never when the time is over before its
    /// turn comes.
    pub fn ask(&self, question: Question) {
        let Question { ticket, host, until, pod, answer_to } = question;
        let shared = &self.door.shared;
        let mut state = shared.state();
        let now = clock::now().mono;
        if let Some(refused) = state.lookups.make_room(now) {
            refused.asker.answer(Err(crowded(&refused.host)));
        }
        let asker = Asker { ticket, answer_to };
        let question = lookups::Question { host, pod, asked_at: now, until, asker };
        match state.lookups.ask(now, question) {
            // Told before anybody can answer.
            Asked::Shares(asker) => asker.tell_begun(),
            Asked::Waits => shared.changed.notify_one(),
        }
    }
}

/// Our own queue is full, with which the target has nothing to do; with the cure.
fn crowded(host: &str) -> LookupError {
    let text = format!("lookup {host}: too many look-ups are waiting: give probes of names longer periods");
    LookupError { verdict: Verdict::Errored, text: text.into() }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics with the lock held; what is there is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up_all(&self, resolve: impl Fn(&str) -> Result<IpAddr, LookupError>) {
        while let Some((id, host)) = self.next() {
            let addr = resolve(&host);
            let askers = self.state().lookups.done(clock::now().mono, id, addr.is_ok());
            for asker in askers {
                asker.answer(addr.clone());
            }
        }
    }

    /// Waits for a name to look up; None when it is over.
    fn next(&self) -> Option<(FlightId, Box<str>)> {
        let mut state = self.state();
        while !state.is_over {
            if let Some((id, host)) = state.lookups.take(clock::now().mono) {
                state.lookups.askers(id).for_each(Asker::tell_begun);
                if state.lookups.waiting() > 0 {
                    // What has ended may have made room for more than one.
                    self.changed.notify_one();
                }
                return Some((id, host));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

impl Asker {
    fn tell_begun(&self) {
        (self.answer_to)(ProbeCmd::Resolving { ticket: self.ticket });
    }

    fn answer(&self, addr: Result<IpAddr, LookupError>) {
        (self.answer_to)(ProbeCmd::Resolved { ticket: self.ticket, addr });
    }
}
