//! One connection and one Check on it.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use probe_core::model::limits::{
    FIN_WAIT, GRPC_ANSWER_MAX_BYTES, GRPC_HEADERS_MAX_BYTES, GRPC_HEARD_MAX_BYTES, GRPC_WINDOW_BYTES,
};
use probe_core::model::probe::GrpcTarget;
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use probe_core::wire::headers::AGENT_PROBE;
use probe_core::wire::http2::Preface;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// What came of the call. Numbers as on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Answered {
        status: i32,
    },
    /// A status of the server other than OK.
    Refused {
        code: i32,
        message: String,
    },
    /// The connection broke.
    Broke {
        message: String,
    },
}

/// How far a run has come. A connection counts as made when the server's first frame is there, as in grpc-go: until
/// then it may be any server.
#[derive(Debug, Default)]
pub struct Seen {
    connected_ns: AtomicU64,
    refused: AtomicBool,
}

impl Seen {
    /// When the server's first frame came.
    pub fn connected(&self) -> Option<Mono> {
        match self.connected_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Mono::from_ns(ns)),
        }
    }

    fn connects(&self) {
        self.connected_ns.store(clock::now().mono.as_ns(), Ordering::Relaxed);
    }

    pub fn refused(&self, is_so: bool) {
        self.refused.store(is_so, Ordering::Relaxed);
    }

    /// Whether the kernel has said that nobody listens.
    pub fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Asks on this connection, which ends with the call. None: it broke before it was known for an HTTP/2 one.
pub async fn check(stream: TcpStream, target: &GrpcTarget, left: Duration, seen: &Arc<Seen>) -> Option<Said> {
    let ending = Ending::default();
    let left_bytes = GRPC_HEARD_MAX_BYTES;
    let heard = Heard { stream, preface: Preface::default(), seen: Arc::clone(seen), left_bytes };
    let handshake = http2::Builder::new(ending.tasks.clone())
        .initial_stream_window_size(GRPC_WINDOW_BYTES)
        .initial_connection_window_size(GRPC_WINDOW_BYTES)
        .max_header_list_size(GRPC_HEADERS_MAX_BYTES)
        .handshake(TokioIo::new(heard));
    let (sender, connection) = handshake.await.ok()?;
    hyper::rt::Executor::execute(&ending.tasks, connection);
    let origin = Uri::builder().scheme("http").authority(target.addr.to_string()).path_and_query("/");
    let client = HealthClient::with_origin(Door { sender }, origin.build().ok()?);
    let mut request = tonic::Request::new(HealthCheckRequest { service: target.service.to_string() });
    request.set_timeout(left);
    let answer = client.max_decoding_message_size(GRPC_ANSWER_MAX_BYTES).check(request).await;
    // Without a sender the connection says goodbye by itself.
    ending.soon();
    match answer {
        Ok(answer) => Some(Said::Answered { status: answer.get_ref().status }),
        Err(_) if seen.connected().is_none() => None,
        Err(status) => Some(refused(&status)),
    }
}

/// A status of the server, which has no cause on this side, or a broken connection.
fn refused(status: &Status) -> Said {
    let Some(mut cause) = Error::source(status) else {
        return Said::Refused { code: status.code().into(), message: status.message().to_owned() };
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Said::Broke { message: format!("error reading from server: {cause}") }
}

/// hyper's connection as the service that the client calls.
struct Door {
    sender: SendRequest<Body>,
}

impl GrpcService<Body> for Door {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT_PROBE));
        Box::pin(self.sender.send_request(request))
    }
}

/// The tasks that hyper makes for a connection.
#[derive(Clone, Debug, Default)]
struct Tasks {
    handles: Arc<Mutex<Vec<AbortHandle>>>,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let handle = tokio::spawn(task).abort_handle();
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

/// Ends a connection's tasks, and with them the connection, whatever becomes of the call.
#[derive(Debug, Default)]
struct Ending {
    tasks: Tasks,
}

impl Ending {
    /// As the end of an HTTP run: the server has a moment for its own goodbye.
    fn soon(self) {
        tokio::spawn(async move {
            tokio::time::sleep(FIN_WAIT).await;
            drop(self);
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let handles = std::mem::take(&mut *self.tasks.handles.lock().unwrap_or_else(PoisonError::into_inner));
        handles.iter().for_each(AbortHandle::abort);
    }
}

/// A connection that notes the server's first frame, and ends where the server says more than any health service has to:
/// frames and interim headers without end would take the thread from all other calls.
struct Heard {
    left_bytes: usize,
    stream: TcpStream,
    preface: Preface,
    seen: Arc<Seen>,
}

impl AsyncRead for Heard {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let heard = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut heard.stream).poll_read(context, buffer);
        if heard.seen.connected().is_none() && heard.preface.take(&buffer.filled()[before..]) {
            heard.seen.connects();
        }
        let came = buffer.filled().len() - before;
        match heard.left_bytes.checked_sub(came) {
            Some(left) => heard.left_bytes = left,
            None => {
                let text = format!("the server sent more than {GRPC_HEARD_MAX_BYTES} bytes");
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
