//! CrashLoopBackOff by kubelet-semantics 14, written a second time.

use std::time::Duration;

use probe_core::model::time::Mono;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The entry of one container: the wait, and when it was last started.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Waits(Option<(Duration, Mono)>);

impl Waits {
    pub const NONE: Waits = Waits(None);

    /// How long after `prev` ended the next start has to wait; None: not at all.
    pub fn wait(self, prev: Option<Mono>) -> Option<Duration> {
        let (wait, started) = self.0?;
        let ran = prev?.since(started);
        (ran <= FORGOTTEN_AFTER).then_some(wait)
    }

    pub fn allows(self, now: Mono, prev: Option<Mono>) -> bool {
        match (self.wait(prev), prev) {
            (Some(wait), Some(prev)) => now.since(prev) >= wait,
            (None, _) | (_, None) => true,
        }
    }

    /// A start that was allowed.
    pub fn start(&mut self, now: Mono, prev: Option<Mono>) {
        if prev.is_none() {
            return;
        }
        let next = match self.wait(prev) {
            Some(wait) => (wait * 2).min(LONGEST),
            None => FIRST,
        };
        self.0 = Some((next, now));
    }
}
