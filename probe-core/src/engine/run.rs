//! One run of one probe on a slot of the ring, from connect to the end of the connection.
//!
//! ```text
//! Asked ─► Resolving ─► Working ─► Finishing ─► free, the next hop, or the next attempt
//!                          ├─► Parting ─^                        ^
//!                          ├─► Idle ─► the next run, or Parting  │
//!                          └─► Winding ─► Disconnecting ─────────┘
//! ```
//!
//! The outcome is reported as soon as it is known; what follows is tidying up, which the probe's ticker does
//! not wait for. Nothing is disconnected while the kernel holds anything of the slot.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::deadline::Pause;
use super::io::{Io, NoSocket, Timer};
use super::keep::Keeping;
use super::secure::Secure;
use super::silence::Asked;
use super::targets::Job;
use super::text;
use super::watch::CLOCKS_AGREE;
use super::wheel::TimerId;
use crate::model::limits::PROBE_ATTEMPTS;
use crate::model::probe::{Host, HttpTarget, Phases, RunResult, Target, Verdict};
use crate::model::time::Mono;
use crate::ring::{Completion, Errno, Op, OpKind, Opening, Peer, Ring, Slot};
use crate::wire::http1::Answer;

/// A run holds its slot from start to end.
pub struct Run {
    pub(super) slot: Slot,
    /// Who gets the outcome; None when it was reported or nobody wants it any more.
    pub(super) owner: Option<Job>,
    pub(super) target: Arc<Target>,
    /// The request that a redirect has led to.
    pub(super) hop: Option<Box<HttpTarget>>,
    pace: Pace,
    pub(super) timeout: Duration,
    pub(super) stage: Stage,
    pub(super) attempt: u32,
    /// HTTP requests made in this attempt.
    pub(super) requests: u32,
    pub(super) ip: Option<IpAddr>,
    pub(super) reached: Reached,
    /// Bytes of what is being sent that were sent.
    pub(super) sent: usize,
    /// Only where the connection speaks TLS.
    pub(super) secure: Option<Box<Secure>>,
    pub(super) keeping: Keeping,
    /// When the request went out on a connection that was idle before.
    pub(super) asked_at: Mono,
    /// What has come had come before that: it is no answer to this request.
    pub(super) is_unasked: bool,
    /// The answer says that the connection may serve another request.
    pub(super) keeps_connection: bool,
    pub(super) answer: Answer,
    pub(super) status: u16,
    /// Body of an answer that is shown to people (3xx); empty and unallocated for all others.
    pub(super) kept: Vec<u8>,
    pub(super) phases: Phases,
    /// Begun in this turn, and not yet counted as such.
    pub(super) is_new: bool,
    /// By so much its request may have gone out before `phases.submitted`.
    pub(super) dated_within: Duration,
    /// Hardly before this moment was its request sent, or its bare connection begun.
    pub(super) dated_from: Mono,
    /// Certainly not before this one.
    pub(super) dated_first: Mono,
    /// When what is being sent was handed over.
    pub(super) sending_since: Mono,
    pub(super) deadline: Option<TimerId>,
    pub(super) deadline_at: Mono,
    /// From a redirect to the next hop the timeout stands still, since ending a connection in order is our own affair; so
    /// it does until somebody looks a name up.
    pub(super) paused: Option<Pause>,
    /// [`super::watch::Absences::sum`] when the attempt began.
    pub(super) unwatched_before: Duration,
    /// None while the run owes the next step.
    pub(super) asked: Option<Asked>,
    /// When the kernel had received what is being looked at, as far as that is known.
    pub(super) received_at: Option<Mono>,
    pub(super) closing: Option<TimerId>,
    pub(super) then: Then,
}

/// Whether the steps of a run are submitted at once or one after the other.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Pace {
    /// One linked submission: the cheapest. Errored attempts are repeated.
    Chained,
    /// Each step by itself, so that each phase has its exact time. One attempt.
    Stepped,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Waits for a place among those that resolve: a hop, or a further attempt, holds its slot already.
    Unresolved,
    /// The question waits for a resolver: our own affair, so the timeout stands still.
    Asked,
    /// Somebody looks the name up.
    Resolving,
    Working,
    /// Our last words go out: TLS's goodbye, or our FIN on a connection that the server would keep.
    Parting,
    /// The connection waits for the probe's next run.
    Idle,
    /// The answer is complete; a server that closes in order shall not see a reset. Then the connection ends.
    Finishing,
    /// Waiting until nothing is in flight.
    Winding(Winding),
    Disconnecting,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Winding {
    /// What is left ends by itself: the links of a failed connect.
    ByItself,
    Cancelled,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Reached {
    Nothing,
    Connected,
}

/// What comes when the connection has ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Then {
    Free,
    NextHop,
    NextAttempt,
    /// The same request once more: a kept connection was dead.
    Reconnect,
}

