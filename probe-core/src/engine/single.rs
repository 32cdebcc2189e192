//! One probe without an agent: a shard of its own on the calling thread.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use super::{EngineError, Shard, is_shortage};
use crate::model::id::Ticket;
use crate::model::probe::{LookupError, ProbeCmd, ProbeEvent, RunResult, Target, Verdict};
use crate::model::time::Now;
use crate::ring::{Driver, Epoll, Errno, RingKind, RingOptions, Uring, Waker};

/// Slots of the private ring: one run, and nothing waits.
const SLOTS: u32 = 1;
/// To one question: that it is being looked up, and the answer.
const ANSWERS: usize = 2;

/// Probes `target` once on a ring of its own, step by step, and returns the outcome with the time of each phase. `clock` reads
/// the time (`sys::clock::now`). A host name is looked up by a thread of its own, within `timeout`.
///
/// # Errors
/// The kernel refuses a ring; the text names the cure.
pub fn once(
    ring: RingKind,
    target: Arc<Target>,
    timeout: Duration,
    clock: fn() -> Now,
) -> Result<RunResult, EngineError> {
    match RingOptions::best(ring, SLOTS) {
        RingOptions::Uring(options) => once_on(Uring::new(options, clock)?, target, timeout, clock),
        RingOptions::Epoll { slots } => once_on(Epoll::new(slots, clock)?, target, timeout, clock),
    }
}

fn once_on(
    ring: impl Driver,
    target: Arc<Target>,
    timeout: Duration,
    clock: fn() -> Now,
) -> Result<RunResult, EngineError> {
    let mut shard = Shard::new(ring);
    let waker = shard.ring().waker();
    let (answers, resolved) = bounded(ANSWERS);
    let mut inputs = vec![ProbeCmd::Once { ticket: Ticket(0), target, timeout }];
    let mut out = Vec::new();
    let mut result = None;
    loop {
        inputs.extend(resolved.try_iter());
        let wake = shard.turn(clock(), &mut inputs, &mut out);
        for event in out.drain(..) {
            match event {
                ProbeEvent::OnceDone { outcome, .. } => result = Some(outcome),
                ProbeEvent::Resolve { ticket, host, .. } => {
                    resolve_aside(ticket, host, answers.clone(), waker.clone())?;
                }
                // Nothing is armed, and gRPC is called without an engine, so none of these comes.
                ProbeEvent::Outcome(_)
                | ProbeEvent::ExecDue { .. }
                | ProbeEvent::CallDue { .. }
                | ProbeEvent::CallCut { .. } => {}
            }
        }
        if let Some(result) = result.take_if(|_| shard.is_idle()) {
            return Ok(result);
        }
        waker.fall_asleep();
        let sleep = if resolved.is_empty() { wake.since(clock().mono) } else { Duration::ZERO };
        shard.ring_mut().submit_and_wait(Duration::ZERO, sleep)?;
        waker.awake();
    }
}

/// Looks a host name up with the system's resolver. Blocks, for as long as the resolver likes. IPv4 comes
/// first: only one address is tried, and a server that listens on one family mostly listens on this one.
///
/// # Errors
/// Go's text for it: `lookup NAME: no such host`.
pub fn resolve(host: &str) -> Result<IpAddr, LookupError> {
    first_of(host, (host, 0).to_socket_addrs().map(|addrs| addrs.map(|addr| addr.ip())))
}

/// What the system's resolver said of `host`, as one address.
fn first_of(host: &str, found: io::Result<impl Iterator<Item = IpAddr>>) -> Result<IpAddr, LookupError> {
    let failed = |verdict, problem: &str| {
        let text = format!("lookup {host}: {problem}").into_boxed_str();
        LookupError { verdict, text }
    };
    let mut ips: Vec<IpAddr> = match found {
        Ok(ips) => ips.collect(),
        Err(error) => return Err(failed(verdict(&error), problem(&error.to_string()))),
    };
    ips.sort_by_key(IpAddr::is_ipv6);
    ips.first().copied().ok_or_else(|| failed(Verdict::Failure, "no such host"))
}

/// Whether the name is to blame, or this host had no descriptor or memory left to ask with.
fn verdict(error: &io::Error) -> Verdict {
    // EAI_MEMORY has no number here: the words of glibc and musl.
    const NO_MEMORY: [&str; 2] = ["Memory allocation failure", "Out of memory"];
    let is_ours = match Errno::from_io_error(error) {
        Some(errno) => is_shortage(errno),
        None => NO_MEMORY.iter().any(|words| error.to_string().contains(words)),
    };
    if is_ours { Verdict::Errored } else { Verdict::Failure }
}

/// The resolver's words in Go's.
fn problem(text: &str) -> &str {
    const NOT_FOUND: [&str; 3] =
        ["Name or service not known", "No address associated", "nodename nor servname"];
    if NOT_FOUND.iter().any(|known| text.contains(known)) {
        "no such host"
    } else if text.contains("Temporary failure") {
        "server misbehaving"
    } else {
        text
    }
}

fn resolve_aside(
    ticket: Ticket,
    host: Box<str>,
    answers: Sender<ProbeCmd>,
    waker: Waker,
) -> Result<(), EngineError> {
    let name = "resolver".to_owned();
    let body = move || {
        let _ = answers.try_send(ProbeCmd::Resolving { ticket });
        waker.wake();
        let addr = resolve(&host);
        // The probe may be over by now; then nobody reads the answer.
        let _ = answers.try_send(ProbeCmd::Resolved { ticket, addr });
        waker.wake();
    };
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(body)
        .map(drop)
        .map_err(|source| EngineError::Thread { name, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_local_names_resolve() {
        assert_eq!(resolve("127.0.0.1"), Ok(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(resolve("localhost"), Ok(IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn the_first_address_of_ipv4_is_taken() {
        let of = |ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            first_of("n", Ok(ips.into_iter())).map(|ip| ip.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(of(&["::1", "127.0.0.2", "127.0.0.1"]).as_deref(), Ok("127.0.0.2"));
        assert_eq!(of(&["fd00::2", "::1"]).as_deref(), Ok("fd00::2"));
        assert_eq!(of(&[]).unwrap_err(), "lookup n: no such host");
    }

    #[test]
    fn what_this_host_lacks_is_no_failure_of_the_name() {
        let prefix = "failed to lookup address information: ";
        let said = |words: &str| io::Error::other(format!("{prefix}{words}"));
        let cases = [
            (io::Error::from(Errno::MFILE), Verdict::Errored),
            (io::Error::from(Errno::NOMEM), Verdict::Errored),
            (said("Memory allocation failure"), Verdict::Errored),
            (io::Error::from(Errno::CONNREFUSED), Verdict::Failure),
            (said("Name or service not known"), Verdict::Failure),
            (said("Temporary failure in name resolution"), Verdict::Failure),
        ];
        for (error, expected) in cases {
            let text = error.to_string();
            let none = Err::<std::iter::Empty<IpAddr>, _>(error);
            assert_eq!(first_of("n", none).unwrap_err().verdict, expected, "{text}");
        }
    }

    #[test]
    fn the_resolvers_words_become_gos() {
        let prefix = "failed to lookup address information: ";
        assert_eq!(problem(&format!("{prefix}Name or service not known")), "no such host");
        assert_eq!(problem(&format!("{prefix}Temporary failure in name resolution")), "server misbehaving");
        assert_eq!(problem("odd"), "odd");
    }
}
