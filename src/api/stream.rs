//! A response body that is fed through a bounded channel: who reads slowly slows only its own feeder.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Chunks that wait for a slow reader.
const CHUNKS_MAX: usize = 4;

/// A body and the sender that feeds it. It ends when the sender is dropped; the sender is closed when the
/// client goes away.
pub fn body() -> (Sender<Bytes>, Body) {
    let (sender, chunks) = channel(CHUNKS_MAX);
    (sender, Body::new(Fed { chunks }))
}

struct Fed {
    chunks: Receiver<Bytes>,
}

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.chunks.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
