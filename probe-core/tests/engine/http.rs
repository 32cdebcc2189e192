//! HTTP probes against well-behaved servers (conformance D and D2, as far as plain HTTP goes).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use probe_core::engine;
use probe_core::model::probe::{Host, RunResult, Target, Verdict};
use probe_core::ring::{RingKind, RingOptions, TaskRun, UringOptions, Waiting};
use probe_core::sys::clock;

use crate::bench::{Bench, check, http, http_with, on_both_rings};
use crate::server::{Request, Server, redirect, response};

on_both_rings!(
    requests_on_the_wire,
    httpx_09_every_run_is_a_new_connection,
    statuses_decide,
    bodies_count_up_to_ten_kib,
    redirects_are_followed_on_the_same_host,
    connections_that_fail,
    http_13_a_server_that_thinks_too_long,
    ipv6,
    one_probe_without_an_agent,
);

const TIMEOUT: Duration = Duration::from_secs(20);

/// Answers 200 if the request is as the case wants it, else 400.
#[track_caller]
fn check_request(
    bench: &mut Bench,
    id: &str,
    given: &[(&str, &str)],
    is_right: impl Fn(&Request) -> bool + Send + Sync + 'static,
) {
    let server = Server::http(move |request| response(if is_right(request) { 200 } else { 400 }, ""));
    let result = bench.run(http_with(server.addr, "/", given), TIMEOUT);
    check(id, server.addr, &result, Verdict::Success, None);
}

fn requests_on_the_wire(ring: RingKind) {
    let mut whole = Bench::new(ring);
    let bench = &mut whole;
    check_request(bench, "HTTP-02", &[("X-Muffins-Or-Cupcakes", "muffins")], |r| {
        r.header("X-Muffins-Or-Cupcakes") == Some("muffins")
    });
    check_request(bench, "HTTP-04", &[("User-Agent", "")], |r| r.header("User-Agent").is_none());
    check_request(bench, "HTTP-05", &[], |r| {
        r.header("User-Agent").is_some_and(|v| v.starts_with("kube-probe/"))
    });
    check_request(bench, "HTTP-06", &[("Accept", "foo/*")], |r| r.header("Accept") == Some("foo/*"));
    check_request(bench, "HTTP-07", &[("Accept", "")], |r| r.header("Accept").is_none());
    check_request(bench, "HTTP-08", &[("User-Agent", "foo/1.0"), ("Accept", "")], |r| {
        r.header("User-Agent") == Some("foo/1.0") && r.header("Accept").is_none()
    });
    check_request(bench, "HTTP-09", &[], |r| r.header("Accept") == Some("*/*"));
    check_request(bench, "HTTP-10", &[("Host", "muffins.cupcakes.org")], |r| {
        r.header("Host") == Some("muffins.cupcakes.org")
    });
    check_request(bench, "HTTPX-08", &[("X-A", "1"), ("X-A", "2")], |r| {
        r.headers.iter().filter(|line| line.starts_with("X-A: ")).count() == 2
    });
    check_request(bench, "HTTPX-09", &[], |r| {
        r.header("Connection") == Some("close")
            && r.header("Accept-Encoding").is_none()
            && r.header("Host").is_some_and(|host| host.starts_with("127.0.0.1:"))
    });
    whole.stop();
}

fn httpx_09_every_run_is_a_new_connection(ring: RingKind) {
    let server = Server::http(|_| response(200, ""));
    let mut bench = Bench::new(ring);
    let index = bench.arm(http(server.addr, "/"), Duration::from_millis(2), TIMEOUT);
    for _ in 0..50 {
        assert_eq!(bench.next_of(index).verdict, Verdict::Success);
    }
    bench.drop_probe(index);
    let runs = bench.stop().counters.runs();
    // The last run may have been cancelled on its way.
    assert!((runs..=runs + 1).contains(&server.accepted()), "{} for {runs} runs", server.accepted());
}

