//! Connections that stay open between the runs of one probe, by annotation `keep-alive`.
//!
//! The run stays on its slot, idle, with a receive in flight that tells of the server's end. At most half of the
//! slots hold such a run; a probe that finds no place uses a new connection and says `Connection: close`.

use std::time::Duration;

use bytes::Bytes;

use super::io::Io;
use super::run::{Effects, Run, Stage, Then, Winding};
use super::targets::Job;
use crate::model::limits::KEPT_ONE_IN;
use crate::model::time::Mono;
use crate::ring::{Errno, Op, OpKind, Ring};

/// Whether the connection is to serve further runs. Both of the latter hold a place among the kept ones.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Keeping {
    Not,
    Fresh,
    /// It has served a run before: it may be dead without anyone's fault.
    Reused,
}

/// What the next run on a kept connection needs.
pub struct Again {
    pub owner: Job,
    pub due: Mono,
    pub timeout: Duration,
}

impl Run {
    /// Whether the run waits, on an open connection, for its probe's next turn.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Takes a place among the kept connections, if the target wants one and there is one.
    pub(super) fn take_place<R: Ring>(&mut self, io: &mut Io<R>) {
        let wants = self.keeping == Keeping::Not && self.is_repeated() && self.hop.is_none();
        let has_request = self.request().is_some_and(|request| request.keep_alive_request().is_some());
        if wants && has_request && io.kept < io.ring.capacity() / KEPT_ONE_IN {
            io.kept += 1;
            self.keeping = Keeping::Fresh;
        }
    }

    /// Gives the place back.
    pub(super) fn leave_place<R: Ring>(&mut self, io: &mut Io<R>) {
        if self.keeping != Keeping::Not {
            io.kept -= 1;
            self.keeping = Keeping::Not;
        }
    }

    /// The answer is complete. Keeps the connection if it may be kept, else ends it in order.
    pub(super) fn keep_or_end<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        let is_over = self.then == Then::Free && self.owner.is_none();
        let may_be_kept = self.keeping != Keeping::Not && self.keeps_connection && is_over;
        let is_torn = self
            .secure
            .as_ref()
            .is_some_and(|secure| !secure.session.is_between_records() || secure.session.has_ended());
        if !may_be_kept || is_torn || !io.is_quiet(self.slot) {
            return self.end_in_order(io, now, effects);
        }
        // The rest of the answer: the reader does not use the bytes that complete it.
        let len = io.ring.answer(self.slot).len();
        io.ring.drop_answer(self.slot, len);
        if let Some(secure) = &mut self.secure {
            let len = secure.session.plain().len();
            secure.session.drop_plain(len);
        }
        self.stage = Stage::Idle;
        io.idle += 1;
        self.push_on_open(io, Op::Recv);
    }

    /// Something came while nobody had asked: the server's end, or bytes that belong to no request.
    pub(super) fn idled<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        (kind, result): (OpKind, Result<u32, Errno>),
        effects: &mut Effects,
    ) {
        if kind != OpKind::Recv {
            return;
        }
        if matches!(result, Ok(1..)) {
            if self.is_of_the_session(io) {
                return self.push_on_open(io, Op::Recv);
            }
            if self.is_session_over() {
                return self.end_idle(io, now, effects);
            }
        }
        io.idle -= 1;
        self.wind_down(io, now, Winding::Cancelled, effects);
    }

    /// Whether the bytes are TLS's own business, such as tickets, and need no reply.
    fn is_of_the_session<R: Ring>(&mut self, io: &mut Io<R>) -> bool {
        let Some(secure) = &mut self.secure else { return false };
        let Ok(used) = secure.session.receive(io.ring.answer(self.slot)) else { return false };
        io.ring.drop_answer(self.slot, used);
        let goes_on = secure.idle.take(used) && !secure.session.has_ended();
        goes_on && secure.session.plain().is_empty() && secure.session.take_outgoing().is_none()
    }

    /// The probe's next run, on the open connection.
    pub fn again<R: Ring>(&mut self, again: Again, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        io.idle -= 1;
        io.counters.reused += 1;
        self.owner = Some(again.owner);
        self.timeout = again.timeout;
        self.own(io);
        self.phases.due = again.due;
        self.is_new = true;
        self.attempt = 1;
        self.keeping = Keeping::Reused;
        self.asked_at = now;
        self.begin_attempt(io, now);
        self.begin_request();
        self.phases.submitted = Some(now);
        let request = self.plain_request().cloned().unwrap_or_default();
        if let Some(secure) = &mut self.secure
            && secure.request(&request).is_err()
        {
            return self.try_anew(io, now, effects);
        }
        let request = self.outgoing().cloned().unwrap_or_default();
        self.sending_since = now;
        self.push_on_open(io, Op::Send { request, from: 0 });
    }

    /// Whether a failure of the connection now says nothing about the server: it served before, and nothing of an
    /// answer has come.
    pub(super) fn may_try_anew(&self) -> bool {
        self.keeping == Keeping::Reused && self.phases.first_byte.is_none()
    }

    /// Ends the dead connection and begins a new one, within the same timeout. Once: the new one is not reused.
    pub(super) fn try_anew<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        io.counters.reconnected += 1;
        self.keeping = Keeping::Fresh;
        (self.asked_at, self.is_unasked) = (Mono::ZERO, false);
        (self.received_at, self.phases.first_byte) = (None, None);
        self.then = Then::Reconnect;
        self.wind_down(io, now, Winding::Cancelled, effects);
    }

    /// Nobody will use the idle connection any more.
    pub(super) fn end_idle<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        io.idle -= 1;
        self.say_goodbye(io, now, effects);
    }

    /// The request as plain text; None for a TCP probe.
    pub(super) fn plain_request(&self) -> Option<&Bytes> {
        let request = self.request()?;
        let keeping = request.keep_alive_request().filter(|_| self.keeping != Keeping::Not);
        Some(keeping.unwrap_or(&request.request))
    }
}
