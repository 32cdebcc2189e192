//! What many runs leave behind: nothing. Descriptors belong to the process, so each of these tests runs in
//! one of its own.

use std::net::SocketAddr;
use std::time::Duration;

use probe_core::model::probe::Verdict;
use probe_core::ring::RingKind;

use crate::bench::{Bench, alone, http, on_both_rings, tcp};
use crate::server::{Server, Threads, response};

on_both_rings!(
    ten_thousand_runs_leave_no_descriptor_and_no_time_wait,
    engines_that_come_and_go_leave_no_descriptor,
);

const PROBES: u32 = 50;
const RUNS_EACH: u32 = 200;
const ENGINES: u32 = 50;
/// As /proc/net/tcp writes it.
const TIME_WAIT: &str = "06";

fn ten_thousand_runs_leave_no_descriptor_and_no_time_wait(ring: RingKind) {
    alone(ring, "leaks::{ring}::ten_thousand_runs_leave_no_descriptor_and_no_time_wait", || {
        let before = descriptors_at_rest(ring);
        ten_thousand_runs(ring);
        assert_eq!(descriptors(), before);
    });
}

fn ten_thousand_runs(ring: RingKind) {
    let server = Server::http(|_| response(200, "ok"));
    let bare = Server::start("127.0.0.1:0", Threads::One, drop);
    // The ports may have belonged to servers of other tests a moment ago.
    let time_waits = || client_time_waits(server.addr) + client_time_waits(bare.addr);
    let time_waits_before = time_waits();
    let mut bench = Bench::new(ring);
    let timeout = Duration::from_secs(30);
    let mut probes: Vec<u32> = Vec::new();
    for n in 0..PROBES {
        let target = if n % 5 == 0 { tcp(bare.addr) } else { http(server.addr, "/") };
        probes.push(bench.arm(target, Duration::from_millis(5), timeout));
    }
    let take = |bench: &mut Bench, runs: u32| {
        for index in &probes {
            for _ in 0..runs {
                let result = bench.next_of(*index);
                assert_eq!(result.verdict, Verdict::Success, "{result:?}");
            }
        }
    };
    take(&mut bench, 1);
    // A probe has at most two slots, one of them tidying up, and a slot keeps two sockets for these targets.
    let at_most = descriptors() + 4 * PROBES as usize;
    take(&mut bench, RUNS_EACH - 1);
    assert!(descriptors() <= at_most, "{} descriptors, not {at_most}", descriptors());
    assert!(time_waits() <= time_waits_before, "{} TIME_WAIT, {time_waits_before} before", time_waits());
    let stats = bench.stop();
    assert!(stats.counters.runs() >= u64::from(PROBES * RUNS_EACH), "{:?}", stats.counters);
    assert_eq!(stats.counters.replaced_sockets, 0, "{:?}", stats.counters);
}

fn engines_that_come_and_go_leave_no_descriptor(ring: RingKind) {
    alone(ring, "leaks::{ring}::engines_that_come_and_go_leave_no_descriptor", || {
        let before = descriptors_at_rest(ring);
        for _ in 0..ENGINES {
            let server = Server::http(|_| response(200, "ok"));
            let mut bench = Bench::new(ring);
            let result = bench.run(http(server.addr, "/"), Duration::from_secs(30));
            assert_eq!(result.verdict, Verdict::Success);
            bench.stop();
        }
        assert_eq!(descriptors(), before);
    });
}

/// After a first engine: with its first runtime tokio opens two descriptors that stay for the whole process.
fn descriptors_at_rest(ring: RingKind) -> usize {
    Bench::new(ring).stop();
    descriptors()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// TIME_WAIT entries of the prober's side towards `server`.
fn client_time_waits(server: SocketAddr) -> usize {
    let port = format!(":{:04X}", server.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let is_ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some(TIME_WAIT)
    };
    table.lines().filter(is_ours).count()
}
