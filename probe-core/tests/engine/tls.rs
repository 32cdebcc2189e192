//! HTTPS probes against rustls servers, and against servers that only look like one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use probe_core::model::probe::{Target, Verdict};
use probe_core::ring::RingKind;
use probe_core::wire::tls::verified_by;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::bench::{Bench, WATCHDOG, check, http, https, keeping, on_both_rings};
use crate::server::{Server, Threads, half_close, read_to_end, redirect, response};

on_both_rings!(
    one_run_has_the_times_of_its_phases,
    statuses_decide_over_tls_too,
    bodies_of_all_sizes,
    any_certificate_will_do,
    certificates_are_checked_when_asked,
    servers_that_do_not_speak_tls,
    a_handshake_that_hangs_ends_with_the_timeout,
    redirects_between_http_and_https,
    one_session_serves_many_runs,
    an_idle_session_ends_in_order,
    a_goodbye_is_the_end_of_an_answer,
    an_idle_session_that_says_goodbye_is_not_used_again,
);

const TIMEOUT: Duration = Duration::from_secs(20);

/// A certificate that vouches for itself.
struct Identity {
    config: Arc<ServerConfig>,
    pem: String,
}

fn identity(names: &[&str]) -> Identity {
    identity_of(&params(names))
}

fn params(names: &[&str]) -> rcgen::CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    rcgen::CertificateParams::new(names).unwrap()
}

fn identity_of(params: &rcgen::CertificateParams) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let der: CertificateDer<'static> = certificate.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    Identity { config: Arc::new(config), pem: certificate.pem() }
}

type Secured = StreamOwned<ServerConnection, TcpStream>;

/// A request's path; None at the end of the connection.
fn next_request(stream: &mut Secured) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    Ok(text.split(' ').nth(1).map(str::to_owned))
}

