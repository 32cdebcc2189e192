//! Calls of a host that lacks something, or that stands still meanwhile.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use probe_core::model::probe::{GrpcTarget, RunResult, Verdict};
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use rustix::io::Errno;
use test_support::pass;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::call;
use super::heard::{Note, Socket};
use super::rpc::{self, Attempt, Ended, Said};

/// A server's first frame.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A connection on which so many reads and writes are done; the next one fails.
struct Failing {
    stream: TcpStream,
    reads: usize,
    writes: usize,
    errno: Errno,
}

impl Failing {
    /// One call, if it is done, is one of those that are left.
    fn take<T>(
        left: &mut usize,
        errno: Errno,
        call: impl FnOnce() -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if *left == 0 {
            return Poll::Ready(Err(errno.into()));
        }
        let polled = call();
        *left -= usize::from(polled.is_ready());
        polled
    }
}

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Failing { stream, reads, errno, .. } = self.get_mut();
        Failing::take(reads, *errno, || Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Failing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Failing { stream, writes, errno, .. } = self.get_mut();
        Failing::take(writes, *errno, || Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl Socket for Failing {
    fn ends(&self) -> String {
        "here->there".to_owned()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut tokio = tokio::runtime::Builder::new_current_thread();
    tokio.enable_io().enable_time().build().unwrap().block_on(work)
}

fn target(addr: SocketAddr) -> GrpcTarget {
    GrpcTarget { addr, service: "".into() }
}

/// A call of a server that says its first frame and nothing more: how it ends, and whether that frame was seen.
fn check(reads: usize, writes: usize, errno: Errno) -> (Ended, bool) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.write_all(&SETTINGS).unwrap();
        while stream.read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
    });
    let note = Arc::new(Note::default());
    let ended = block_on(async {
        let stream = TcpStream::connect(addr).await.unwrap();
        let failing = Failing { stream, reads, writes, errno };
        rpc::check(failing, &target(addr), Mono::MAX, Attempt::First, &note).await
    });
    (ended, note.is_connected())
}

#[test]
fn a_shortage_on_a_connection_is_not_the_servers_failure() {
    for errno in [Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC] {
        let lacked = |call: &str| {
            let error = format!("{call} tcp here->there: {call}: {}", io::Error::from(errno));
            Ended::Said(Said::Lacked { error })
        };
        assert_eq!(check(0, usize::MAX, errno), (lacked("read"), false));
        assert_eq!(check(1, usize::MAX, errno), (lacked("read"), true));
        assert_eq!(check(usize::MAX, 0, errno), (lacked("write"), false));
        assert_eq!(check(usize::MAX, 1, errno).0, lacked("write"));
    }
    // What the server or the way to it has done.
    let (ended, is_connected) = check(1, usize::MAX, Errno::CONNRESET);
    let message =
        "error reading from server: read tcp here->there: read: connection reset by peer".to_owned();
    assert_eq!((ended, is_connected), (Ended::Said(Said::Broke { message }), true));
}

/// A call of a port on which nobody listens, by a thread that stands still from the refusal until after the deadline.
fn call_and_stand_still(timeout: Duration) -> RunResult {
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = target(closed.local_addr().unwrap());
    block_on(async {
        let stand_still = async {
            // By the second of these refusals the call has seen its own.
            for _ in 0..2 {
                TcpStream::connect(target.addr).await.unwrap_err();
            }
            pass(timeout);
        };
        tokio::join!(call::run(&target, timeout, clock::now().mono, 1), stand_still).0
    })
}

#[test]
fn a_refusal_is_an_answer_unless_the_next_try_was_missed() {
    let judged = call_and_stand_still(Duration::from_millis(200));
    assert_eq!(judged.verdict, Verdict::Failure, "{judged:?}");
    // Another try was due after a second.
    let excused = call_and_stand_still(Duration::from_millis(1_200));
    assert_eq!(excused.verdict, Verdict::Inconclusive, "{excused:?}");
}
