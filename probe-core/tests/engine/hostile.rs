//! Servers that break the rules: every attempt ends within its timeout, memory stays bounded, and no other
//! probe of the shard is disturbed.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use probe_core::model::probe::Verdict;
use probe_core::ring::RingKind;

use crate::bench::{Bench, ONCE, alone, check, http, on_both_rings, took};
use crate::server::{Request, Server, Threads, half_close, read_to_end, reset, response, write_forever};

on_both_rings!(every_attempt_ends_and_no_neighbour_is_disturbed,);

/// Of a hostile run; no answer of a hostile server needs longer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// A generous bound for a run with three attempts.
const END: Duration = Duration::from_secs(30);
const NEIGHBOURS: u32 = 100;
const RSS_GROWTH_MAX_KIB: u64 = 64 * 1024;

struct Case {
    id: &'static str,
    serve: fn(TcpStream),
    verdict: Verdict,
    /// None where the text depends on what the kernel saw first.
    detail: Option<&'static str>,
}

const BROKEN: &str = "Get \"http://{addr}/\": net/http: HTTP/1.x transport connection broken: ";
const NO_HEADERS: &str =
    "Get \"http://{addr}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
const BODY_STALLS: &str =
    "context deadline exceeded (Client.Timeout or context cancellation while reading body)";

/// Reads the request, writes `bytes`, closes.
fn answer(mut stream: TcpStream, bytes: &[u8]) {
    if Request::read(&stream).is_some() {
        let _ = stream.write_all(bytes);
    }
}

/// Reads the request, writes `bytes`, then waits until the prober has gone.
fn answer_and_stay(mut stream: TcpStream, bytes: &[u8]) {
    if Request::read(&stream).is_some() {
        let _ = stream.write_all(bytes);
        read_to_end(&stream);
    }
}

/// One byte every 20 ms, as long as the prober is there.
fn drip(mut stream: TcpStream, bytes: &[u8]) {
    let _ = Request::read(&stream);
    let (_never, ticks) = channel::<()>();
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        let _ = ticks.recv_timeout(Duration::from_millis(20));
    }
    read_to_end(&stream);
}

