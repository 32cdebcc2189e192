//! The HTTP part of a run: reading the answer, its verdict, and redirects (kubelet-semantics 4.3, 4.4).

use super::io::Io;
use super::keep::Keeping;
use super::run::{Effects, Run, Winding};
use super::text;
use crate::decide::target::{Follow, follow};
use crate::model::limits::SLOT_BUFFER_BYTES;
use crate::model::probe::{BrokenBody, Target, Verdict};
use crate::model::time::Mono;
use crate::ring::{Errno, Op, Ring};
use crate::wire::http1::{AnswerError, Ending, Head, Progress};
use crate::wire::tls::TlsError;

/// The server has waited in vain for a request.
const REQUEST_TIMEOUT: u16 = 408;
/// Statuses that redirect when they come with a Location.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

impl Run {
    /// A receive has ended.
    pub(super) fn received<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        result: Result<u32, Errno>,
        effects: &mut Effects,
    ) {
        match result {
            Err(_) if self.may_try_anew() => self.try_anew(io, now, effects),
            Ok(0) => self.stream_ended(io, now, effects),
            Ok(_) if self.secure.is_some() => self.decrypt(io, now, effects),
            Ok(_) if self.is_unasked => self.try_anew(io, now, effects),
            Ok(_) => {
                self.note_answer(now);
                if self.read(io, now, effects) {
                    self.push_on_open(io, Op::Recv);
                }
            }
            Err(errno) => self.read_failed(io, now, errno, effects),
        }
    }

    /// Nothing more comes.
    pub(super) fn stream_ended<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        if self.may_try_anew() {
            return self.try_anew(io, now, effects);
        }
        if self.is_handshake_torn() {
            let error = TlsError::Protocol("unexpected EOF".into());
            return self.tls_failed(io, now, &error, effects);
        }
        match self.end_of_stream(io) {
            Ok(_) => {
                self.judge(io, now, effects);
                if self.is_session_over() {
                    // Only the session has ended: a reset of the connection would be heard as an error.
                    return self.say_goodbye(io, now, effects);
                }
                self.wind_down(io, now, Winding::Cancelled, effects);
            }
            Err(error) => self.unreadable(io, now, &error, effects),
        }
    }

    /// Bytes of the answer have come.
    pub(super) fn note_answer(&mut self, now: Mono) {
        let at = self.received_at.unwrap_or(now);
        self.phases.first_byte = self.phases.first_byte.or(Some(at));
        // The shard sees the end of a step only when it wakes; it was not after the kernel had the answer. A server that
        // answers at once may even take this core for it: the time since the request was handed over is the server's then.
        self.phases.connected = self.phases.connected.map(|seen| seen.min(at));
        let since = self.phases.connected.map_or(self.sending_since, |seen| seen.max(self.sending_since));
        self.phases.sent = self.phases.sent.map(|seen| if seen < at { seen } else { since.min(at) });
    }

    /// The connection ended inside a record, before keys were agreed on.
    fn is_handshake_torn(&self) -> bool {
        let session = self.secure.as_ref().map(|secure| &secure.session);
        session.is_some_and(|session| session.is_handshaking() && !session.is_between_records())
    }

    /// Whether the answer was complete when the server closed.
    fn end_of_stream<R: Ring>(&self, io: &Io<R>) -> Result<Ending, AnswerError> {
        let Some(secure) = &self.secure else { return self.answer.end(io.ring.answer(self.slot)) };
        match self.answer.end(secure.session.plain()) {
            Ok(_) | Err(AnswerError::Empty) if !secure.session.is_between_records() => {
                Err(AnswerError::torn(self.answer.in_body()))
            }
            end => end,
        }
    }

    /// Goes through what has come. True when more is needed; else the run has gone on to its end.
    pub(super) fn read<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) -> bool {
        loop {
            let data = match &self.secure {
                Some(secure) => secure.session.plain(),
                None => io.ring.answer(self.slot),
            };
            let room = SLOT_BUFFER_BYTES - data.len();
            let keep = (300..400).contains(&self.status).then_some(&mut self.kept);
            match self.answer.read(data, room, keep) {
                Ok(Progress::More { used }) => {
                    self.drop_read(io, used);
                    return true;
                }
                Ok(Progress::Head { used, head }) => {
                    self.drop_read(io, used);
                    // Said to the connection that was idle, not to this request.
                    if head.status == REQUEST_TIMEOUT && self.keeping == Keeping::Reused {
                        self.try_anew(io, now, effects);
                        return false;
                    }
                    if self.redirect(io, now, head, effects) {
                        return false;
                    }
                }
                Ok(Progress::Done(ending)) => {
                    self.judge(io, now, effects);
                    match ending {
                        Ending::Complete => self.keep_or_end(io, now, effects),
                        Ending::LimitReached => self.wind_down(io, now, Winding::Cancelled, effects),
                    }
                    return false;
                }
                Err(error) => {
                    self.unreadable(io, now, &error, effects);
                    return false;
                }
            }
        }
    }

    /// The verdict of an answer that breaks or stalls within its body.
    pub(super) fn broken_body(&self) -> Verdict {
        match &*self.target {
            Target::Http(http) => {
                http.special.as_ref().map_or(BrokenBody::Error, |special| special.broken_body).verdict()
            }
            Target::Tcp(_) | Target::Grpc(_) | Target::Exec | Target::Broken { .. } => Verdict::Errored,
        }
    }

    /// What of an answer waits to be read.
    fn unread<'a, R: Ring>(&'a self, io: &'a Io<R>) -> &'a [u8] {
        match &self.secure {
            Some(secure) => secure.session.plain(),
            None => io.ring.answer(self.slot),
        }
    }

    fn drop_read<R: Ring>(&mut self, io: &mut Io<R>, count: usize) {
        match &mut self.secure {
            Some(secure) => secure.session.drop_plain(count),
            None => io.ring.drop_answer(self.slot, count),
        }
    }

    /// Notes the head. True when it leads elsewhere, so that its body does not matter.
    fn redirect<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, head: Head, effects: &mut Effects) -> bool {
        self.status = head.status;
        self.keeps_connection = head.keeps_connection;
        self.kept.clear();
        let (Some(location), Target::Http(first), Some(current)) =
            (head.location, &*self.target, self.request())
        else {
            return false;
        };
        if !REDIRECTS.contains(&head.status) {
            return false;
        }
        match follow(first, current, head.status, &location, self.requests) {
            Follow::NotFollowed => false,
            Follow::Next(next) => {
                self.date_by_data(io, now);
                if self.is_late() {
                    let (verdict, text) = self.timeout_outcome();
                    self.fell_silent(io, now, verdict, text, effects);
                } else {
                    self.go_on(io, now, next);
                }
                self.end_in_order(io, now, effects);
                true
            }
            Follow::Failed(text) => {
                self.finish(io, now, Verdict::Failure, text.into(), effects);
                self.end_in_order(io, now, effects);
                true
            }
        }
    }

    /// The answer is in: its status decides.
    fn judge<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.date_by_data(io, now);
        if self.is_late() {
            let (verdict, text) = self.timeout_outcome();
            return self.fell_silent(io, now, verdict, text, effects);
        }
        match self.status {
            200..=299 => self.succeed(io, now, effects),
            300..=399 => {
                let body = String::from_utf8_lossy(&self.kept);
                let text = format!("Probe terminated redirects, Response body: {body}");
                self.finish(io, now, Verdict::Warning, text, effects);
            }
            status => {
                let text = format!("HTTP probe failed with statuscode: {status}");
                self.finish(io, now, Verdict::Failure, text, effects);
            }
        }
    }

    /// An answer that is late by its stamp may be so only by the FIN that the kernel has joined to it since.
    pub(super) fn date_by_data<R: Ring>(&mut self, io: &Io<R>, now: Mono) {
        let (true, Some(stamp)) = (self.is_late(), self.received_at) else { return };
        let Some(data_at) = io.ring.last_data_at(self.slot, now) else { return };
        let at = stamp.min(data_at.max(self.phases.submitted.unwrap_or(data_at)));
        self.received_at = Some(at);
        self.phases.first_byte = self.phases.first_byte.map(|seen| seen.min(at));
    }

    /// What has come is no answer.
    fn unreadable<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, error: &AnswerError, effects: &mut Effects) {
        match error {
            AnswerError::Empty => {
                let text = self.in_context(error.to_string());
                self.fell_silent(io, now, Verdict::Failure, text, effects);
            }
            AnswerError::Head(_) => {
                let text = self.in_context(error.to_string());
                self.finish(io, now, Verdict::Failure, text, effects);
            }
            AnswerError::Body(text) => {
                self.finish(io, now, self.broken_body(), text.to_string(), effects);
            }
        }
        self.wind_down(io, now, Winding::Cancelled, effects);
    }

    /// The connection broke while an answer was awaited or read. In the middle of a head Go's reader swallows the error and
    /// sees an end; a TLS session tells it again.
    fn read_failed<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, errno: Errno, effects: &mut Effects) {
        if let Some(peer) = self.peer() {
            let text = text::transfer("read", io.ring.local_addr(self.slot), &peer, errno);
            let (verdict, unread) = (io.verdict_of(errno), self.unread(io));
            let end = self.answer.end(unread).err().filter(|end| self.secure.is_none() || !end.is_torn());
            if self.answer.in_body() {
                let text = end.filter(|end| !end.is_torn()).map_or(text, |end| end.to_string());
                self.fell_silent(io, now, self.broken_body(), text, effects);
            } else if unread.is_empty() && !self.answer.is_between_heads() {
                let text = self.in_context(text);
                self.fell_silent(io, now, verdict, text, effects);
            } else {
                let broken = || format!("net/http: HTTP/1.x transport connection broken: {text}");
                let end = end.filter(|_| !unread.is_empty());
                let text = self.in_context(end.map_or_else(broken, |end| end.to_string()));
                self.finish(io, now, verdict, text, effects);
            }
        }
        self.wind_down(io, now, Winding::Cancelled, effects);
    }
}
