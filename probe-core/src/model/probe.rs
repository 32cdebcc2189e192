//! What is probed, how often, and what came of it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::id::{InstanceId, PodUid, ProbeKey, Ticket};
use super::runtime::Blame;
use super::time::Mono;
use super::tls::{TlsConfig, TlsTarget};

/// The three probes of a container. The order is the order in which workers are created
/// (kubelet-semantics 10.1).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    /// Every kind, in the order in which kubelet looks at them.
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];

    /// `Startup`, `Readiness`, `Liveness`: the word in event texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }
}

/// A probe as the manifest describes it, defaulted and validated (kubelet-semantics 1, 2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeSpec {
    pub handler: Handler,
    /// 0 or more, in seconds; counts from the container's start.
    pub initial_delay_s: u32,
    /// At least a millisecond: `timeoutSeconds`, or the annotation `timeout-ms`.
    pub timeout: Duration,
    /// At least a millisecond: `periodSeconds`, or the annotation `period-ms`.
    pub period: Duration,
    /// At least 1; exactly 1 for liveness and startup.
    pub success_threshold: u32,
    /// At least 1.
    pub failure_threshold: u32,
    /// Overrides the pod's grace period for kills by this probe; at least 1.
    pub termination_grace_s: Option<u32>,
    /// Annotation `reset-on-restart`: runs in a row are counted anew for each instance of the container.
    pub resets_on_restart: bool,
    /// Has a meaning for an exec probe only.
    pub errored_runs: ErroredRuns,
}

/// Annotation `errored-runs`: what a run of an exec probe came to whose command could not be begun in the container.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum ErroredRuns {
    /// No threshold counts it (kubelet-semantics 8).
    #[default]
    Ignore,
    Failure,
}

impl ErroredRuns {
    pub const ALL: [ErroredRuns; 2] = [ErroredRuns::Ignore, ErroredRuns::Failure];

    /// As it stands in the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErroredRuns::Ignore => "Ignore",
            ErroredRuns::Failure => "Failure",
        }
    }

    pub fn parse(value: &str) -> Option<ErroredRuns> {
        ErroredRuns::ALL.into_iter().find(|runs| runs.as_str() == value)
    }

    /// The verdict of a run that could not be made. What this host or defib itself lacks is nothing that a restart of the
    /// container brings, so it is never a failure.
    pub const fn verdict(self, blame: Blame) -> Verdict {
        match (self, blame) {
            (ErroredRuns::Failure, Blame::Command) => Verdict::Failure,
            (ErroredRuns::Ignore, Blame::Command) | (_, Blame::Elsewhere) => Verdict::Errored,
        }
    }
}

/// The action of a probe (kubelet-semantics 4 to 7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Handler {
    Exec(ExecAction),
    HttpGet(HttpGetAction),
    TcpSocket(TcpSocketAction),
    Grpc(GrpcAction),
}

/// `exec`: the command is run in the container; exit code 0 is success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecAction {
    /// At least one element.
    pub command: Vec<Box<str>>,
}

/// `httpGet`: a status from 200 to 399 is success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpGetAction {
    /// None: the pod's IP at the time of the probe.
    pub host: Option<Box<str>>,
    pub port: PortRef,
    /// As written, `/` when absent.
    pub path: Box<str>,
    /// In manifest order, names as written.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// `scheme: HTTPS`.
    pub tls: Option<TlsAction>,
    /// Annotation `unix-socket`: where to connect instead of host and port, which the request still names.
    pub unix_socket: Option<Arc<Path>>,
    /// Annotation `keep-alive`: the connection serves further runs.
    pub keep_alive: bool,
    pub redirects: Redirects,
    pub broken_body: BrokenBody,
}

/// Annotation `broken-body`: what a run came to whose answer broke or stalled within its body.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum BrokenBody {
    /// It could not be judged, and no threshold counts it (kubelet-semantics 4.4).
    #[default]
    Error,
    Failure,
}

impl BrokenBody {
    pub const ALL: [BrokenBody; 2] = [BrokenBody::Error, BrokenBody::Failure];

