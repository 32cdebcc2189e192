//! What a gRPC health check came to, in kubelet's words (kubelet-semantics 7).

use std::fmt;
use std::time::Duration;

use super::go_duration::GoDuration;
use crate::model::limits::{
    GRPC_CONNECT_AGAIN, GRPC_CONNECT_AGAIN_GROWTH, GRPC_CONNECT_AGAIN_JITTER, GRPC_CONNECT_AGAIN_MAX,
    PROBE_OUTPUT_MAX_BYTES,
};
use crate::model::probe::Verdict;
use crate::wire::grpc::UNAVAILABLE;

/// How a call has ended. Codes and statuses are numbers as they stand on the wire.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum CallEnd<'a> {
    /// No HTTP/2 server was reached before the deadline. Connecting is tried again until then, so that a refusal ends
    /// like this too.
    NotConnected,
    /// This host has no descriptor, port or memory for a connection: nothing is known of the target.
    CannotDial { error: &'a str },
    /// The same of a connection that was made already.
    CannotTalk { error: &'a str },
    /// Connected, and no answer before the deadline.
    TimedOut,
    /// The server's `grpc-status` other than OK, or what stands for it when the connection broke.
    Refused { code: i32, message: &'a str },
    /// The `status` of a `HealthCheckResponse`.
    Answered { status: i32 },
}

/// `UNIMPLEMENTED`.
const UNIMPLEMENTED: i32 = 12;
/// `DEADLINE_EXCEEDED`.
const DEADLINE_EXCEEDED: i32 = 4;
/// `SERVING`.
const SERVING: i32 = 1;

/// The verdict, and the text that the event carries. `address` is host and port as Go joins them.
pub fn judge(end: CallEnd<'_>, address: &str, timeout: Duration) -> (Verdict, Option<Box<str>>) {
    let timeout = GoDuration(timeout);
    let failed = |text: String| (Verdict::Failure, Some(cut(text).into()));
    match end {
        CallEnd::NotConnected => failed(format!(
            "timeout: failed to connect service \"{address}\" within {timeout}: context deadline exceeded"
        )),
        CallEnd::CannotDial { error } => {
            let text = format!("error: failed to connect service at \"{address}\": {error}");
            (Verdict::Errored, Some(text.into()))
        }
        CallEnd::CannotTalk { error } => {
            let code = Code(UNAVAILABLE);
            let text = format!("error: health rpc probe failed: rpc error: code = {code} desc = {error}");
            (Verdict::Errored, Some(cut(text).into()))
        }
        CallEnd::TimedOut | CallEnd::Refused { code: DEADLINE_EXCEEDED, .. } => {
            failed(format!("timeout: health rpc did not complete within {timeout}"))
        }
        CallEnd::Refused { code: UNIMPLEMENTED, message } => failed(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        CallEnd::Refused { code, message } => failed(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {message}",
            Code(code)
        )),
        CallEnd::Answered { status: SERVING } => (Verdict::Success, None),
        CallEnd::Answered { status } => {
            failed(format!("service unhealthy (responded with \"{}\")", Status(status)))
        }
    }
}

/// How long after a connection that failed the next one is tried, `earlier` pauses having passed already. `chance` lies
/// between -1 and 1; grpc-go's first pause leaves nothing to it.
pub fn connect_pause(earlier: u32, chance: f64) -> Duration {
    if earlier == 0 {
        return GRPC_CONNECT_AGAIN;
    }
    // Far beyond the longest pause, and a power that cannot overflow.
    let grown = GRPC_CONNECT_AGAIN.mul_f64(GRPC_CONNECT_AGAIN_GROWTH.powi(earlier.min(32) as i32));
    grown.min(GRPC_CONNECT_AGAIN_MAX).mul_f64(1.0 + GRPC_CONNECT_AGAIN_JITTER * chance.clamp(-1.0, 1.0))
}

/// A status code as grpc-go prints it.
struct Code(i32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        match usize::try_from(self.0).ok().and_then(|code| NAMES.get(code)) {
            Some(name) => f.write_str(name),
            None => write!(f, "Code({})", self.0),
        }
    }
}

/// A serving status by its name in the protocol; one that the protocol does not have, by its number.
struct Status(i32);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
        match usize::try_from(self.0).ok().and_then(|status| NAMES.get(status)) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A server's message is as long as it likes.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(PROBE_OUTPUT_MAX_BYTES));
    text
}
