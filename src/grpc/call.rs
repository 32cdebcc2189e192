//! One run: connects, and tries again as grpc-go does, until one deadline for all of it.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use probe_core::decide::grpc::{CallEnd, connect_pause, judge};
use probe_core::model::limits::GRPC_CONNECT_MIN;
use probe_core::model::probe::{GrpcTarget, Phases, RunResult, Verdict};
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use probe_core::wire::grpc;
use tokio::net::TcpStream;

use super::heard::{self, Note};
use super::rpc::{self, Attempt, Ended, Said};
use super::watched;

/// `CANCELLED`, `DEADLINE_EXCEEDED`: what either side says when the time is over.
const OF_DEADLINE: [i32; 2] = [1, 4];

/// How far an attempt has come.
#[derive(Debug, Default)]
struct Progress {
    /// Of the newest connection.
    note: Arc<Note>,
    /// When an earlier one was made.
    connected: Option<Mono>,
    /// The kernel has said that nobody listens, and no other connect has begun.
    was_refused: bool,
    /// When the next one is due, after one that failed.
    again: Mono,
}

impl Progress {
    /// When the first frame of a server came.
    fn connected(&self) -> Option<Mono> {
        self.connected.or_else(|| self.note.connected())
    }

    fn next_connection(&mut self) -> Arc<Note> {
        self.connected = self.connected();
        self.was_refused = false;
        self.note = Arc::default();
        Arc::clone(&self.note)
    }
}

/// Makes one check. So many attempts while this host lacks what a connection needs, each with the whole timeout: three
/// for a probe (kubelet-semantics 8), one by hand.
pub async fn run(target: &GrpcTarget, timeout: Duration, due: Mono, attempts_max: u32) -> RunResult {
    let mut attempts = 1;
    loop {
        let result = attempt(target, timeout, due).await;
        if result.verdict != Verdict::Errored || attempts >= attempts_max {
            return result;
        }
        attempts += 1;
    }
}

async fn attempt(target: &GrpcTarget, timeout: Duration, due: Mono) -> RunResult {
    let submitted = clock::now().mono;
    let mut progress = Progress::default();
    let deadline = submitted.after(timeout);
    let waited = watched::wait(talk(target, deadline, &mut progress), timeout).await;
    let done = clock::now().mono;
    // What ends a call after the deadline is the deadline's doing. An answer counts, however late this thread saw it.
    let is_late = done.since(submitted) >= timeout;
    let (end, excuse) = match &waited.done {
        Some(Said::Lacked { error }) if progress.connected().is_some() => {
            (CallEnd::CannotTalk { error }, Duration::ZERO)
        }
        Some(Said::Lacked { error }) => (CallEnd::CannotDial { error }, Duration::ZERO),
        Some(Said::Answered { status }) => (CallEnd::Answered { status: *status }, Duration::ZERO),
        Some(Said::Broke { .. }) if is_late => (CallEnd::TimedOut, waited.away),
        Some(Said::Refused { code, .. }) if is_late && OF_DEADLINE.contains(code) => {
            (CallEnd::TimedOut, waited.away)
        }
        Some(Said::Refused { code, message }) => (CallEnd::Refused { code: *code, message }, Duration::ZERO),
        Some(Said::Broke { message }) => (CallEnd::Refused { code: grpc::UNAVAILABLE, message }, waited.away),
        None if progress.connected().is_some() => (CallEnd::TimedOut, waited.away),
        // A refusal is an answer, unless this thread has missed its time to ask again.
        None if progress.was_refused && progress.again >= deadline => (CallEnd::NotConnected, Duration::ZERO),
        None => (CallEnd::NotConnected, waited.away),
    };
    let (verdict, detail) = judge(end, &target.addr.to_string(), timeout);
    let phases = Phases {
        due,
        submitted: Some(submitted),
        connected: progress.connected(),
        done,
        ..Phases::default()
    };
    if excuse.is_zero() {
        return RunResult { verdict, detail, phases };
    }
    let detail = detail.unwrap_or_default();
    let text =
        format!("{detail}; not judged: the prober itself did not run for {} ms of it", excuse.as_millis());
    RunResult { verdict: Verdict::Inconclusive, detail: Some(text.into()), phases }
}