/// Answers every request of a connection; `ends` is told how each connection ended.
fn serve(
    identity: &Identity,
    ends: Sender<Result<(), String>>,
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> Server {
    let config = identity.config.clone();
    Server::start("127.0.0.1:0", Threads::Each, move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        let ended = loop {
            match next_request(&mut stream) {
                Ok(Some(path)) => {
                    if let Err(error) = stream.write_all(&answer(&path)).and_then(|()| stream.flush()) {
                        break Err(error.to_string());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        let _ = ends.send(ended);
    })
}

fn serve_quietly(identity: &Identity, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Server {
    serve(identity, channel().0, answer)
}

#[track_caller]
fn check_ends(ends: &Receiver<Result<(), String>>, count: usize) {
    for _ in 0..count {
        assert_eq!(ends.recv_timeout(WATCHDOG).unwrap(), Ok(()), "the server sees an orderly end");
    }
}

fn statuses_decide_over_tls_too(ring: RingKind) {
    let (sender, ends) = channel();
    let identity = identity(&["example.com"]);
    let server = serve(&identity, sender, |path| response(path[1..].parse().unwrap_or(200), "body"));
    let mut bench = Bench::new(ring);
    for (path, verdict, detail) in [
        ("/200", Verdict::Success, None),
        ("/503", Verdict::Failure, Some("HTTP probe failed with statuscode: 503")),
        ("/304", Verdict::Warning, Some("Probe terminated redirects, Response body: ")),
    ] {
        let result = bench.run(https(server.addr, path, None), TIMEOUT);
        check(path, server.addr, &result, verdict, detail);
    }
    check_ends(&ends, 3);
    bench.stop();
}

fn bodies_of_all_sizes(ring: RingKind) {
    let identity = identity(&["example.com"]);
    let server = serve_quietly(&identity, |path| response(200, &"a".repeat(path[1..].parse().unwrap())));
    let mut bench = Bench::new(ring);
    for len in [0, 1, 9_000, 10_239, 10_240, 10_241, 16_384, 100_000, 1_000_000] {
        let result = bench.run(https(server.addr, &format!("/{len}"), None), TIMEOUT);
        check(&len.to_string(), server.addr, &result, Verdict::Success, None);
    }
    bench.stop();
}

fn any_certificate_will_do(ring: RingKind) {
    let mut expired = params(&["127.0.0.1"]);
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let mut bench = Bench::new(ring);
    for (id, params) in [
        ("HTTPX-05 self-signed", params(&["127.0.0.1"])),
        ("HTTPX-05 expired", expired),
        ("HTTPX-05 wrong name", params(&["other.example.com"])),
    ] {
        let server = serve_quietly(&identity_of(&params), |_| response(200, ""));
        let result = bench.run(https(server.addr, "/", None), TIMEOUT);
        check(id, server.addr, &result, Verdict::Success, None);
    }
    bench.stop();
}

fn certificates_are_checked_when_asked(ring: RingKind) {
    let (ours, other) = (identity(&["shop.example.com"]), identity(&["shop.example.com"]));
    let (sender, ends) = channel();
    let server = serve(&ours, sender, |_| response(200, ""));
    let trusted = verified_by(ours.pem.as_bytes()).unwrap();
    let untrusted = verified_by(other.pem.as_bytes()).unwrap();
    let mut bench = Bench::new(ring);
    let result = bench.run(https(server.addr, "/", Some((trusted.clone(), "shop.example.com"))), TIMEOUT);
    check("trusted", server.addr, &result, Verdict::Success, None);
    check_ends(&ends, 1);
    for (config, name, words) in [
        (untrusted, "shop.example.com", "certificate signed by unknown authority"),
        (trusted, "x.example.com", "certificate is valid for shop.example.com, not x.example.com"),
    ] {
        let result = bench.run(https(server.addr, "/", Some((config, name))), TIMEOUT);
        let text = format!("Get \"https://{{addr}}/\": tls: failed to verify certificate: x509: {words}");
        check(words, server.addr, &result, Verdict::Failure, Some(&text));
        // The server learns why.
        let ended = ends.recv_timeout(WATCHDOG).unwrap().unwrap_err();
        assert!(ended.contains("received fatal alert"), "{ended}");
    }
    bench.stop();
}

fn servers_that_do_not_speak_tls(ring: RingKind) {
    let mut bench = Bench::new(ring);
    let get = "Get \"https://{addr}/\": ";
    // To TLS it says what plain servers say, to a request it answers.
    let plain = Server::start("127.0.0.1:0", Threads::One, |mut stream| {
        let mut first = [0];
        let _ = stream.peek(&mut first);
        let _ = match first {
            [b'G'] => stream.write_all(&response(200, "")),
            _ => stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        };
        half_close(&stream);
        read_to_end(&stream);
    });
    let plain_answer = Server::start("127.0.0.1:0", Threads::One, |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        half_close(&stream);
        read_to_end(&stream);
    });
    let ssh = Server::start("127.0.0.1:0", Threads::One, |mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        half_close(&stream);
        read_to_end(&stream);
    });
    let closes = Server::start("127.0.0.1:0", Threads::One, |stream| {
        half_close(&stream);
        read_to_end(&stream);
    });
    let torn = Server::start("127.0.0.1:0", Threads::One, |mut stream| {
        let _ = stream.write_all(&[22, 3, 3, 0, 50, 2]);
        half_close(&stream);
        read_to_end(&stream);
    });
    let refuses = Server::start("127.0.0.1:0", Threads::One, |mut stream| {
        let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]);
        half_close(&stream);
        read_to_end(&stream);
    });
    for (id, server, words) in [
        ("HTTPX-06", &plain_answer, "http: server gave HTTP response to HTTPS client"),
        ("ssh", &ssh, "tls: first record does not look like a TLS handshake"),
        ("close", &closes, "EOF"),
        ("torn record", &torn, "unexpected EOF"),
        ("alert", &refuses, "remote error: tls: handshake failure"),
    ] {
        let result = bench.run(https(server.addr, "/", None), TIMEOUT);
        check(id, server.addr, &result, Verdict::Failure, Some(&format!("{get}{words}")));
    }
    // A hook asks once more.
    let mut target = https(plain.addr, "/", None);
    let Target::Http(http) = &mut target else { panic!("an HTTP target") };
    http.special.as_mut().unwrap().falls_back_to_http = true;
    let result = bench.run(target, TIMEOUT);
    check("HOOK", plain.addr, &result, Verdict::Success, None);
    bench.stop();
}

fn a_handshake_that_hangs_ends_with_the_timeout(ring: RingKind) {
    let silent = Server::start("127.0.0.1:0", Threads::Each, |stream| read_to_end(&stream));
    let mut bench = Bench::new(ring);
    let result = bench.run(https(silent.addr, "/", None), Duration::from_millis(150));
    let text =
        "Get \"https://{addr}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    check("hang", silent.addr, &result, Verdict::Failure, Some(text));
    bench.stop();
}

fn redirects_between_http_and_https(ring: RingKind) {
    let identity = identity(&["example.com"]);
    let end = Server::http(|_| response(200, "plain"));
    let plain_addr = end.addr;
    let secure = serve_quietly(&identity, move |path| match path {
        "/down" => redirect(302, &format!("http://{plain_addr}/")),
        "/again" => redirect(302, "/here"),
        _ => response(200, "secure"),
    });
    let secure_addr = secure.addr;
    let start =
        Server::http(move |request| redirect(302, &format!("https://{secure_addr}{}", request.path())));
    let mut bench = Bench::new(ring);
    for (id, target) in [
        ("http to https", http(start.addr, "/x")),
        ("and back", http(start.addr, "/down")),
        ("https to http", https(secure.addr, "/down", None)),
        ("https to https", https(secure.addr, "/again", None)),
    ] {
        let result = bench.run(target, TIMEOUT);
        check(id, secure.addr, &result, Verdict::Success, None);
    }
    bench.stop();
}

fn one_session_serves_many_runs(ring: RingKind) {
    let identity = identity(&["example.com"]);
    let server = serve_quietly(&identity, |_| response(200, "ok"));
    let mut bench = Bench::new(ring);
    let index = bench.arm(keeping(https(server.addr, "/", None)), Duration::from_millis(2), TIMEOUT);
    for _ in 0..50 {
        assert_eq!(bench.next_of(index).verdict, Verdict::Success);
    }
    bench.drop_probe(index);
    let stats = bench.stop();
    assert_eq!(server.accepted(), 1);
    assert!(stats.counters.reused >= 49, "{:?}", stats.counters);
}

fn an_idle_session_ends_in_order(ring: RingKind) {
    let (sender, ends) = channel();
    let identity = identity(&["example.com"]);
    let server = serve(&identity, sender, |_| response(200, "ok"));
    let mut bench = Bench::new(ring);
    // Its outcome is in, so nothing is in flight when it is dropped.
    assert_eq!(bench.run(keeping(https(server.addr, "/", None)), TIMEOUT).verdict, Verdict::Success);
    check_ends(&ends, 1);
    bench.stop();
}

fn one_run_has_the_times_of_its_phases(ring: RingKind) {
    let identity = identity(&["example.com"]);
    let server = serve_quietly(&identity, |_| response(200, "ok"));
    let target = Arc::new(https(server.addr, "/", None));
    let result = probe_core::engine::once(ring, target, TIMEOUT, probe_core::sys::clock::now).unwrap();
    check("once", server.addr, &result, Verdict::Success, None);
    let phases = result.phases;
    let times = [phases.submitted, phases.connected, phases.sent, phases.first_byte, Some(phases.done)];
    assert!(times.iter().all(Option::is_some) && times.is_sorted(), "{phases:?}");
}

/// Answers one request, says goodbye, and leaves the connection open. How each connection then ended comes out of the
/// channel.
fn serve_and_say_goodbye(
    identity: &Identity,
    answer: &'static [u8],
) -> (Server, Receiver<Result<(), ErrorKind>>) {
    let config = identity.config.clone();
    let (ended, endings) = channel();
    let server = Server::start("127.0.0.1:0", Threads::Each, move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        if matches!(next_request(&mut stream), Ok(Some(_))) {
            let _ = stream.write_all(answer).and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
            let _ = ended.send(loop {
                match stream.sock.read(&mut [0; 256]) {
                    Ok(0) => break Ok(()),
                    Ok(_) => {}
                    Err(error) => break Err(error.kind()),
                }
            });
        }
    });
    (server, endings)
}

