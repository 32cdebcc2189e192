//! One connection and one Check on it, in grpc-go's words.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use hyper::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use probe_core::model::limits::{FIN_WAIT, GRPC_ANSWER_MAX_BYTES, GRPC_HEADERS_MAX_BYTES, GRPC_WINDOW_BYTES};
use probe_core::model::probe::GrpcTarget;
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use probe_core::wire::grpc::{self, Fields, Refusal};
use probe_core::wire::headers::AGENT_PROBE;
use tokio::task::AbortHandle;

use super::heard::{Heard, Note, Socket};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// What came of the call. Numbers as on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Answered {
        status: i32,
    },
    /// A status of the server other than OK, or what grpc-go makes of an answer that is none.
    Refused {
        code: i32,
        message: String,
    },
    /// The connection broke.
    Broke {
        message: String,
    },
    /// This host lacks what the call needs: the server has said nothing.
    Lacked {
        error: String,
    },
}

/// How a connection has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    Said(Said),
    /// It is none of HTTP/2, as far as it has come.
    NotConnected {
        error: String,
    },
    /// The server was about to go and has not looked at the call.
    Unprocessed,
}

/// Whether grpc-go would make the call once more if the server has not looked at it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Attempt {
    First,
    Again,
}

/// Why a stream ended without a status.
enum Failed {
    Refused(Refusal),
    Http2(h2::Error),
}

impl From<h2::Error> for Failed {
    fn from(error: h2::Error) -> Failed {
        Failed::Http2(error)
    }
}

/// Asks on this connection, which ends with the call.
pub async fn check(
    stream: impl Socket,
    target: &GrpcTarget,
    deadline: Mono,
    attempt: Attempt,
    note: &Arc<Note>,
) -> Ended {
    let heard = Heard::new(stream, Arc::clone(note));
    let handshake = Builder::new()
        .enable_push(false)
        .initial_window_size(GRPC_WINDOW_BYTES)
        .initial_connection_window_size(GRPC_WINDOW_BYTES)
        .max_header_list_size(GRPC_HEADERS_MAX_BYTES)
        .handshake(heard)
        .await;
    let (sender, connection) = match handshake {
        Ok(both) => both,
        Err(error) => return lacked(note, &error).unwrap_or_else(|| not_connected(note, &error)),
    };
    let ending = Ending { task: tokio::spawn(async move { drop(connection.await) }).abort_handle() };
    let mut attempt = attempt;
    let ended = loop {
        // Streams of a client have odd numbers, from 1.
        let (stream, failed) = match ask(sender.clone(), target, deadline).await {
            Ok(status) => break Ended::Said(Said::Answered { status }),
            Err(failed) => failed,
        };
        let error = match failed {
            Failed::Refused(refusal) => break said(refusal),
            Failed::Http2(error) => error,
        };
        if let Some(ended) = lacked(note, &error) {
            break ended;
        }
        if !note.is_connected() {
            break not_connected(note, &error);
        }
        if let Some(reason) = error.reason().filter(|_| error.is_reset() && error.is_remote()) {
            if reason == Reason::REFUSED_STREAM && attempt == Attempt::First {
                attempt = Attempt::Again;
                continue;
            }
            break said(grpc::reset(reason.into()));
        }
        let goodbye = note.goodbye();
        if goodbye.as_ref().is_some_and(|goodbye| goodbye.last_stream < stream) {
            break match attempt {
                Attempt::First => Ended::Unprocessed,
                Attempt::Again => said(grpc::draining()),
            };
        }
        let goodbye = goodbye.as_ref().map(|goodbye| (goodbye.error, &*goodbye.debug));
        break Ended::Said(Said::Broke { message: grpc::broken(&note.end(&error), goodbye).message });
    };
    drop(sender);
    // Without a sender the connection says goodbye by itself.
    ending.soon();
    ended
}