    /// As it stands in the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            BrokenBody::Error => "Error",
            BrokenBody::Failure => "Failure",
        }
    }

    pub fn parse(value: &str) -> Option<BrokenBody> {
        BrokenBody::ALL.into_iter().find(|broken| broken.as_str() == value)
    }

    /// The verdict of such a run.
    pub const fn verdict(self) -> Verdict {
        match self {
            BrokenBody::Error => Verdict::Errored,
            BrokenBody::Failure => Verdict::Failure,
        }
    }
}

/// Annotation `redirects`: which redirects of an HTTP probe are followed.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Redirects {
    /// Those to the host that was probed; the answer with any other is a warning (kubelet-semantics 4.3).
    #[default]
    SameHost,
    AnyHost,
}

impl Redirects {
    pub const ALL: [Redirects; 2] = [Redirects::SameHost, Redirects::AnyHost];

    /// As it stands in the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Redirects::SameHost => "SameHost",
            Redirects::AnyHost => "AnyHost",
        }
    }

    pub fn parse(value: &str) -> Option<Redirects> {
        Redirects::ALL.into_iter().find(|redirects| redirects.as_str() == value)
    }
}

/// How an HTTPS probe looks at the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsAction {
    pub config: TlsConfig,
    /// Annotation `tls-server-name`; None: the host of the URL.
    pub server_name: Option<Box<str>>,
}

/// `tcpSocket`: a connection is success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpSocketAction {
    pub host: Option<Box<str>>,
    pub port: PortRef,
    /// Annotation `unix-socket`: where to connect instead of host and port.
    pub unix_socket: Option<Arc<Path>>,
    pub close: TcpClose,
}

/// `grpc`: a health service that says SERVING is success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrpcAction {
    pub port: u16,
    /// Empty when absent: the health of the server as a whole.
    pub service: Box<str>,
}

/// How a TCP probe ends its connection: annotation `tcp-close`.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum TcpClose {
    /// With a reset, as HAProxy does: nothing is left of the connection on either side.
    #[default]
    Reset,
    /// With a FIN; the server's own is waited for up to [`super::limits::FIN_WAIT`]. The server sees an ordinary end of
    /// file.
    Graceful,
}

impl TcpClose {
    /// Every way.
    pub const ALL: [TcpClose; 2] = [TcpClose::Reset, TcpClose::Graceful];

    /// The annotation's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            TcpClose::Reset => "Reset",
            TcpClose::Graceful => "Graceful",
        }
    }

    /// The way that an annotation's value names.
    pub fn parse(value: &str) -> Option<TcpClose> {
        TcpClose::ALL.into_iter().find(|close| close.as_str() == value)
    }
}

impl HttpGetAction {
    /// A GET over TCP without TLS, on a new connection each time.
    pub fn plain(host: Option<Box<str>>, port: PortRef, path: &str) -> HttpGetAction {
        HttpGetAction {
            host,
            port,
            path: path.into(),
            headers: Vec::new(),
            tls: None,
            unix_socket: None,
            keep_alive: false,
            redirects: Redirects::SameHost,
            broken_body: BrokenBody::Error,
        }
    }
}

impl TcpSocketAction {
    /// A connection over TCP that ends with a reset.
    pub fn plain(host: Option<Box<str>>, port: PortRef) -> TcpSocketAction {
        TcpSocketAction { host, port, unix_socket: None, close: TcpClose::Reset }
    }
}

/// An int-or-string port; resolved against the container's ports by `decide::target`
/// (kubelet-semantics 3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortRef {
    Number(i32),
    Name(Box<str>),
}

