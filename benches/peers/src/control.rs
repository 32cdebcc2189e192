//! When the measured window begins and when the run ends, as told on standard input.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Where a run is.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    WarmUp,
    Measuring,
    Over,
}

/// The phase of the run, read by any thread at the price of one load.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    /// For those who wait; the phase itself is beside it.
    changes: Mutex<()>,
    changed: Condvar,
}

impl Control {
    /// Says `ready` and follows standard input on a thread of its own.
    ///
    /// # Errors
    /// Standard output is closed, or no thread can be made.
    pub fn ready() -> Result<Control> {
        let control = Control { shared: Arc::default() };
        let follower = control.clone();
        let follow = move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                match line.as_str() {
                    "measure" => follower.set(Phase::Measuring),
                    _ => break,
                }
            }
            // The end of input is an order too: whoever measured is gone.
            follower.set(Phase::Over);
        };
        std::thread::Builder::new().name("control".to_owned()).spawn(follow).context("a thread")?;
        let mut out = std::io::stdout();
        writeln!(out, "ready").and_then(|()| out.flush()).context("standard output")?;
        Ok(control)
    }

    pub fn phase(&self) -> Phase {
        match self.shared.phase.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measuring,
            _ => Phase::Over,
        }
    }

    pub fn is_measuring(&self) -> bool {
        self.phase() == Phase::Measuring
    }

    /// Sleeps until the run is in this phase, or further.
    pub fn wait_for(&self, phase: Phase) {
        let mut held = self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
        while self.phase() < phase {
            held = self.shared.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn set(&self, phase: Phase) {
        let _held = self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.phase.store(phase as u8, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}