// Reason for length: one table of cases.
fn cases() -> Vec<Case> {
    let case = |id, serve, verdict, detail| Case { id, serve, verdict, detail };
    let (success, failure, errored) = (Verdict::Success, Verdict::Failure, Verdict::Errored);
    vec![
        case(
            "malformed status",
            |s| answer(s, b"HTTP/1.1 x OK\r\n\r\n"),
            failure,
            Some("malformed HTTP status code \"x\""),
        ),
        case(
            "no HTTP",
            |s| answer(s, b"220 smtp.example ESMTP\r\n"),
            failure,
            Some("malformed HTTP status code \"smtp.example\""),
        ),
        case(
            "speaks first",
            |mut s| {
                let _ = s.write_all(b"SSH-2.0-OpenSSH_9\r\n");
                read_to_end(&s);
            },
            failure,
            Some("malformed HTTP response \"SSH-2.0-OpenSSH_9\""),
        ),
        case(
            "bad header",
            |s| answer(s, b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
            failure,
            Some("malformed MIME header: missing colon: \"no colon\""),
        ),
        case(
            "bad length",
            |s| answer(s, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"),
            failure,
            Some("bad Content-Length \"99999999999999999999\""),
        ),
        case("half a head", |s| answer(s, b"HTTP/1.1 200 OK\r\nConte: "), failure, Some("unexpected EOF")),
        case(
            "endless head",
            |s| write_forever(&s, b"HTTP/1.1 200 OK\r\n", &b"X-Head: endless\r\n".repeat(1_000)),
            failure,
            Some("net/http: server response headers exceeded 16384 bytes; aborted"),
        ),
        case(
            "huge header",
            |s| write_forever(&s, b"HTTP/1.1 200 OK\r\nX: ", &[b'a'; 65_536]),
            failure,
            Some("net/http: server response headers exceeded 16384 bytes; aborted"),
        ),
        case(
            "endless garbage",
            |s| write_forever(&s, b"", &[0xff; 65_536]),
            failure,
            Some("net/http: server response headers exceeded 16384 bytes; aborted"),
        ),
        case(
            "endless interim",
            |s| write_forever(&s, b"", &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)),
            failure,
            None,
        ),
        case("never answers", |s| read_to_end(&s), failure, Some("<no headers>")),
        case(
            "dripping head",
            |s| {
                drip(
                    s,
                    &b"HTTP/1.1 200 OK\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                        .repeat(9),
                )
            },
            failure,
            Some("<no headers>"),
        ),
        case("no answer", |s| drop(Request::read(&s)), failure, Some("<EOF>")),
        case(
            "half closed without answer",
            |s| {
                let _ = Request::read(&s);
                half_close(&s);
                read_to_end(&s);
            },
            failure,
            Some("<EOF>"),
        ),
        case("closes at once", drop, failure, None),
        case("resets at once", reset, failure, None),
        case(
            "resets after the request",
            |s| {
                let _ = Request::read(&s);
                reset(s);
            },
            failure,
            None,
        ),
        case(
            "endless body",
            |s| {
                let _ = Request::read(&s);
                write_forever(&s, b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 65_536]);
            },
            success,
            None,
        ),
        case(
            "endless chunks",
            |s| {
                let _ = Request::read(&s);
                write_forever(
                    &s,
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                    &b"4\r\nabcd\r\n".repeat(1_000),
                );
            },
            success,
            None,
        ),
        case(
            "keeps the connection",
            |s| answer_and_stay(s, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            success,
            None,
        ),
        case(
            "talks on",
            |s| {
                let _ = Request::read(&s);
                write_forever(&s, b"HTTP/1.1 204 No\r\n\r\n", &[b'x'; 4_096]);
            },
            success,
            None,
        ),
        case(
            "half closed with answer",
            |mut s| {
                let _ = Request::read(&s);
                let _ = s.write_all(&response(200, "ok"));
                half_close(&s);
                read_to_end(&s);
            },
            success,
            None,
        ),
        case(
            "answers unread",
            |mut s| {
                let _ = s.write_all(&response(200, "ok"));
                half_close(&s);
                read_to_end(&s);
            },
            success,
            None,
        ),
        case(
            "10,000 chunks of one byte",
            |s| {
                answer(
                    s,
                    &[
                        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
                        &b"1\r\na\r\n".repeat(10_000),
                        b"0\r\n\r\n",
                    ]
                    .concat(),
                )
            },
            success,
            None,
        ),
        case(
            "body stalls",
            |s| answer_and_stay(s, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe"),
            errored,
            Some(BODY_STALLS),
        ),
        case(
            "body drips",
            |mut s| {
                let _ = s.write_all(
                    b"HTTP/1.1 200 OK
Content-Length: 9999

",
                );
                drip(s, &[b'x'; 9_000]);
            },
            errored,
            Some(BODY_STALLS),
        ),
        case(
            "body is cut",
            |s| answer(s, b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nhe"),
            errored,
            Some("unexpected EOF"),
        ),
        case(
            "bad chunk",
            |s| answer(s, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n"),
            errored,
            Some("invalid byte in chunk length"),
        ),
        case(
            "huge chunk",
            |s| answer(s, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n"),
            errored,
            Some("http chunk length too large"),
        ),
    ]
}

/// The text of a case as it stands in the event.
fn expected(case: &Case) -> Option<String> {
    let text = case.detail?;
    Some(match (text, case.verdict) {
        ("<no headers>", _) => NO_HEADERS.to_owned(),
        ("<EOF>", _) => "Get \"http://{addr}/\": EOF".to_owned(),
        (text, Verdict::Failure) => format!("{BROKEN}{text}"),
        (text, _) => text.to_owned(),
    })
}

fn every_attempt_ends_and_no_neighbour_is_disturbed(ring: RingKind) {
    // Memory is counted by process.
    alone(ring, "hostile::{ring}::every_attempt_ends_and_no_neighbour_is_disturbed", || {
        let rss_before_kib = rss_kib();
        every_attempt_ends(ring);
        let grown_kib = rss_kib().saturating_sub(rss_before_kib);
        assert!(grown_kib < RSS_GROWTH_MAX_KIB, "memory grew by {grown_kib} KiB");
    });
}

fn every_attempt_ends(ring: RingKind) {
    let mut bench = Bench::new(ring);
    let healthy = Server::http(|_| response(200, "ok"));
    let neighbours: Vec<u32> = (0..NEIGHBOURS)
        .map(|_| bench.arm(http(healthy.addr, "/"), Duration::from_millis(100), Duration::from_secs(30)))
        .collect();
    for index in &neighbours {
        assert_eq!(bench.next_of(*index).verdict, Verdict::Success);
    }
    let cases = cases();
    let servers: Vec<Server> =
        cases.iter().map(|case| Server::start("127.0.0.1:0", Threads::Each, case.serve)).collect();
    let running: Vec<u32> =
        servers.iter().map(|server| bench.arm(http(server.addr, "/"), ONCE, TIMEOUT)).collect();
    for ((case, server), index) in cases.iter().zip(&servers).zip(&running) {
        let first = bench.next_of(*index);
        let is_judged = first.verdict != Verdict::Inconclusive;
        let result = if is_judged { first } else { bench.run(http(server.addr, "/"), TIMEOUT) };
        if case.verdict == Verdict::Success || case.detail.is_some() {
            check(case.id, server.addr, &result, case.verdict, expected(case).as_deref());
        } else {
            assert_eq!(result.verdict, case.verdict, "{}: {result:?}", case.id);
            assert!(result.detail.is_some(), "{}", case.id);
        }
        assert!(took(&result) < END, "{} took {:?}", case.id, took(&result));
        let attempts = if case.verdict == Verdict::Errored { 3 } else { 1 };
        assert!(server.accepted() == attempts || !is_judged, "{}: {}", case.id, server.accepted());
    }
    for index in &neighbours {
        // One more than have come by now: the probe still runs.
        let before = bench.taken(*index).len();
        (0..=before).for_each(|_| assert_eq!(bench.next_of(*index).verdict, Verdict::Success));
        assert!(before > 0, "a neighbour stood still");
    }
    let stats = bench.stop();
    let ended_badly = stats.counters.failures + stats.counters.errored;
    assert_eq!(ended_badly, cases.iter().filter(|case| case.verdict != Verdict::Success).count() as u64);
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
