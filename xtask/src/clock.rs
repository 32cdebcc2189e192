//! The only clock of xtask.

use std::time::{Duration, Instant};

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
