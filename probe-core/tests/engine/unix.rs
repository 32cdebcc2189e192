//! Targets on Unix sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use probe_core::model::probe::{Target, Verdict};
use probe_core::ring::RingKind;

use crate::bench::{Bench, at_path, check, http, on_both_rings, tcp};

on_both_rings!(
    descriptors_that_a_server_passes_are_not_taken,
    http_over_a_unix_socket,
    nobody_at_the_path,
    a_connection_to_a_path_is_a_whole_probe,
    a_full_backlog_at_a_path_waits_for_the_deadline,
);

const TIMEOUT: Duration = Duration::from_secs(20);

/// What the request's Host line names.
fn named() -> SocketAddr {
    "127.0.0.1:8080".parse().unwrap()
}

/// Serves `connections` with `serve`, one after the other; then nobody listens.
fn serve(path: &Path, connections: usize, serve: impl Fn(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            serve(stream);
        }
    });
}

fn request_of(stream: &UnixStream) -> Vec<String> {
    BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect()
}

fn http_over_a_unix_socket(ring: RingKind) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.sock");
    let (sender, requests) = std::sync::mpsc::channel();
    serve(&path, 6, move |mut stream| {
        sender.send(request_of(&stream)).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut bench = Bench::new(ring);
    for _ in 0..6 {
        let result = bench.run(at_path(http(named(), "/healthz"), &path), TIMEOUT);
        check("over a path", named(), &result, Verdict::Success, None);
    }
    let request = requests.recv_timeout(crate::bench::WATCHDOG).unwrap();
    assert_eq!(request[..2], ["GET /healthz HTTP/1.1", "Host: 127.0.0.1:8080"], "{request:?}");
    bench.stop();
}

fn nobody_at_the_path(ring: RingKind) {
    let dir = tempfile::tempdir().unwrap();
    let (missing, dead) = (dir.path().join("missing.sock"), dir.path().join("dead.sock"));
    drop(UnixListener::bind(&dead).unwrap());
    let mut bench = Bench::new(ring);
    let mut failed = |target: Target, path: &Path, context: &str, words: &str| {
        let result = bench.run(at_path(target, path), TIMEOUT);
        let text = format!("{context}dial unix {}: connect: {words}", path.display());
        check(words, named(), &result, Verdict::Failure, Some(&text));
    };
    failed(tcp(named()), &missing, "", "no such file or directory");
    failed(tcp(named()), &dead, "", "connection refused");
    failed(http(named(), "/"), &dead, "Get \"http://{addr}/\": ", "connection refused");
    bench.stop();
}

fn a_connection_to_a_path_is_a_whole_probe(ring: RingKind) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let (sender, seen) = std::sync::mpsc::channel();
    serve(&path, 20, move |mut stream| {
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        sender.send((bytes.len(), ended.is_ok())).unwrap();
    });
    let mut bench = Bench::new(ring);
    let index = bench.arm(at_path(tcp(named()), &path), Duration::from_millis(2), TIMEOUT);
    for _ in 0..20 {
        assert_eq!(bench.next_of(index).verdict, Verdict::Success);
    }
    bench.drop_probe(index);
    // Every one of them ends with an end of file.
    for _ in 0..20 {
        assert_eq!(seen.recv_timeout(crate::bench::WATCHDOG).unwrap(), (0, true));
    }
    bench.stop();
}

fn descriptors_that_a_server_passes_are_not_taken(ring: RingKind) {
    crate::bench::alone(ring, "unix::{ring}::descriptors_that_a_server_passes_are_not_taken", || {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        serve(&path, 21, |stream| {
            let _request = request_of(&stream);
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let passed = [stream.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
            let answer = std::io::IoSlice::new(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            sendmsg(&stream, &[answer], &mut control, SendFlags::empty()).unwrap();
        });
        let mut bench = Bench::new(ring);
        let mut run = || bench.run(at_path(http(named(), "/"), &path), TIMEOUT).verdict;
        assert_eq!(run(), Verdict::Success);
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        for _ in 0..20 {
            assert_eq!(run(), Verdict::Success);
        }
        // The server and the slots in use have some of their own.
        assert!(descriptors() <= before + 8, "{} descriptors, {before} before", descriptors());
        bench.stop();
    });
}

fn a_full_backlog_at_a_path_waits_for_the_deadline(ring: RingKind) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.sock");
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // The kernel takes one more than the backlog.
    let _first = UnixStream::connect(&path).unwrap();
    let mut bench = Bench::new(ring);
    let result = bench.run(at_path(tcp(named()), &path), Duration::from_millis(100));
    let text = format!("dial unix {}: i/o timeout", path.display());
    check("full", named(), &result, Verdict::Failure, Some(&text));
    // The same for a request, and the slot is usable again.
    let result = bench.run(at_path(http(named(), "/"), &path), Duration::from_millis(100));
    assert_eq!(result.verdict, Verdict::Failure);
    bench.stop();
}
