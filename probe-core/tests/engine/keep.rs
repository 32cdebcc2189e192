//! Kept connections and orderly ends, on the real ring.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use probe_core::model::probe::{Target, TcpClose, Verdict};
use probe_core::ring::{RingKind, RingOptions};

use crate::bench::{Bench, WATCHDOG, http, keeping, on_both_rings, tcp};
use crate::server::{Request, Server, Threads, response};

on_both_rings!(
    one_connection_serves_many_runs,
    servers_that_close_after_some_requests_fail_nobody,
    more_probes_than_places,
    a_bare_probe_ends_in_order_when_asked,
);

const TIMEOUT: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_millis(2);

/// Answers up to `requests` requests on each connection, then closes it.
fn server(requests: usize) -> Server {
    Server::start("127.0.0.1:0", Threads::Each, move |mut stream: TcpStream| {
        for _ in 0..requests {
            let Some(_) = Request::read(&stream) else { return };
            if stream.write_all(&response(200, "ok")).is_err() {
                return;
            }
        }
    })
}

fn one_connection_serves_many_runs(ring: RingKind) {
    let server = server(usize::MAX);
    let mut bench = Bench::new(ring);
    let index = bench.arm(keeping(http(server.addr, "/")), PERIOD, TIMEOUT);
    for _ in 0..100 {
        assert_eq!(bench.next_of(index).verdict, Verdict::Success);
    }
    bench.drop_probe(index);
    let stats = bench.stop();
    assert_eq!(server.accepted(), 1);
    assert!(stats.counters.reused >= 99, "{:?}", stats.counters);
}

fn servers_that_close_after_some_requests_fail_nobody(ring: RingKind) {
    for requests in [1, 2, 7] {
        let server = server(requests);
        let mut bench = Bench::new(ring);
        let index = bench.arm(keeping(http(server.addr, "/")), PERIOD, TIMEOUT);
        for n in 0..200 {
            let result = bench.next_of(index);
            assert_eq!(result.verdict, Verdict::Success, "run {n} of {requests} per connection: {result:?}");
        }
        bench.drop_probe(index);
        bench.stop();
        assert!(server.accepted() >= 200 / requests as u64, "{}", server.accepted());
    }
}

fn more_probes_than_places(ring: RingKind) {
    let server = server(usize::MAX);
    let mut bench = Bench::with(RingOptions::best(ring, 8));
    let probes: Vec<u32> =
        (0..12).map(|_| bench.arm(keeping(http(server.addr, "/")), PERIOD, TIMEOUT)).collect();
    for _ in 0..50 {
        for index in &probes {
            assert_eq!(bench.next_of(*index).verdict, Verdict::Success);
        }
    }
    probes.iter().for_each(|index| bench.drop_probe(*index));
    bench.stop();
}

fn a_bare_probe_ends_in_order_when_asked(ring: RingKind) {
    let (sender, seen) = channel();
    let server = Server::start("127.0.0.1:0", Threads::Each, move |mut stream| {
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        let _ = sender.send((bytes.len(), ended.map_err(|error| error.kind())));
    });
    let mut bench = Bench::new(ring);
    for _ in 0..20 {
        let Target::Tcp(mut target) = tcp(server.addr) else { panic!("a TCP target") };
        target.close = TcpClose::Graceful;
        assert_eq!(bench.run(Target::Tcp(target), TIMEOUT).verdict, Verdict::Success);
        assert_eq!(seen.recv_timeout(WATCHDOG).unwrap(), (0, Ok(0)));
    }
    bench.stop();
}
