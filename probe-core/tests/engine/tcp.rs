//! TCP probes (conformance F).

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use probe_core::model::probe::Verdict;
use probe_core::ring::RingKind;
use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, listen, socket};

use crate::bench::{Bench, check, on_both_rings, tcp, took};
use crate::server::{Server, Threads, read_to_end};

on_both_rings!(
    open_and_closed_ports,
    a_server_that_never_accepts_is_open,
    nothing_is_sent_and_the_connection_ends,
    tcp_04_an_address_that_does_not_answer,
    stopping_ends_hundreds_of_connections_in_every_state,
);

const TIMEOUT: Duration = Duration::from_secs(20);

fn open_and_closed_ports(ring: RingKind) {
    let mut bench = Bench::new(ring);
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::start(listen, Threads::One, drop);
        let result = bench.run(tcp(server.addr), TIMEOUT);
        check(listen, server.addr, &result, Verdict::Success, None);
        let addr = server.addr;
        drop(server);
        let result = bench.run(tcp(addr), TIMEOUT);
        check(
            "TCP-03",
            addr,
            &result,
            Verdict::Failure,
            Some("dial tcp {addr}: connect: connection refused"),
        );
    }
    bench.stop();
}

fn a_server_that_never_accepts_is_open(ring: RingKind) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bench = Bench::new(ring);
    let addr = listener.local_addr().unwrap();
    let result = bench.run(tcp(addr), TIMEOUT);
    check("backlog", addr, &result, Verdict::Success, None);
    bench.stop();
}

fn nothing_is_sent_and_the_connection_ends(ring: RingKind) {
    let (sender, seen) = std::sync::mpsc::channel();
    let server = Server::start("127.0.0.1:0", Threads::Each, move |mut stream| {
        let mut bytes = Vec::new();
        let ended = std::io::Read::read_to_end(&mut stream, &mut bytes);
        let _ = sender.send((bytes.len(), ended.map_err(|error| error.kind())));
    });
    let mut bench = Bench::new(ring);
    assert_eq!(bench.run(tcp(server.addr), TIMEOUT).verdict, Verdict::Success);
    let (len, ended) = seen.recv_timeout(crate::bench::WATCHDOG).unwrap();
    assert_eq!(len, 0);
    // A bare TCP probe ends with a reset: no TIME_WAIT on either side.
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    bench.stop();
}

/// A listener whose queue is full drops further handshakes, as an unroutable address does. Returns what must
/// stay open for that.
fn black_hole() -> (SocketAddr, impl Sized) {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    listen(&listener, 0).unwrap();
    let addr = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let filling = TcpStream::connect(addr).unwrap();
    // A queue of length 0 holds one; a second handshake hangs, and we do not wait for it.
    let waiting = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    assert_eq!(connect(&waiting, &addr), Err(rustix::io::Errno::INPROGRESS));
    (addr, (listener, filling, waiting))
}

fn tcp_04_an_address_that_does_not_answer(ring: RingKind) {
    let (addr, _open) = black_hole();
    let mut bench = Bench::new(ring);
    let timeout = Duration::from_secs(1);
    let result = bench.run(tcp(addr), timeout);
    check("TCP-04", addr, &result, Verdict::Failure, Some("dial tcp {addr}: i/o timeout"));
    assert!(took(&result) >= timeout);
    let result = bench.run(crate::bench::http(addr, "/"), Duration::from_millis(300));
    let detail = "Get \"http://{addr}/\": dial tcp {addr}: i/o timeout (Client.Timeout exceeded while awaiting headers)";
    check("HTTP into a black hole", addr, &result, Verdict::Failure, Some(detail));
    bench.stop();
}

fn stopping_ends_hundreds_of_connections_in_every_state(ring: RingKind) {
    let (addr, _open) = black_hole();
    let hung = Server::start("127.0.0.1:0", Threads::Each, |stream| read_to_end(&stream));
    let mut bench = Bench::new(ring);
    for _ in 0..100 {
        bench.arm(tcp(addr), TIMEOUT, TIMEOUT);
        bench.arm(crate::bench::http(hung.addr, "/"), TIMEOUT, TIMEOUT);
        bench.arm(tcp(hung.addr), Duration::from_millis(1), TIMEOUT);
    }
    let done = bench.run(tcp(hung.addr), TIMEOUT);
    assert_eq!(done.verdict, Verdict::Success);
    let stats = bench.stop();
    assert!(stats.counters.abandoned >= 200, "{:?}", stats.counters);
}
