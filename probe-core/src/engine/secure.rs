//! The TLS part of a run: records go over the ring, their plain text to the same reader as any answer.
//!
//! The first bytes of the handshake take the place of the request in the run's chain. After that sends and receives
//! alternate: what a record asks for is sent first, then more is received.

use std::time::Duration;

use bytes::Bytes;

use super::io::Io;
use super::run::{Effects, Run};
use crate::decide::target;
use crate::model::limits::IDLE_RECORDS_MAX_BYTES;
use crate::model::probe::Verdict;
use crate::model::time::Mono;
use crate::model::tls::TlsTarget;
use crate::ring::{Op, OpKind, Ring};
use crate::wire::tls::{Session, TlsError};

/// TLS of one connection.
pub struct Secure {
    pub session: Session,
    /// What is being sent.
    pub outgoing: Bytes,
    pub idle: IdleBudget,
}

/// How much may come between two runs that is TLS's own business.
#[derive(Default)]
pub struct IdleBudget {
    taken_bytes: usize,
}

impl IdleBudget {
    /// Takes bytes from it; false when it is used up.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.taken_bytes = self.taken_bytes.saturating_add(bytes);
        self.taken_bytes <= IDLE_RECORDS_MAX_BYTES
    }
}

impl Secure {
    /// A handshake, with the request waiting for its end.
    pub fn begin(tls: &TlsTarget, request: &Bytes) -> Result<Secure, TlsError> {
        let mut secure =
            Secure { session: Session::new(tls)?, outgoing: Bytes::new(), idle: IdleBudget::default() };
        secure.request(request)?;
        Ok(secure)
    }

    /// Another request on the same connection.
    pub fn request(&mut self, request: &Bytes) -> Result<(), TlsError> {
        self.idle = IdleBudget::default();
        self.session.write(request)?;
        self.outgoing = self.session.take_outgoing().unwrap_or_default();
        Ok(())
    }
}

impl Run {
    /// Records have come: reads what is in them, then sends or receives on.
    pub(super) fn decrypt<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        loop {
            let Some(secure) = &mut self.secure else { return };
            match secure.session.receive(io.ring.answer(self.slot)) {
                Ok(used) => io.ring.drop_answer(self.slot, used),
                Err(error) => return self.tls_failed(io, now, &error, effects),
            }
            let is_full = secure.session.is_full();
            if !secure.session.plain().is_empty() {
                if self.is_unasked {
                    return self.try_anew(io, now, effects);
                }
                self.note_answer(now);
                if !self.read(io, now, effects) {
                    return;
                }
            }
            if !is_full {
                break;
            }
        }
        if self.is_session_over() {
            return self.stream_ended(io, now, effects);
        }
        if self.send_outgoing(io, now) {
            // How long these records waited for the shard is not the server's time. A handshake has few of them, and nothing
            // that comes later is answered before the next request (rustls keeps its new keys until then).
            self.give_back(io, self.received_at.map_or(Duration::ZERO, |at| now.since(at)));
            return;
        }
        if !io.is_pending(self.slot, OpKind::Send) {
            self.has_asked(io);
        }
        if !io.is_pending(self.slot, OpKind::Recv) {
            self.push_on_open(io, Op::Recv);
        }
    }

    /// Whether the server has said close_notify.
    pub(super) fn is_session_over(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.session.has_ended())
    }

    /// Sends what the session has to say. False: it has nothing, or must wait for the end of a send.
    pub(super) fn send_outgoing<R: Ring>(&mut self, io: &mut Io<R>, now: Mono) -> bool {
        let Some(secure) = &mut self.secure else { return false };
        if io.is_pending(self.slot, OpKind::Send) {
            return false;
        }
        let Some(bytes) = secure.session.take_outgoing() else { return false };
        secure.outgoing = bytes.clone();
        self.asked = None;
        self.sent = 0;
        self.sending_since = now;
        self.push_on_open(io, Op::Send { request: bytes, from: 0 });
        true
    }

    /// The session cannot go on. The server gets the alert that says why.
    pub(super) fn tls_failed<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        error: &TlsError,
        effects: &mut Effects,
    ) {
        if self.may_try_anew() {
            return self.try_anew(io, now, effects);
        }
        let plain = self.request().filter(|_| *error == TlsError::PlainHttp).and_then(target::without_tls);
        if let Some(plain) = plain {
            self.go_on(io, now, plain);
            return self.part(io, now, effects);
        }
        let text = error.to_string();
        match error {
            TlsError::Protocol(_) if self.answer.in_body() => {
                self.fell_silent(io, now, self.broken_body(), text, effects);
            }
            // An alert may say that the server would not wait for us any longer.
            TlsError::Protocol(_) => {
                let text = self.in_context(text);
                self.fell_silent(io, now, Verdict::Failure, text, effects);
            }
            TlsError::PlainHttp | TlsError::NotTls => {
                let text = self.in_context(text);
                self.finish(io, now, Verdict::Failure, text, effects);
            }
        }
        self.part(io, now, effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_may_say_so_much() {
        let mut budget = IdleBudget::default();
        for _ in 0..16 {
            assert!(budget.take(IDLE_RECORDS_MAX_BYTES / 16));
        }
        assert!(!budget.take(1));
        assert!(!budget.take(usize::MAX));
    }
}
