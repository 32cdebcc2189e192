//! The only clock of xtask.

use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

/// Measures how long something takes.
#[derive(Copy, Clone)]
pub struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "xtask measures real runs; it is not part of the product")]
    pub fn start() -> Stopwatch {
        Stopwatch { started: Instant::now() }
    }

    pub fn elapsed(self) -> Duration {
        self.started.elapsed()
    }
}

/// Lets time pass: the pace of a load, or of looks at what nobody announces. Never waits for an event.
pub fn pause(length: Duration) {
    if let Ok(timeout) = Timespec::try_from(length) {
        // Interrupted by a signal: then it is a little shorter.
        let _ = poll(&mut [], Some(&timeout));
    }
}
