//! Ctrl-C: once to end the benchmark with what it has measured, twice to end it with nothing.

use std::io;
use std::process;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::exit;

/// Calls `tell` at the first Ctrl-C, on a thread of its own; the next one ends the process at once.
///
/// # Errors
/// Signals cannot be heard, or the kernel refuses a thread.
pub fn listen(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let mut interrupts = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let wait = move || {
        runtime.block_on(interrupts.recv());
        tell();
        runtime.block_on(interrupts.recv());
        process::exit(exit::INTERRUPTED.into());
    };
    thread::Builder::new().name("bench-signal".to_owned()).spawn(wait).map(drop)
}
