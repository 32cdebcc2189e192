//! What every ring of the kernel's keeps, on real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Completion, Driver, Epoll, Errno, Op, OpKind, Opening, Peer, Refused, Slot, Uring, UringOptions,
};
use crate::model::time::{Mono, Now, Wall};
use crate::sys::clock;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);
const SLOTS: u32 = 8;

/// The rings only hand the time on.
fn epoch() -> Now {
    Now { mono: Mono::ZERO, wall: Wall::default() }
}

fn uring() -> Uring {
    Uring::new(UringOptions::best(SLOTS), epoch).unwrap()
}

fn epoll() -> Epoll {
    Epoll::new(SLOTS, epoch).unwrap()
}

/// Waits for so many completions.
#[track_caller]
fn completions(ring: &mut impl Driver, wanted: usize) -> Vec<(OpKind, Result<u32, Errno>)> {
    let mut found = Vec::new();
    while found.len() < wanted {
        ring.submit_and_wait(Duration::ZERO, LONG).unwrap();
        while let Some(Completion { kind, result, .. }) = ring.next_completion(Mono::ZERO) {
            found.push((kind, result));
        }
    }
    assert_eq!(found.len(), wanted, "{found:?}");
    found
}

fn push(ring: &mut impl Driver, slot: Slot, op: Op) {
    assert_eq!(ring.push(slot, op), Ok::<(), Refused>(()));
}

fn disconnect(ring: &mut impl Driver, slot: Slot) {
    push(ring, slot, Op::Disconnect);
    let ended = completions(ring, 1);
    assert!(matches!(ended[..], [(OpKind::Disconnect, Ok(_))]), "{ended:?}");
    assert!(!ring.is_connected(slot));
}

fn exchange(to: SocketAddr) -> Op {
    Op::Exchange { to: to.into(), request: Bytes::from_static(b"ping") }
}

#[track_caller]
fn check(ring: &mut impl Driver) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let slot = ring.acquire().unwrap();

    // A whole exchange, twice over the same socket.
    for _ in 0..2 {
        push(ring, slot, exchange(addr));
        let begun = completions(ring, 2);
        assert!(matches!(begun[..], [(OpKind::Connect, Ok(_)), (OpKind::Send, Ok(4))]), "{begun:?}");
        let (mut server, peer) = listener.accept().unwrap();
        assert_eq!(ring.local_addr(slot), Some(peer));
        server.write_all(b"pong").unwrap();
        assert_eq!(completions(ring, 1), [(OpKind::Recv, Ok(4))]);
        assert_eq!(ring.answer(slot), b"pong");
        ring.drop_answer(slot, 1);
        assert_eq!(ring.answer(slot), b"ong");
        push(ring, slot, Op::Recv);
        drop(server);
        // The request was never read, so the end is a reset.
        assert_eq!(completions(ring, 1), [(OpKind::Recv, Err(Errno::CONNRESET))]);
        disconnect(ring, slot);
    }

    // What waits is cancelled; the connection stays until it is ended.
    push(ring, slot, exchange(addr));
    completions(ring, 2);
    push(ring, slot, Op::Cancel);
    let ended = completions(ring, 2);
    assert!(ended.contains(&(OpKind::Recv, Err(Errno::CANCELED))), "{ended:?}");
    assert!(ring.is_connected(slot) && ring.in_flight(slot).is_empty());
    disconnect(ring, slot);

    // A refused connect ends the whole chain, in its order.
    drop(listener);
    push(ring, slot, exchange(addr));
    let (refused, canceled) = (Err(Errno::CONNREFUSED), Err(Errno::CANCELED));
    let expected = [(OpKind::Connect, refused), (OpKind::Send, canceled), (OpKind::Recv, canceled)];
    assert_eq!(completions(ring, 3), expected);
    disconnect(ring, slot);

    // Nothing to cancel on a connection at rest; a socket can be replaced.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    push(ring, slot, Op::Connect { to: to.into(), opening: Opening::Bare });
    assert!(matches!(completions(ring, 1)[..], [(OpKind::Connect, Ok(_))]));
    push(ring, slot, Op::Cancel);
    completions(ring, 1);
    ring.replace_socket(slot);
    assert!(!ring.is_connected(slot));
    ring.release(slot);
    assert_eq!(ring.stale_completions(), 0);
}

#[test]
fn both_rings_keep_the_same_promises() {
    check(&mut uring());
    check(&mut epoll());
}

