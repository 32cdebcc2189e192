//! Against clients of the standard library.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

#[test]
fn the_target_is_the_number_in_the_path() {
    assert_eq!(target_of(b"GET /t/17 HTTP/1.1\r\n\r\n"), Some(17));
    assert_eq!(target_of(b"GET /t/x HTTP/1.1\r\n\r\n"), None);
    assert_eq!(target_of(b"GET / HTTP/1.1\r\n\r\n"), None);
}

#[test]
fn requests_are_counted_and_fail_by_script() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Script { every: 2, cycle: 3, window_first: 1, window_length: 1 };
    let server = Server::start(listener, Plan { targets: 2, script, delays: Delays::NONE }, None).unwrap();
    let get = |target: usize| {
        let mut client = TcpStream::connect(address).unwrap();
        write!(client, "GET /t/{target} HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!([get(1), get(1), get(1), get(1), get(1)], ["200", "503", "200", "200", "503"]);
    assert_eq!(get(0), "200");
    server.counts().healed.store(true, Ordering::Relaxed);
    assert_eq!([get(1), get(1), get(1)], ["200", "200", "200"]);
    let read =
        |counters: &[AtomicU64]| counters.iter().map(|c| c.load(Ordering::Relaxed)).collect::<Vec<_>>();
    assert_eq!(read(&server.counts().requests), [1, 8]);
    assert_eq!(read(&server.counts().failed), [0, 2]);
    server.stop().unwrap();
}

#[test]
fn late_targets_answer_after_their_time_and_say_how_long_it_was() {
    const LENGTH: Duration = Duration::from_millis(30);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Script { every: 100, cycle: 40, window_first: 20, window_length: 3 };
    let delays = Delays { every: 20, lengths: &[LENGTH] };
    let server = Server::start(listener, Plan { targets: 20, script, delays }, None).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    // In two parts, so that the connection is registered and found again.
    client.write_all(b"GET /t/2 HTTP/1.1\r\n").unwrap();
    client.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let counts = Arc::clone(&server.counts);
    server.stop().unwrap();
    let waits = counts.take_waits();
    assert_eq!((waits.len(), waits[0].target), (1, 2));
    assert!(waits[0].took_ns >= LENGTH.as_nanos() as i64, "{waits:?}");
    assert_eq!(counts.accepted.load(Ordering::Relaxed), 1);
}

/// What a client gets of an ill target that ends the connection itself, or until it has `enough` bytes.
fn get_of(address: std::net::SocketAddr, enough: usize) -> std::io::Result<Vec<u8>> {
    let mut client = TcpStream::connect(address)?;
    write!(client, "GET /t/0 HTTP/1.1\r\n\r\n")?;
    let (mut got, mut chunk) = (Vec::new(), [0; 4_096]);
    while got.len() < enough {
        match client.read(&mut chunk)? {
            0 => break,
            count => got.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(got)
}

#[test]
fn an_ill_target_misbehaves_until_it_is_well() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Script { every: 2, cycle: 3, window_first: 1, window_length: 1 };
    let server = Server::start(listener, Plan { targets: 1, script, delays: Delays::NONE }, None).unwrap();
    let check = |ill, enough, begin: &str, end: &str| {
        server.counts().set_ill(0, Some(ill));
        let got = String::from_utf8(get_of(address, enough).unwrap()).unwrap();
        assert!(got.starts_with(begin), "{ill:?}: {got:?}");
        assert!(got.contains(end), "{ill:?}: {got:?}");
    };
    check(Ill::SlowHead, 4, "HTTP", "");
    check(Ill::EndlessHead, 200_000, "HTTP/1.1 200 OK\r\nX-Endless: ", "012\r\nX-Endless: ");
    check(Ill::EndlessBody, 200_000, "HTTP/1.1 500 ", "6789\r\n3a\r\n0123");
    check(Ill::SlowBody, 48, "HTTP/1.1 200 OK\r\n", "\r\n\r\nxxx");
    check(Ill::WrongProtocol, usize::MAX, "SSH-2.0-", "\r\n");
    server.counts().set_ill(0, Some(Ill::Reset));
    let error = get_of(address, 1).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // A silent one holds its connection: the client's patience is a read that comes back empty-handed.
    server.counts().set_ill(0, Some(Ill::Silence));
    let mut silent = TcpStream::connect(address).unwrap();
    silent.write_all(b"GET /t/0 HTTP/1.1\r\n\r\n").unwrap();
    crate::eventually("the silent target has the request", crate::SOON, || {
        (server.counts().met_ill[0].load(Ordering::Relaxed) == 7).then_some(())
    });
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    server.counts().set_ill(0, None);
    check_well(address);
    server.stop().unwrap();
}

fn check_well(address: std::net::SocketAddr) {
    let got = get_of(address, usize::MAX).unwrap();
    assert_eq!(got, OK);
}