/// Without end where nobody answers: the deadline is the caller's.
async fn talk(target: &GrpcTarget, deadline: Mono, progress: &mut Progress) -> Said {
    let mut attempt = Attempt::First;
    let mut pauses = 0;
    loop {
        let pause = connect_pause(pauses, chance());
        let limit = pause.max(GRPC_CONNECT_MIN);
        match talk_once(target, deadline, limit, attempt, progress).await {
            Ended::Said(said) => return said,
            Ended::Unprocessed => {
                attempt = Attempt::Again;
                continue;
            }
            // The call has begun, and does not wait for a server to come.
            Ended::NotConnected { error } if attempt == Attempt::Again => {
                let refusal = grpc::not_again(&error);
                return Said::Refused { code: refusal.code, message: refusal.message };
            }
            Ended::NotConnected { .. } => {}
        }
        progress.again = clock::now().mono.after(pause);
        tokio::time::sleep(pause).await;
        if clock::now().mono >= deadline {
            // This thread was away: what a server says to a try that no deadline allows is no answer.
            std::future::pending::<()>().await;
        }
        pauses += 1;
    }
}

/// One connection, which has to be made within `limit`.
async fn talk_once(
    target: &GrpcTarget,
    deadline: Mono,
    limit: Duration,
    attempt: Attempt,
    progress: &mut Progress,
) -> Ended {
    let note = progress.next_connection();
    let was_refused = &mut progress.was_refused;
    let mut work = pin!(async {
        match connect(target.addr).await {
            Ok(stream) => rpc::check(stream, target, deadline, attempt, &note).await,
            Err(error) if heard::is_own(&error) => Ended::Said(Said::Lacked { error: error.to_string() }),
            Err(error) => {
                // Another error may come from in between, such as a router.
                *was_refused = error.kind() == io::ErrorKind::ConnectionRefused;
                let words = if *was_refused { "connection refused".to_owned() } else { error.to_string() };
                let error =
                    format!("transport: Error while dialing: dial tcp {}: connect: {words}", target.addr);
                Ended::NotConnected { error }
            }
        }
    });
    match tokio::time::timeout(limit, &mut work).await {
        Ok(ended) => ended,
        Err(_) if note.is_connected() => work.await,
        Err(_) => Ended::NotConnected { error: "context deadline exceeded".to_owned() },
    }
}

/// Between -1 and 1, so that many probes of one server do not come together again.
fn chance() -> f64 {
    let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
    random * 2.0 - 1.0
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_without_a_first_frame_is_not_waited_for_beyond_its_limit() {
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = GrpcTarget { addr: mute.local_addr().unwrap(), service: "".into() };
        let mut tokio = tokio::runtime::Builder::new_current_thread();
        let tokio = tokio.enable_io().enable_time().build().unwrap();
        let mut progress = Progress::default();
        let limit = Duration::from_millis(10);
        let once = talk_once(&target, Mono::MAX, limit, Attempt::First, &mut progress);
        let ended = tokio.block_on(once);
        assert!(matches!(ended, Ended::NotConnected { .. }), "{ended:?}");
        assert_eq!((progress.connected(), progress.was_refused), (None, false));
        // Nobody listens.
        drop(mute);
        let once = talk_once(&target, Mono::MAX, Duration::from_secs(100), Attempt::First, &mut progress);
        let error =
            format!("transport: Error while dialing: dial tcp {}: connect: connection refused", target.addr);
        assert_eq!(tokio.block_on(once), Ended::NotConnected { error });
        assert!(progress.was_refused);
    }

    #[test]
    fn chances_differ_and_stay_between_their_ends() {
        let chances: Vec<f64> = (0..100).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (-1.0..=1.0).contains(chance)), "{chances:?}");
        assert!(chances.iter().any(|chance| *chance < 0.0) && chances.iter().any(|chance| *chance > 0.0));
    }
}