fn statuses(bench: &mut Bench) {
    let server = Server::http(|request| match request.path() {
        "/invalid" => Vec::new(),
        path => response(path.trim_start_matches('/').parse().unwrap(), "body"),
    });
    let cases = [
        ("HTTPX-01", vec![200, 204, 206, 299], Verdict::Success),
        ("HTTPX-03", vec![101, 400, 404, 499, 500, 503, 599, 600], Verdict::Failure),
        ("3xx", vec![300, 304, 305, 399], Verdict::Warning),
    ];
    for (id, codes, verdict) in cases {
        for code in codes {
            let result = bench.run(http(server.addr, &format!("/{code}")), TIMEOUT);
            let body = if code == 304 { "" } else { "body" };
            let detail = match verdict {
                Verdict::Failure => Some(format!("HTTP probe failed with statuscode: {code}")),
                Verdict::Warning => Some(format!("Probe terminated redirects, Response body: {body}")),
                Verdict::Success | Verdict::Errored | Verdict::Inconclusive => None,
            };
            check(&format!("{id} {code}"), server.addr, &result, verdict, detail.as_deref());
        }
    }
    let result = bench.run(http(server.addr, "/invalid"), TIMEOUT);
    check("HTTP-11", server.addr, &result, Verdict::Failure, Some("Get \"http://{addr}/invalid\": EOF"));
}

/// HTTP-11, HTTPX-01 and HTTPX-03: in `statuses`, which all rings share.
fn statuses_decide(ring: RingKind) {
    let mut bench = Bench::new(ring);
    statuses(&mut bench);
    bench.stop();
}

#[test]
fn statuses_decide_on_the_cooperative_ring() {
    let options = UringOptions { slots: 8, task_run: TaskRun::Cooperative, waiting: Waiting::InTwoCalls };
    let mut bench = Bench::with(RingOptions::Uring(options));
    statuses(&mut bench);
    bench.stop();
}

fn bodies_count_up_to_ten_kib(ring: RingKind) {
    let mut bench = Bench::new(ring);
    let server = Server::http(|request| {
        let len: usize = request.path().trim_start_matches('/').parse().unwrap();
        response(200, &"a".repeat(len))
    });
    for (id, len) in [("HTTP-33", 10_239), ("HTTPX-10", 10_240), ("HTTP-32", 10_241), ("huge", 3_000_000)] {
        let result = bench.run(http(server.addr, &format!("/{len}")), TIMEOUT);
        check(id, server.addr, &result, Verdict::Success, None);
    }
    let server =
        Server::http(|_| [b"HTTP/1.1 308 X\r\n\r\n".as_slice(), "b".repeat(20_000).as_bytes()].concat());
    let result = bench.run(http(server.addr, "/"), TIMEOUT);
    let shown = format!("Probe terminated redirects, Response body: {}", "b".repeat(10_240));
    check("Warning body", server.addr, &result, Verdict::Warning, Some(&shown));
    bench.stop();
}

fn redirects_are_followed_on_the_same_host(ring: RingKind) {
    let mut bench = Bench::new(ring);
    let failing = Server::http(|_| response(500, ""));
    let other: SocketAddr = failing.addr;
    let server = Server::http(move |request| match request.path() {
        "/loop" => redirect(302, "/loop"),
        "/elsewhere" => redirect(302, "http://0.0.0.0/fail"),
        "/other-port" => redirect(302, &format!("http://{other}/fail")),
        "/success"
            if request.header("Host").is_some_and(|h| h.starts_with("127.") || h == "www.success.com") =>
        {
            response(200, "")
        }
        "/success" => response(400, ""),
        "/no-location" => response(302, "x"),
        path => {
            let (status, to) = path[1..].split_once('/').unwrap();
            if status == "new" {
                response(to.parse().unwrap(), "")
            } else {
                redirect(status.parse().unwrap(), to)
            }
        }
    });
    let mut run =
        |path: &str, given: &[(&str, &str)]| bench.run(http_with(server.addr, path, given), TIMEOUT);
    let failed = Some("HTTP probe failed with statuscode: 500");
    for (ids, status) in [
        (("HTTP-14", "HTTP-15"), 301),
        (("HTTP-16", "HTTP-17"), 302),
        (("HTTP-18", "HTTP-19"), 307),
        (("HTTP-20", "308 to 500"), 308),
    ] {
        check(ids.0, server.addr, &run(&format!("/{status}//new/200"), &[]), Verdict::Success, None);
        check(ids.1, server.addr, &run(&format!("/{status}//new/500"), &[]), Verdict::Failure, failed);
    }
    // HTTP-23 too: there is one way to follow, and it does not matter on the same host.
    check("HTTP-22", server.addr, &run("/302//success", &[]), Verdict::Success, None);
    check("HTTP-24", server.addr, &run("/302//new/500", &[]), Verdict::Failure, failed);
    check("HTTP-26", server.addr, &run("/other-port", &[]), Verdict::Failure, failed);
    let warning = Some("Probe terminated redirects, Response body: ");
    check("HTTP-27", server.addr, &run("/elsewhere", &[]), Verdict::Warning, warning);
    let looped = Some("Get \"/loop\": stopped after 10 redirects");
    check("HTTP-29", server.addr, &run("/loop", &[]), Verdict::Failure, looped);
    let host = [("Host", "www.success.com")];
    check("HTTP-30", server.addr, &run("/302//success", &host), Verdict::Success, None);
    let host = [("Host", "www.fail.com")];
    let refused = Some("HTTP probe failed with statuscode: 400");
    check("HTTP-31", server.addr, &run("/302//success", &host), Verdict::Failure, refused);
    let warning = Some("Probe terminated redirects, Response body: x");
    check("302 without Location", server.addr, &run("/no-location", &[]), Verdict::Warning, warning);
    bench.stop();
}