fn a_goodbye_is_the_end_of_an_answer(ring: RingKind) {
    let identity = identity(&["example.com"]);
    let mut bench = Bench::new(ring);
    let (whole, endings) = serve_and_say_goodbye(&identity, b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
    let result = bench.run(https(whole.addr, "/", None), TIMEOUT);
    check("until the end", whole.addr, &result, Verdict::Success, None);
    assert_eq!(endings.recv_timeout(WATCHDOG), Ok(Ok(())), "no reset");
    let (empty, _endings) = serve_and_say_goodbye(&identity, b"");
    let result = bench.run(https(empty.addr, "/", None), TIMEOUT);
    check("empty", empty.addr, &result, Verdict::Failure, Some("Get \"https://{addr}/\": EOF"));
    bench.stop();
}

fn an_idle_session_that_says_goodbye_is_not_used_again(ring: RingKind) {
    let identity = identity(&["example.com"]);
    let (server, endings) =
        serve_and_say_goodbye(&identity, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut bench = Bench::new(ring);
    let index = bench.arm(keeping(https(server.addr, "/", None)), Duration::from_millis(50), TIMEOUT);
    for _ in 0..5 {
        let result = bench.next_of(index);
        check("after a goodbye", server.addr, &result, Verdict::Success, None);
    }
    assert!(server.accepted() >= 5);
    for _ in 0..4 {
        assert_eq!(endings.recv_timeout(WATCHDOG), Ok(Ok(())), "no reset");
    }
    bench.drop_probe(index);
    bench.stop();
}
