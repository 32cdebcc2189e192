//! CrashLoopBackOff: how long a container that ended waits before its next start (kubelet-semantics 14).

use std::time::Duration;

use crate::model::time::Mono;

/// A container that ran for longer than this since its last start begins anew; independent of the maximum.
pub const RESET_AFTER: Duration = Duration::from_secs(600);

/// First wait and longest wait. Always `initial <= max`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BackoffParams {
    initial: Duration,
    max: Duration,
}

impl BackoffParams {
    /// Kubelet's defaults: 10 s, doubling up to 5 min.
    pub const STANDARD: BackoffParams =
        BackoffParams { initial: Duration::from_secs(10), max: Duration::from_secs(300) };
    /// Kubelet's gate ReduceDefaultCrashLoopBackOffDecay: 1 s, doubling up to 1 min.
    pub const REDUCED: BackoffParams =
        BackoffParams { initial: Duration::from_secs(1), max: Duration::from_secs(60) };

    /// The same with another longest wait (`maxContainerRestartPeriod`); a longest wait below the first one
    /// shortens the first one too.
    #[must_use]
    pub fn with_max(self, max: Duration) -> BackoffParams {
        BackoffParams { initial: self.initial.min(max), max }
    }

    /// The first wait.
    pub fn initial(&self) -> Duration {
        self.initial
    }

    /// The longest wait (`--max-container-restart-period`).
    pub fn max(&self) -> Duration {
        self.max
    }
}

/// The entry of one container. A container whose spec hash changes gets a new one: kubelet's key contains
/// the hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backoff {
    entry: Option<Entry>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Entry {
    wait: Duration,
    last_update: Mono,
}

/// The answer of [`Backoff::should_start`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Start {
    Now,
    /// CrashLoopBackOff: `wait` is the current step (for the message), `retry_at` the moment from which the
    /// same question is answered with a start.
    Refused {
        retry_at: Mono,
        wait: Duration,
    },
}

impl Backoff {
    /// No entry: the next start is free.
    pub const NEW: Backoff = Backoff { entry: None };

    /// The current step, if there is an entry.
    pub fn wait(&self) -> Option<Duration> {
        self.entry.map(|entry| entry.wait)
    }

    /// May the container start now? A yes counts as a start.
    ///
    /// `prev_finished_at`: when the newest record that had ended *before this round of decisions* ended. A
    /// kill and the start after it are one round, so for a start after a probe kill it is the instance before
    /// the killed one, or None if the killed one was the first.
    pub fn should_start(
        &mut self,
        params: BackoffParams,
        now: Mono,
        prev_finished_at: Option<Mono>,
    ) -> Start {
        let Some(finished_at) = prev_finished_at else { return Start::Now };
        let live = self.entry.filter(|entry| finished_at.since(entry.last_update) <= RESET_AFTER);
        let wait = match live {
            None => params.initial,
            Some(entry) if now.since(finished_at) < entry.wait => {
                return Start::Refused { retry_at: finished_at.after(entry.wait), wait: entry.wait };
            }
            Some(entry) => entry.wait.saturating_mul(2).min(params.max),
        };
        self.entry = Some(Entry { wait, last_update: now });
        Start::Now
    }
}