/// Executor to engine. One writer per probe: the executor shard in its key.
#[derive(Clone, Debug)]
pub enum ProbeCmd {
    /// Start ticking, or replace what ticks under this key. An older generation's run in flight is
    /// cancelled and its outcome never delivered.
    Arm(Box<Arm>),
    /// Stop ticking and cancel the run in flight; the entry stays for the next `Arm`.
    Hold { probe: ProbeKey, generation: u32 },
    /// Run now; the ticker restarts from now (kubelet-semantics 10.2). No effect while a run is in flight.
    Trigger { probe: ProbeKey, generation: u32 },
    /// Stop and forget.
    Drop { probe: ProbeKey },
    /// The exec run that [`ProbeEvent::ExecDue`] asked for has ended so, after this long: tick on.
    ExecDone { probe: ProbeKey, generation: u32, verdict: Verdict, took: Duration },
    /// A run that [`ProbeEvent::CallDue`] asked for has ended.
    CallDone { call: CallId, result: RunResult },
    /// One run outside any schedule, stepped so that each phase time is exact. Answered by
    /// [`ProbeEvent::OnceDone`]. Lifecycle hooks and `defib probe` use it.
    Once { ticket: Ticket, target: Arc<Target>, timeout: Duration },
    /// Whoever asked for this [`ProbeCmd::Once`] has gone away: it is cut off, without an answer.
    CutOnce { ticket: Ticket },
    /// Somebody has begun to look up what [`ProbeEvent::Resolve`] asked for: until now it was our own affair, and the
    /// timeout stood still.
    Resolving { ticket: Ticket },
    /// The answer to [`ProbeEvent::Resolve`].
    Resolved { ticket: Ticket, addr: Result<IpAddr, LookupError> },
}

/// Why a name has no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct LookupError {
    /// [`Verdict::Failure`] where the name or its server is to blame; [`Verdict::Errored`] where this host had no means to
    /// ask.
    pub verdict: Verdict,
    /// In Go's words: `lookup NAME: no such host`.
    pub text: Box<str>,
}

/// The schedule of one probe.
#[derive(Clone, Debug)]
pub struct Arm {
    pub probe: ProbeKey,
    pub kind: ProbeKind,
    /// Grows with every `Arm` of this key; outcomes carry it back.
    pub generation: u32,
    /// The instance that is probed; outcomes carry it back.
    pub instance: InstanceId,
    pub target: Arc<Target>,
    /// When the first run is due; runs follow every `period` from there, missed ticks are dropped and
    /// at most one is pending (kubelet-semantics 10.2).
    pub first_due: Mono,
    /// Greater than zero.
    pub period: Duration,
    /// Greater than zero; covers name look-up, connect, redirects, headers and body.
    pub timeout: Duration,
    /// So many successes in a row are reported one by one; further ones are folded into
    /// [`Outcome::folded_successes`] of the next report, so that a healthy probe wakes nobody.
    pub report_successes: u32,
}

/// Where a probe goes, built once per armed instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    Http(HttpTarget),
    Tcp(TcpTarget),
    /// Called by a thread of its own: the engine keeps its time and judges whether its outcome still counts.
    Grpc(GrpcTarget),
    /// Run by the container runtime: the engine only keeps its time.
    Exec,
    /// The target cannot be resolved (unknown port name, …): every run is [`Verdict::Errored`] with this text.
    Broken {
        error: Box<str>,
    },
}

/// Everything that an HTTP run needs, made once when the probe is armed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpTarget {
    pub host: Host,
    pub port: u16,
    /// The whole request as it goes on the wire.
    pub request: Bytes,
    /// As quoted in error texts: `http://10.0.0.1:80/healthz` (kubelet-semantics 4.5).
    pub url: Box<str>,
    /// What few targets have; None costs a pointer.
    pub special: Option<Box<HttpSpecial>>,
}

/// What an HTTP run needs beyond a plain request on a new connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpSpecial {
    /// The connection speaks TLS.
    pub tls: Option<TlsTarget>,
    /// The request that leaves the connection open; None: every run has a connection of its own.
    pub keep_alive_request: Option<Bytes>,
    /// A server that answers TLS with plain HTTP is asked once more without TLS (kubelet-semantics 13: hooks).
    pub falls_back_to_http: bool,
    pub redirects: Redirects,
    pub broken_body: BrokenBody,
    /// The Authorization line is of the user that the URL names, in place of these values of the manifest: it is for
    /// this URL only.
    pub login_instead_of: Option<Box<[Box<str>]>>,
    /// Of a hop: what the redirects up to here took from the first request's headers stays away.
    pub dropped: Dropped,
}

/// Headers of the first request that a hop does not send any more.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// Those that another host is not to see.
    pub secrets: bool,
    /// Those that describe a body.
    pub of_body: bool,
    /// The credentials of a hook whose server has answered TLS with plain HTTP.
    pub authorization: bool,
}

