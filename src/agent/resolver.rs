//! Host name look-ups for the engine, off its shards.
//!
//! A shard must not wait for a name server, so it asks here and goes on. The system's resolver is asked
//! anew for every run and nothing is cached (kubelet-semantics 3.2).

use std::net::ToSocketAddrs;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use probe_core::model::id::Ticket;
use probe_core::model::probe::ProbeCmd;

/// Look-ups that run at the same time. A name server that does not answer holds one for its own timeout.
const RESOLVER_THREADS: usize = 4;
/// Look-ups that wait. Beyond it a run fails at once, with a text that says so.
const RESOLVER_QUEUE_MAX: usize = 4_096;

/// One question, and where its answer goes.
pub struct Question {
    pub ticket: Ticket,
    pub host: Box<str>,
    pub answer_to: Box<dyn Fn(ProbeCmd) + Send>,
}

/// Hands questions to the look-up threads. They end when the last clone is dropped.
#[derive(Clone)]
pub struct Resolver {
    questions: Sender<Question>,
}

impl Resolver {
    /// Starts the look-up threads.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start() -> std::io::Result<(Resolver, Vec<JoinHandle<()>>)> {
        let (questions, inbox) = channel::bounded(RESOLVER_QUEUE_MAX);
        let threads = (0..RESOLVER_THREADS)
            .map(|n| {
                let inbox = inbox.clone();
                thread::Builder::new().name(format!("resolver-{n}")).spawn(move || answer_all(&inbox))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok((Resolver { questions }, threads))
    }

    /// Asks; the answer comes to `question.answer_to` from another thread, or from this one when too
    /// many look-ups wait already.
    pub fn ask(&self, question: Question) {
        if let Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) =
            self.questions.try_send(question)
        {
            let error = format!("lookup {}: too many look-ups are waiting", question.host);
            (question.answer_to)(ProbeCmd::Resolved { ticket: question.ticket, addr: Err(error.into()) });
        }
    }
}

fn answer_all(inbox: &Receiver<Question>) {
    for question in inbox {
        let addr = match (&*question.host, 0u16).to_socket_addrs() {
            Ok(mut found) => found
                .next()
                .map(|addr| addr.ip())
                .ok_or_else(|| format!("lookup {}: no such host", question.host).into()),
            // Go's words for the usual case (kubelet-semantics 4.5); the rest in the system's words.
            Err(_) => Err(format!("lookup {}: no such host", question.host).into()),
        };
        (question.answer_to)(ProbeCmd::Resolved { ticket: question.ticket, addr });
    }
}