/// Whether this host's own lack has ended the connection.
fn lacked(note: &Note, error: &h2::Error) -> Option<Ended> {
    let error = note.shortage().filter(|_| error.is_io())?;
    Some(Ended::Said(Said::Lacked { error }))
}

fn not_connected(note: &Note, error: &h2::Error) -> Ended {
    Ended::NotConnected { error: format!("error reading server preface: {}", note.end(error)) }
}

fn said(refusal: Refusal) -> Ended {
    Ended::Said(Said::Refused { code: refusal.code, message: refusal.message })
}

/// One stream: the status of the answer, or the stream's number and why there is none.
async fn ask(sender: SendRequest<Bytes>, target: &GrpcTarget, deadline: Mono) -> Result<i32, (u32, Failed)> {
    // No stream has begun: a goodbye was for it, whatever it says.
    let unborn = |error: h2::Error| (u32::MAX, Failed::Http2(error));
    let request = request(target, deadline).map_err(|refusal| (u32::MAX, Failed::Refused(refusal)))?;
    let mut sender = sender.ready().await.map_err(unborn)?;
    let (answer, mut body) = sender.send_request(request, false).map_err(unborn)?;
    drop(sender);
    let stream = body.stream_id().as_u32();
    let message = Bytes::from(grpc::health_request(&target.service));
    // An error here is one of the answer too, which says more.
    let _ = body.send_data(message, true);
    let status = async {
        let (head, body) = answer.await?.into_parts();
        read(head.status, &head.headers, body).await
    };
    status.await.map_err(|failed| (stream, failed))
}

fn request(target: &GrpcTarget, deadline: Mono) -> Result<Request<()>, Refusal> {
    let uri = Uri::builder().scheme("http").authority(target.addr.to_string()).path_and_query(CHECK);
    let timeout = grpc::timeout(deadline.since(clock::now().mono));
    Request::builder()
        .method(Method::POST)
        .uri(uri.build().map_err(cannot_ask)?)
        .header(CONTENT_TYPE, "application/grpc")
        .header(USER_AGENT, AGENT_PROBE)
        .header(TE, "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .map_err(cannot_ask)
}

/// An address always makes a request.
fn cannot_ask(error: impl Display) -> Refusal {
    Refusal { code: grpc::INTERNAL, message: error.to_string() }
}

async fn read(status: StatusCode, headers: &HeaderMap, mut body: RecvStream) -> Result<i32, Failed> {
    let reason = status.canonical_reason().unwrap_or_default();
    grpc::check_head(status.as_u16(), reason, &fields(headers)).map_err(Failed::Refused)?;
    if body.is_end_stream() {
        // Headers are all there is.
        grpc::check_end(&fields(headers)).map_err(Failed::Refused)?;
        return grpc::health_status(&[], GRPC_ANSWER_MAX_BYTES).map_err(Failed::Refused);
    }
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        // One byte too many is enough to see that there is more than one message.
        let room = (GRPC_ANSWER_MAX_BYTES + grpc::PREFIX_BYTES + 1).saturating_sub(bytes.len());
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        grpc::check_length(&bytes, GRPC_ANSWER_MAX_BYTES).map_err(Failed::Refused)?;
        let _ = body.flow_control().release_capacity(piece.len());
    }
    match body.trailers().await? {
        Some(trailers) => grpc::check_end(&fields(&trailers)).map_err(Failed::Refused)?,
        None => return Err(Failed::Refused(grpc::without_trailers())),
    }
    grpc::health_status(&bytes, GRPC_ANSWER_MAX_BYTES).map_err(Failed::Refused)
}

fn fields(headers: &HeaderMap) -> Fields<'_> {
    let get = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    Fields {
        content_type: get("content-type"),
        grpc_status: get("grpc-status"),
        grpc_message: get("grpc-message"),
    }
}

/// Ends the connection with its task, whatever becomes of the call.
#[derive(Debug)]
struct Ending {
    task: AbortHandle,
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
        self.task.abort();
    }
}
