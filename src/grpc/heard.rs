//! A connection that notes what a server has said, and how the connection ended.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use probe_core::model::limits::GRPC_HEARD_MAX_BYTES;
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use probe_core::wire::http2::{Frames, Goodbye, Preface};
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
}

/// The connection. It ends where the server says more than any health service has to: frames and interim headers without
/// end would take the thread from all other calls.
pub struct Heard {
    stream: TcpStream,
    left_bytes: usize,
    note: Arc<Note>,
}

impl Heard {
    pub fn new(stream: TcpStream, note: Arc<Note>) -> Heard {
        Heard { stream, left_bytes: GRPC_HEARD_MAX_BYTES, note }
    }

    /// A read that failed, as Go has it.
    fn read_error(&self, error: &io::Error) -> String {
        let name =
            |addr: io::Result<SocketAddr>| addr.map_or_else(|_| String::new(), |addr| addr.to_string());
        let (local, peer) = (name(self.stream.local_addr()), name(self.stream.peer_addr()));
        let text = match error.kind() {
            io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
            _ => error.to_string(),
        };
        format!("read tcp {local}->{peer}: read: {text}")
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let heard = self.get_mut();
        let before = buffer.filled().len();
        let had_room = buffer.remaining() > 0;
        let polled = Pin::new(&mut heard.stream).poll_read(context, buffer);
        let came = &buffer.filled()[before..];
        match &polled {
            Poll::Ready(Ok(())) if came.is_empty() && had_room => heard.note.ended("EOF".to_owned()),
            Poll::Ready(Err(error)) => heard.note.ended(heard.read_error(error)),
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

impl AsyncWrite for Heard {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