/// A wait without an end is ended from another thread, whether the wake-up came before it or after.
fn check_waking(ring: &mut impl Driver) {
    for _ in 0..100 {
        let waker = ring.waker();
        waker.fall_asleep();
        let waking = std::thread::spawn(move || waker.wake());
        ring.submit_and_wait(Duration::ZERO, LONG).unwrap();
        waking.join().unwrap();
    }
}

#[test]
fn both_rings_are_woken() {
    check_waking(&mut uring());
    check_waking(&mut epoll());
}

#[test]
fn a_ring_may_go_with_operations_in_flight() {
    fn leave(mut ring: impl Driver) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let slot = ring.acquire().unwrap();
        push(&mut ring, slot, exchange(listener.local_addr().unwrap()));
        completions(&mut ring, 2);
    }
    leave(uring());
    leave(epoll());
}

/// A Unix socket whose server has no room for one more connection, and what fills it.
fn full_unix_socket(path: &Path) -> (UnixListener, UnixStream) {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
    // The kernel takes one more than the backlog.
    listen(&listener, 0).unwrap();
    (listener.into(), UnixStream::connect(path).unwrap())
}

/// Asleep until there is room; then connected, or cancelled before.
fn check_full_backlog(ring: &mut impl Driver) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.sock");
    let (listener, _first) = full_unix_socket(&path);
    let slot = ring.acquire().unwrap();
    let connect = || Op::Connect { to: Peer::Unix(path.as_path().into()), opening: Opening::Bare };

    push(ring, slot, connect());
    let (began, cpu) = (clock::mono(), clock::thread_cpu());
    while clock::mono().since(began) < Duration::from_millis(500) {
        ring.submit_and_wait(Duration::ZERO, Duration::from_millis(500)).unwrap();
    }
    let (wall, cpu) = (clock::mono().since(began), clock::thread_cpu() - cpu);
    assert!(cpu < wall / 10, "{cpu:?} of CPU time in {wall:?} of waiting");
    let _room = listener.accept().unwrap();
    assert_eq!(completions(ring, 1), [(OpKind::Connect, Ok(0))]);
    assert_eq!(listener.accept().unwrap().1.as_pathname(), None);
    ring.replace_socket(slot);

    let _second = UnixStream::connect(&path).unwrap();
    push(ring, slot, connect());
    ring.submit_and_wait(Duration::ZERO, Duration::from_millis(1)).unwrap();
    push(ring, slot, Op::Cancel);
    assert!(completions(ring, 2).iter().any(|(kind, _)| *kind == OpKind::Connect));
    ring.replace_socket(slot);
    ring.release(slot);
}

#[test]
fn both_rings_sleep_while_a_unix_backlog_is_full() {
    check_full_backlog(&mut uring());
    check_full_backlog(&mut epoll());
}

/// An answer, and the server's FIN a while later, both before anybody looks: the kernel may date the answer with the FIN,
/// but knows better.
fn check_fin_behind_an_answer(ring: &mut impl Driver) {
    /// What passes between the two: many ticks of any kernel.
    const LATER: Duration = Duration::from_millis(200);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slot = ring.acquire().unwrap();
    push(ring, slot, exchange(listener.local_addr().unwrap()));
    completions(ring, 2);
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0; 4]).unwrap();
    let began = clock::mono();
    server.write_all(b"pong").unwrap();
    assert_eq!(ring.last_data_at(slot, Mono::ZERO), None, "it has not closed");
    #[expect(clippy::disallowed_methods, reason = "the time between answer and end is what this is about")]
    std::thread::sleep(LATER);
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let closed = clock::mono();
    assert_eq!(completions(ring, 1), [(OpKind::Recv, Ok(4))]);
    let data_at = ring.last_data_at(slot, Mono::ZERO).unwrap();
    assert!(data_at.after(LATER / 2) < closed, "{data_at:?}, closed at {closed:?}");
    // A tick has ten milliseconds at most, and two are in doubt.
    assert!(data_at.after(LATER / 2) > began, "{data_at:?}, begun at {began:?}");
    disconnect(ring, slot);
    ring.release(slot);
}

#[test]
fn both_rings_know_when_data_came_behind_which_the_peer_has_closed() {
    check_fin_behind_an_answer(&mut Uring::new(UringOptions::best(SLOTS), clock::now).unwrap());
    check_fin_behind_an_answer(&mut Epoll::new(SLOTS, clock::now).unwrap());
}
