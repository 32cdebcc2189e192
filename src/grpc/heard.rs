//! A connection that notes what a server has said, and how the connection ended.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use probe_core::engine::is_shortage;
use probe_core::model::limits::GRPC_HEARD_MAX_BYTES;
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use probe_core::wire::http2::{Frames, Goodbye, Preface};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is known of one connection. It counts as made when the server's first frame is there, as in grpc-go: until then
/// it may be any server.
#[derive(Debug, Default)]
pub struct Note {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connected: Option<Mono>,
    preface: Preface,
    frames: Frames,
    /// What reading said at last.
    end: Option<String>,
    /// What this host lacked when it read or wrote.
    shortage: Option<String>,
}

impl Note {
    /// When the server's first frame came.
    pub fn connected(&self) -> Option<Mono> {
        self.state().connected
    }

    pub fn is_connected(&self) -> bool {
        self.connected().is_some()
    }

    /// The server's latest one.
    pub fn goodbye(&self) -> Option<Goodbye> {
        self.state().frames.goodbye().cloned()
    }

    /// How reading ended, in Go's words; `error` is for the case that it did not.
    pub fn end(&self, error: &h2::Error) -> String {
        self.state().end.clone().unwrap_or_else(|| error.to_string())
    }

    /// What this host lacked, in Go's words: nothing that the server has brought about.
    pub fn shortage(&self) -> Option<String> {
        self.state().shortage.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.connected.is_none() && state.preface.take(bytes) {
            state.connected = Some(clock::now().mono);
        }
        state.frames.take(bytes);
    }

    fn ended(&self, end: String) {
        self.state().end.get_or_insert(end);
    }

    fn lacked(&self, what: String) {
        self.state().shortage.get_or_insert(what);
    }
}

/// A stream between two addresses.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Both ends as Go writes them.
    fn ends(&self) -> String;
}

impl Socket for TcpStream {
    fn ends(&self) -> String {
        let name =
            |addr: io::Result<SocketAddr>| addr.map_or_else(|_| String::new(), |addr| addr.to_string());
        format!("{}->{}", name(self.local_addr()), name(self.peer_addr()))
    }
}

/// Whether an error says that this host lacks something.
pub fn is_own(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(is_shortage)
}

/// The connection. It ends where the server says more than any health service has to: frames and interim headers without
/// end would take the thread from all other calls.
pub struct Heard<S> {
    stream: S,
    left_bytes: usize,
    note: Arc<Note>,
}

impl<S: Socket> Heard<S> {
    pub fn new(stream: S, note: Arc<Note>) -> Heard<S> {
        Heard { stream, left_bytes: GRPC_HEARD_MAX_BYTES, note }
    }

    /// A `read` or `write` that failed, as Go has it.
    fn error_of(&self, call: &str, error: &io::Error) -> String {
        let text = match error.kind() {
            io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
            _ => error.to_string(),
        };
        format!("{call} tcp {}: {call}: {text}", self.stream.ends())
    }

    fn note_shortage<T>(&self, call: &str, polled: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = polled
            && is_own(error)
        {
            self.note.lacked(self.error_of(call, error));
        }
    }
}

impl<S: Socket> AsyncRead for Heard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let heard = self.get_mut();
        let before = buffer.filled().len();
        let had_room = buffer.remaining() > 0;
        let polled = Pin::new(&mut heard.stream).poll_read(context, buffer);
        heard.note_shortage("read", &polled);
        let came = &buffer.filled()[before..];
        match &polled {
            Poll::Ready(Ok(())) if came.is_empty() && had_room => heard.note.ended("EOF".to_owned()),
            Poll::Ready(Err(error)) => heard.note.ended(heard.error_of("read", error)),
            Poll::Ready(Ok(())) | Poll::Pending => heard.note.hear(came),
        }
        match heard.left_bytes.checked_sub(came.len()) {
            Some(left) => heard.left_bytes = left,
            None => {
                let text = format!("the server sent more than {GRPC_HEARD_MAX_BYTES} bytes");
                heard.note.ended(text.clone());
                return Poll::Ready(Err(io::Error::other(text)));
            }
        }
        polled
    }
}

impl<S: Socket> AsyncWrite for Heard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let heard = self.get_mut();
        let polled = Pin::new(&mut heard.stream).poll_write(context, bytes);
        heard.note_shortage("write", &polled);
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