impl HttpTarget {
    /// How TLS is spoken on the connection; None: not at all.
    pub fn tls(&self) -> Option<&TlsTarget> {
        self.special.as_ref()?.tls.as_ref()
    }

    /// Which redirects are followed.
    pub fn redirects(&self) -> Redirects {
        self.special.as_ref().map_or(Redirects::SameHost, |special| special.redirects)
    }

    /// The request that leaves the connection open.
    pub fn keep_alive_request(&self) -> Option<&Bytes> {
        self.special.as_ref()?.keep_alive_request.as_ref()
    }
}

/// Everything that a TCP run needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpTarget {
    pub host: Host,
    pub port: u16,
    pub close: TcpClose,
}

/// Everything that a gRPC health check needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrpcTarget {
    pub addr: SocketAddr,
    /// May be empty.
    pub service: Box<str>,
}

/// Names a run that somebody else makes for the engine, from its due event to its answer.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum CallId {
    Probe { probe: ProbeKey, generation: u32 },
    Once { ticket: Ticket },
}

/// Where a target is: an address, a name that is looked up at every run, or a socket in the file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    Ip(IpAddr),
    /// Resolved off the shard at every run, never cached (kubelet-semantics 3.2).
    Name(Box<str>),
    /// A Unix stream socket; the target's port plays no part.
    Unix(Arc<Path>),
}

/// Engine to executor.
#[derive(Clone, Debug)]
pub enum ProbeEvent {
    Outcome(Outcome),
    /// An exec probe is due: the executor has it run and answers with [`ProbeCmd::ExecDone`].
    ExecDue {
        probe: ProbeKey,
        generation: u32,
        instance: InstanceId,
    },
    /// A gRPC run is due: whoever carries the events makes it and answers with [`ProbeCmd::CallDone`].
    CallDue {
        call: CallId,
        /// Always [`Target::Grpc`].
        target: Arc<Target>,
        timeout: Duration,
        due: Mono,
    },
    /// Nobody wants this run any more: it is to be cut off, and needs no answer.
    CallCut {
        call: CallId,
    },
    OnceDone {
        ticket: Ticket,
        outcome: RunResult,
    },
    /// Look this name up off the shard: say [`ProbeCmd::Resolving`] when that begins, and answer with
    /// [`ProbeCmd::Resolved`].
    Resolve {
        ticket: Ticket,
        host: Box<str>,
        /// From then on nobody waits for the answer, unless the look-up has begun.
        until: Mono,
        /// Whose probe asks; None for one by hand or a hook.
        pod: Option<PodUid>,
    },
}

/// What one run of a probe came to, before thresholds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub probe: ProbeKey,
    pub generation: u32,
    pub instance: InstanceId,
    /// Successes since the last report, all older than `result`.
    pub folded_successes: u32,
    pub result: RunResult,
}

/// What one run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunResult {
    pub verdict: Verdict,
    /// The text that the event carries; None on success.
    pub detail: Option<Box<str>>,
    pub phases: Phases,
}

/// Result of a handler (kubelet-semantics 8).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    Success,
    /// Counts as success, with an event.
    Warning,
    Failure,
    /// The run could not be judged, in all of its three attempts: no counter moves.
    Errored,
    /// Nobody can know: the engine did not run during a good part of it, and no answer proves the target
    /// alive or ill. No counter moves.
    Inconclusive,
}

/// When each phase of a run ended. Exact for [`ProbeCmd::Once`]; for scheduled runs, phases inside one
/// linked submission are "at or before" (design 9.7).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Phases {
    pub due: Mono,
    pub submitted: Option<Mono>,
    pub resolved: Option<Mono>,
    pub connected: Option<Mono>,
    pub sent: Option<Mono>,
    pub first_byte: Option<Mono>,
    pub done: Mono,
}

impl Phases {
    /// How long the run took, a name look-up included, and without the wait for its turn where that is known.
    pub fn took(&self) -> Duration {
        let begun = self.submitted.filter(|submitted| self.resolved.is_none_or(|at| at >= *submitted));
        self.done.since(begun.unwrap_or(self.due))
    }
}
