//! gRPC probes: health checks over HTTP/2, on a thread of their own (kubelet-semantics 7).
//!
//! ```text
//! thread    due calls in, one task for each, outcomes to the engine that asked
//! call      one run: connect and try again, one deadline, what its end means
//! rpc       one connection and one Check on it
//! heard     what the server has said, and how the connection ended
//! watched   whether the thread itself was there while a call waited
//! ```
//!
//! The engine keeps the time of these probes and knows whether an outcome still counts. It cannot make them: HTTP/2 is
//! spoken by h2 here, which wants sockets of its own.

mod call;
mod heard;
mod rpc;
#[cfg(test)]
mod tests;
mod thread;
mod watched;

use std::time::Duration;

use probe_core::model::probe::{GrpcTarget, RunResult};
use probe_core::sys::clock;

pub use thread::{Call, CallDoor, Calls, Order};

/// One check on the calling thread, in one attempt.
///
/// # Errors
/// This process may not open what an epoll needs.
pub fn once(target: &GrpcTarget, timeout: Duration) -> std::io::Result<RunResult> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    Ok(tokio.block_on(call::run(target, timeout, clock::now().mono, 1)))
}