fn connections_that_fail(ring: RingKind) {
    let mut bench = Bench::new(ring);
    let gone = Server::http(|_| Vec::new()).addr;
    let result = bench.run(http(gone, "/path"), TIMEOUT);
    let detail = "Get \"http://{addr}/path\": dial tcp {addr}: connect: connection refused";
    check("HTTPX-04", gone, &result, Verdict::Failure, Some(detail));
    bench.stop();
}

fn http_13_a_server_that_thinks_too_long(ring: RingKind) {
    let mut bench = Bench::new(ring);
    let server = Server::start("127.0.0.1:0", crate::server::Threads::Each, |stream| {
        crate::server::read_to_end(&stream);
    });
    let timeout = Duration::from_secs(1);
    let result = bench.run(http(server.addr, "/"), timeout);
    let detail =
        "Get \"http://{addr}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    check("HTTP-13", server.addr, &result, Verdict::Failure, Some(detail));
    assert!(crate::bench::took(&result) >= timeout);
    bench.stop();
}

fn ipv6(ring: RingKind) {
    let server = Server::http_on("[::1]:0", |request| {
        let is_right = request.header("Host").is_some_and(|host| host.starts_with("[::1]:"));
        response(if is_right { 200 } else { 400 }, "")
    });
    let mut bench = Bench::new(ring);
    let result = bench.run(http(server.addr, "/"), TIMEOUT);
    check("IPv6", server.addr, &result, Verdict::Success, None);
    bench.stop();
}

fn one_probe_without_an_agent(ring: RingKind) {
    let server = Server::http(|_| response(200, "ok"));
    let Target::Http(mut target) = http(server.addr, "/") else { panic!() };
    target.host = Host::Name("localhost".into());
    let run = |target: &Target| -> RunResult {
        engine::once(ring, Arc::new(target.clone()), TIMEOUT, clock::now).unwrap()
    };
    let result = run(&Target::Http(target.clone()));
    check("by name", server.addr, &result, Verdict::Success, None);
    let phases = result.phases;
    let steps = [
        Some(phases.due),
        phases.submitted,
        phases.connected,
        phases.sent,
        phases.first_byte,
        Some(phases.done),
    ];
    assert!(steps.iter().all(Option::is_some) && steps.is_sorted(), "{phases:?}");
    assert!(phases.resolved.is_some());
    target.host = Host::Name("no-such-host.invalid".into());
    let result = run(&Target::Http(target));
    assert_eq!(result.verdict, Verdict::Failure);
    assert!(result.detail.unwrap().contains("dial tcp: lookup no-such-host.invalid: "));
    let broken = run(&Target::Broken { error: "no port".into() });
    check("broken", server.addr, &broken, Verdict::Errored, Some("no port"));
}