/// What a step of a run means for the shard.
#[derive(Default)]
pub struct Effects {
    pub report: Option<(Job, RunResult)>,
    /// This host name is wanted as an address, until then.
    pub resolve: Option<(Box<str>, Mono)>,
    /// The slot may be released.
    pub is_free: bool,
}

/// What a run needs to begin.
pub struct Start {
    pub slot: Slot,
    pub owner: Job,
    pub target: Arc<Target>,
    pub pace: Pace,
    pub due: Mono,
    pub timeout: Duration,
}

impl Run {
    /// Begins the first attempt.
    pub fn start<R: Ring>(start: Start, io: &mut Io<R>, now: Mono, effects: &mut Effects) -> Run {
        let mut run = Run {
            slot: start.slot,
            owner: Some(start.owner),
            target: start.target,
            hop: None,
            pace: start.pace,
            timeout: start.timeout,
            stage: Stage::Working,
            attempt: 0,
            requests: 0,
            ip: None,
            reached: Reached::Nothing,
            sent: 0,
            secure: None,
            keeping: Keeping::Not,
            asked_at: Mono::ZERO,
            is_unasked: false,
            keeps_connection: false,
            answer: Answer::new(),
            status: 0,
            kept: Vec::new(),
            phases: Phases { due: start.due, ..Phases::default() },
            is_new: true,
            deadline: None,
            deadline_at: Mono::MAX,
            paused: None,
            unwatched_before: Duration::ZERO,
            asked: None,
            dated_within: Duration::ZERO,
            dated_from: now,
            dated_first: now,
            sending_since: now,
            received_at: None,
            closing: None,
            then: Then::Free,
        };
        run.own(io);
        run.start_attempt(io, now, effects);
        run
    }

    /// Somebody waits for the outcome now.
    pub(super) fn own<R: Ring>(&self, io: &mut Io<R>) {
        if self.owner.is_some() {
            io.watched.add(self.timeout);
        }
    }

    /// Takes who waits for the outcome; then nobody does.
    fn disown<R: Ring>(&mut self, io: &mut Io<R>) -> Option<Job> {
        let owner = self.owner.take();
        if owner.is_some() {
            io.watched.remove(self.timeout);
        }
        owner
    }

