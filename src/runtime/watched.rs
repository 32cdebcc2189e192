//! Waiting for a descriptor on the runtime's thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a value with tokio. `AsFd` is asked for because it promises that the descriptor is open as long as
/// the value lives.
#[expect(
    deprecated,
    reason = "its replacement is an unsafe function; AsFd gives the promise that this one lacks"
)]
pub fn watched<T: AsFd + AsRawFd>(value: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(value, interest)
}
