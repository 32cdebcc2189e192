//! One run: connects, and tries again as grpc-go does, until one deadline for all of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use probe_core::decide::grpc::{CallEnd, judge};
use probe_core::engine::is_shortage;
use probe_core::model::limits::{GRPC_CONNECT_AGAIN, GRPC_CONNECT_AGAIN_GROWTH, PROBE_ATTEMPTS};
use probe_core::model::probe::{GrpcTarget, Phases, RunResult, Verdict};
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tonic::Code;

use super::rpc::{self, Said, Seen};
use super::watched;

/// How an attempt ended.
enum End {
    CannotDial(String),
    Said(Said),
}

/// Makes one check. Up to three attempts while this host lacks what a connection needs (kubelet-semantics 8), each with
/// the whole timeout.
pub async fn run(target: &GrpcTarget, timeout: Duration, due: Mono) -> RunResult {
    let mut attempts = 1;
    loop {
        let result = attempt(target, timeout, due).await;
        if result.verdict != Verdict::Errored || attempts == PROBE_ATTEMPTS {
            return result;
        }
        attempts += 1;
    }
}

async fn attempt(target: &GrpcTarget, timeout: Duration, due: Mono) -> RunResult {
    let submitted = clock::now().mono;
    let seen = Arc::new(Seen::default());
    let waited = watched::wait(talk(target, submitted.after(timeout), &seen), timeout).await;
    let done = clock::now().mono;
    // What ends a call after the deadline is the deadline's doing. An answer counts, however late this thread saw it.
    let is_late = done.since(submitted) >= timeout;
    let (end, excuse) = match &waited.done {
        Some(End::CannotDial(error)) => (CallEnd::CannotDial { error }, Duration::ZERO),
        Some(End::Said(Said::Answered { status })) => (CallEnd::Answered { status: *status }, Duration::ZERO),
        Some(End::Said(Said::Broke { .. })) if is_late => (CallEnd::TimedOut, waited.away),
        Some(End::Said(Said::Refused { code, .. })) if is_late && is_of_deadline(*code) => {
            (CallEnd::TimedOut, waited.away)
        }
        Some(End::Said(Said::Refused { code, message })) => {
            (CallEnd::Refused { code: *code, message }, Duration::ZERO)
        }
        Some(End::Said(Said::Broke { message })) => {
            (CallEnd::Refused { code: Code::Unavailable.into(), message }, waited.away)
        }
        None if seen.connected().is_some() => (CallEnd::TimedOut, waited.away),
        // A refusal is an answer.
        None if seen.was_refused() => (CallEnd::NotConnected, Duration::ZERO),
        None => (CallEnd::NotConnected, waited.away),
    };
    let (verdict, detail) = judge(end, &target.addr.to_string(), timeout);
    let phases =
        Phases { due, submitted: Some(submitted), connected: seen.connected(), done, ..Phases::default() };
    if excuse.is_zero() {
        return RunResult { verdict, detail, phases };
    }
    let detail = detail.unwrap_or_default();
    let text =
        format!("{detail}; not judged: the prober itself did not run for {} ms of it", excuse.as_millis());
    RunResult { verdict: Verdict::Inconclusive, detail: Some(text.into()), phases }
}

/// What either side says when the time is over.
fn is_of_deadline(code: i32) -> bool {
    [Code::DeadlineExceeded, Code::Cancelled].into_iter().any(|of_deadline| code == i32::from(of_deadline))
}

/// Without end where nobody answers: the deadline is the caller's.
async fn talk(target: &GrpcTarget, deadline: Mono, seen: &Arc<Seen>) -> End {
    let mut pause = GRPC_CONNECT_AGAIN;
    loop {
        match connect(target.addr).await {
            Ok(stream) => {
                seen.refused(false);
                let left = deadline.since(clock::now().mono);
                if let Some(said) = rpc::check(stream, target, left, seen).await {
                    return End::Said(said);
                }
            }
            Err(error) if Errno::from_io_error(&error).is_some_and(is_shortage) => {
                return End::CannotDial(error.to_string());
            }
            // Another error may come from in between, such as a router.
            Err(error) => seen.refused(error.kind() == io::ErrorKind::ConnectionRefused),
        }
        tokio::time::sleep(pause).await;
        pause = pause * GRPC_CONNECT_AGAIN_GROWTH / 10;
    }
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