    fn start_attempt<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.attempt += 1;
        self.begin_attempt(io, now);
        self.ip = None;
        self.begin_connection(io, now, effects);
    }

    /// Connects, or has the host's name looked up first.
    pub(super) fn begin_connection<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        match self.host() {
            Some(Host::Ip(ip)) => {
                self.ip = Some(*ip);
                self.connect(io, now, effects);
            }
            Some(Host::Name(_)) if self.ip.is_some() => self.connect(io, now, effects),
            Some(Host::Name(name)) => {
                let name = name.clone();
                self.look_up(io, now, name, effects);
            }
            Some(Host::Unix(_)) => self.connect(io, now, effects),
            None => {
                self.finish(io, now, Verdict::Errored, "not a network probe".to_owned(), effects);
                self.ended(io, now, effects);
            }
        }
    }

    /// Forgets what an earlier attempt has seen, and begins to count time.
    pub(super) fn begin_attempt<R: Ring>(&mut self, io: &mut Io<R>, now: Mono) {
        self.requests = 0;
        self.hop = None;
        self.phases = Phases { due: self.phases.due, ..Phases::default() };
        self.received_at = None;
        self.dated_within = Duration::ZERO;
        (self.dated_from, self.dated_first) = (now, now);
        self.unwatched_before = io.watch.absences(self.timeout).sum();
        self.paused = None;
        self.deadline_at = now.after(self.timeout);
        self.deadline = Some(io.wheel.insert(self.deadline_at, Timer::Deadline(self.slot)));
    }

    /// Begins a connection: of a probe, or of a hop.
    pub(super) fn connect<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        let Some(to) = self.peer() else { return };
        self.reached = Reached::Nothing;
        self.secure = None;
        self.take_place(io);
        self.begin_request();
        self.phases.submitted = self.phases.submitted.or(Some(now));
        if let (Some(tls), Some(request)) = (self.request().and_then(HttpTarget::tls), self.plain_request()) {
            match Secure::begin(tls, request) {
                Ok(secure) => self.secure = Some(Box::new(secure)),
                Err(error) => {
                    let text = self.in_context(error.to_string());
                    self.finish(io, now, Verdict::Errored, text, effects);
                    return self.ended(io, now, effects);
                }
            }
        }
        if self.pace == Pace::Stepped {
            io.exact.ask(now);
        }
        let op = match (self.outgoing(), self.pace) {
            (Some(bytes), Pace::Chained) => Op::Exchange { to, request: bytes.clone() },
            (Some(_), Pace::Stepped) => Op::Connect { to, opening: Opening::ClientSpeaks },
            (None, _) => Op::Connect { to, opening: Opening::Bare },
        };
        if let Err(error) = io.push(self.slot, op) {
            self.no_socket(io, now, error, effects);
        }
    }

    /// A request is about to go out, on whatever connection.
    pub(super) fn begin_request(&mut self) {
        self.stage = Stage::Working;
        self.then = Then::Free;
        self.asked = None;
        self.sent = 0;
        self.answer = Answer::new();
        self.requests += 1;
    }

    /// The connection could not even be begun.
    pub fn no_socket<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, error: NoSocket, effects: &mut Effects) {
        if let Some(peer) = self.peer() {
            let text = self.in_context(text::socket(&peer, error.call, error.errno));
            let verdict = error.verdict();
            io.counters.shortages += u64::from(verdict == Verdict::Errored);
            self.finish(io, now, verdict, text, effects);
        }
        self.ended(io, now, effects);
    }

    /// An operation of this run has ended.
    pub fn completed<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        completion: Completion,
        effects: &mut Effects,
    ) {
        let Completion { kind, result, received_at, .. } = completion;
        match self.stage {
            Stage::Unresolved | Stage::Asked | Stage::Resolving => {}
            Stage::Working => match kind {
                OpKind::Connect => self.connected(io, now, result, effects),
                OpKind::Send => self.sent(io, now, result, effects),
                OpKind::Recv => {
                    let at = io.watch.mono_of(received_at).filter(|at| *at <= now);
                    if let Some(at) = at {
                        self.redate(at);
                    }
                    let earliest = self.phases.submitted.unwrap_or(now);
                    self.is_unasked =
                        self.may_try_anew() && at.is_some_and(|at| at.after(CLOCKS_AGREE) < self.asked_at);
                    self.received_at = at.map(|at| at.max(earliest));
                    self.received(io, now, result, effects);
                }
                OpKind::Disconnect | OpKind::Cancel => {}
            },
            Stage::Parting => self.parting(io, now, kind, effects),
            Stage::Idle => self.idled(io, now, (kind, result), effects),
            Stage::Finishing => self.finishing(io, now, kind, effects),
            Stage::Winding(winding) => self.winding(io, now, kind, winding, effects),
            Stage::Disconnecting => {
                if kind == OpKind::Disconnect {
                    self.disconnected(io, now, effects);
                }
            }
        }
    }

    fn connected<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        result: Result<u32, Errno>,
        effects: &mut Effects,
    ) {
        if let Err(errno) = result {
            if let Some(peer) = self.peer() {
                let text = self.in_context(text::connect(&peer, errno));
                // An address of a family that this host has none of: a fact about the target, as for kubelet.
                let is_elsewhere = errno == Errno::ADDRNOTAVAIL && !io.ring.has_source(&peer);
                let verdict = if is_elsewhere { Verdict::Failure } else { io.verdict_of(errno) };
                self.finish(io, now, verdict, text, effects);
            }
            return self.wind_down(io, now, Winding::ByItself, effects);
        }
        self.reached = Reached::Connected;
        self.asked = None;
        self.phases.connected = Some(now);
        let Some(bytes) = self.outgoing() else {
            self.succeed(io, now, effects);
            return self.end_bare(io, now, effects);
        };
        if self.pace == Pace::Stepped {
            let request = bytes.clone();
            self.sending_since = now;
            self.push_on_open(io, Op::Send { request, from: 0 });
        }
    }

    fn sent<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        result: Result<u32, Errno>,
        effects: &mut Effects,
    ) {
        let Some(request) = self.outgoing().cloned() else { return };
        match result {
            Ok(count) => {
                self.sent += count as usize;
                if self.sent < request.len() {
                    self.asked = None;
                    self.sending_since = now;
                    return self.push_on_open(io, Op::Send { request, from: self.sent });
                }
                self.phases.sent = Some(now);
                if self.send_outgoing(io, now) {
                    return;
                }
                self.has_asked(io);
            }
            // The server may have answered before it closed: read first, then judge.
            Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(_) if self.may_try_anew() => return self.try_anew(io, now, effects),
            Err(errno) => {
                if let Some(peer) = self.peer() {
                    let local = io.ring.local_addr(self.slot);
                    let text = self.in_context(text::transfer("write", local, &peer, errno));
                    let verdict = io.verdict_of(errno);
                    self.fell_silent(io, now, verdict, text, effects);
                }
                return self.wind_down(io, now, Winding::Cancelled, effects);
            }
        }
        if !io.is_pending(self.slot, OpKind::Recv) {
            self.push_on_open(io, Op::Recv);
        }
    }

    /// Nobody wants the outcome any more: end as soon as the kernel allows.
    pub fn abandon<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.disown(io);
        self.then = Then::Free;
        if let Some(id) = self.deadline.take() {
            io.wheel.cancel(id);
        }
        match self.stage {
            Stage::Unresolved | Stage::Asked | Stage::Resolving => {
                self.end_resolving(io);
                self.ended(io, now, effects);
            }
            Stage::Working => self.wind_down(io, now, Winding::Cancelled, effects),
            Stage::Idle => self.end_idle(io, now, effects),
            Stage::Parting | Stage::Finishing | Stage::Winding(_) | Stage::Disconnecting => {}
        }
    }

    pub(super) fn succeed<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.report(io, now, Verdict::Success, None, effects);
    }

    /// The attempt has come to an outcome with a text. An errored one is repeated while attempts are left.
    pub(super) fn finish<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        verdict: Verdict,
        text: String,
        effects: &mut Effects,
    ) {
        // One that got no turn to look its name up would hold the slot once more, and make the crowd larger.
        let is_crowded_out = matches!(self.stage, Stage::Unresolved | Stage::Asked);
        let may_repeat = self.pace == Pace::Chained && self.attempt < PROBE_ATTEMPTS && !is_crowded_out;
        if verdict == Verdict::Errored && may_repeat {
            io.counters.repeated += 1;
            if let Some(id) = self.deadline.take() {
                io.wheel.cancel(id);
            }
            self.then = Then::NextAttempt;
            return;
        }
        self.report(io, now, verdict, Some(text.into()), effects);
    }

    pub(super) fn report<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        verdict: Verdict,
        detail: Option<Box<str>>,
        effects: &mut Effects,
    ) {
        if let Some(id) = self.deadline.take() {
            io.wheel.cancel(id);
        }
        self.then = Then::Free;
        self.phases.done = self.received_at.unwrap_or(now);
        let result = RunResult { verdict, detail, phases: self.phases };
        effects.report = self.disown(io).map(|owner| (owner, result));
    }

    /// The slot holds no connection any more.
    pub(super) fn ended<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.clear_closing(io);
        if self.then != Then::Reconnect {
            self.leave_place(io);
        }
        match self.then {
            Then::Free => effects.is_free = true,
            Then::NextHop => {
                self.resume(io, now);
                self.begin_connection(io, now, effects);
            }
            Then::NextAttempt => self.start_attempt(io, now, effects),
            Then::Reconnect => {
                self.requests = 0;
                self.connect(io, now, effects);
            }
        }
    }

    /// Pushes an operation on the slot's own socket, for which no new one is needed.
    pub(super) fn push_on_open<R: Ring>(&mut self, io: &mut Io<R>, op: Op) {
        let pushed = io.push(self.slot, op);
        debug_assert_eq!(pushed, Ok(()), "only a connect makes sockets");
    }

    /// The request of this connection; None for a TCP probe.
    pub(super) fn request(&self) -> Option<&HttpTarget> {
        match (&self.hop, &*self.target) {
            (Some(hop), _) => Some(hop),
            (None, Target::Http(http)) => Some(http),
            (None, Target::Tcp(_) | Target::Grpc(_) | Target::Exec | Target::Broken { .. }) => None,
        }
    }

    /// The bytes that go out on this connection; None for a TCP probe.
    pub(super) fn outgoing(&self) -> Option<&Bytes> {
        match &self.secure {
            Some(secure) => Some(&secure.outgoing),
            None => self.plain_request(),
        }
    }

    /// Whether the run is one of many.
    pub(super) fn is_repeated(&self) -> bool {
        self.pace == Pace::Chained
    }

    pub(super) fn host(&self) -> Option<&Host> {
        match (&self.hop, &*self.target) {
            (Some(hop), _) => Some(&hop.host),
            (None, Target::Http(http)) => Some(&http.host),
            (None, Target::Tcp(tcp)) => Some(&tcp.host),
            (None, Target::Grpc(_) | Target::Exec | Target::Broken { .. }) => None,
        }
    }

    /// Where this connection goes. A redirect that keeps the host keeps the address too.
    pub(super) fn peer(&self) -> Option<Peer> {
        if let Some(Host::Unix(path)) = self.host() {
            return Some(Peer::Unix(path.clone()));
        }
        let port = match (&self.hop, &*self.target) {
            (Some(hop), _) => hop.port,
            (None, Target::Http(http)) => http.port,
            (None, Target::Tcp(tcp)) => tcp.port,
            (None, Target::Grpc(_) | Target::Exec | Target::Broken { .. }) => return None,
        };
        Some(Peer::Ip(SocketAddr::new(self.ip?, port)))
    }

    /// An error text as it stands in the event: a GET names its URL.
    pub(super) fn in_context(&self, text: String) -> String {
        match self.request() {
            Some(request) => text::get(&request.url, text),
            None => text,
        }
    }
}
