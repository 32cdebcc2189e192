//! How long a busy shard lets completions and due probes gather, by what is asked of it.

use std::time::Duration;

use crate::model::limits::{
    COALESCE, COALESCE_BRIEF, EXACT_DEBT_MAX, EXACT_ONE_IN, EXACT_STEPS, FAST_PERIOD, MANY_RUNS_PER_S,
};
use crate::model::time::Mono;

/// A wake-up costs the same however many probes share it. Where many do, a brief tick costs little more and makes
/// them less late; where few do, a longer one saves a good part of all CPU. Probes with a short period or timeout get
/// the brief one at any rate: two milliseconds would be a fifth of ten.
pub fn coalesce(runs_per_s: u64, has_fast: bool) -> Duration {
    if has_fast || runs_per_s >= MANY_RUNS_PER_S { COALESCE_BRIEF } else { COALESCE }
}

/// When a shard does not let anything gather, since somebody wants to see each step of a run when it ends. That is paid for
/// with time in which nobody may ask for it, so a flood of such runs takes the others little.
#[derive(Default)]
pub struct Exact {
    until: Mono,
    /// Then all that was taken is paid for.
    paid: Mono,
}

impl Exact {
    /// A run that goes step by step begins to connect.
    pub fn ask(&mut self, now: Mono) {
        let paid = self.paid.max(now);
        if paid.since(now) <= EXACT_DEBT_MAX {
            let until = now.after(EXACT_STEPS);
            self.paid = paid.after(until.since(self.until.max(now)) * EXACT_ONE_IN);
            self.until = until;
        }
    }

    pub fn is_asked(&self, now: Mono) -> bool {
        now < self.until
    }
}

/// What the probes of a shard ask for together.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Demand {
    runs_per_1000_s: u64,
    /// Probes with a period or a timeout under [`FAST_PERIOD`].
    fast: u64,
}

impl Demand {
    pub fn add(&mut self, period: Duration, timeout: Duration) {
        self.runs_per_1000_s = self.runs_per_1000_s.saturating_add(runs_per_1000_s(period));
        self.fast += u64::from(period.min(timeout) < FAST_PERIOD);
    }

    /// Takes back what was added for such a probe.
    pub fn remove(&mut self, period: Duration, timeout: Duration) {
        self.runs_per_1000_s = self.runs_per_1000_s.saturating_sub(runs_per_1000_s(period));
        self.fast -= u64::from(period.min(timeout) < FAST_PERIOD);
    }

    pub fn coalesce(self) -> Duration {
        coalesce(self.runs_per_1000_s / 1_000, self.fast > 0)
    }
}

fn runs_per_1000_s(period: Duration) -> u64 {
    const SPAN_NS: u128 = 1_000 * 1_000_000_000;
    u64::try_from(SPAN_NS / period.as_nanos().max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(probes: u64, period_ms: u64) -> Demand {
        let mut demand = Demand::default();
        for _ in 0..probes {
            demand.add(Duration::from_millis(period_ms), Duration::from_secs(1));
        }
        demand
    }

    #[test]
    fn many_runs_or_short_periods_make_the_tick_brief() {
        assert_eq!(demand(0, 1_000).coalesce(), COALESCE);
        assert_eq!(demand(5_000, 1_000).coalesce(), COALESCE);
        assert_eq!(demand(100_000, 10_000).coalesce(), COALESCE);
        assert_eq!(demand(1_000, 100).coalesce(), COALESCE);
        assert_eq!(demand(20_000, 1_000).coalesce(), COALESCE_BRIEF);
        assert_eq!(demand(1, 10).coalesce(), COALESCE_BRIEF);
        let mut hasty = demand(10, 1_000);
        hasty.add(Duration::from_secs(1), Duration::from_millis(10));
        assert_eq!(hasty.coalesce(), COALESCE_BRIEF);
    }

    #[test]
    fn a_flood_of_exact_runs_has_a_tenth_of_the_time() {
        let mut exact = Exact::default();
        let at = |ms: u64| Mono::from_ns(ms * 1_000_000);
        exact.ask(at(1_000));
        assert!(exact.is_asked(at(1_019)) && !exact.is_asked(at(1_020)));
        // Some dozens in a row are served, however fast they come.
        for n in 0..40 {
            exact.ask(at(2_000 + 30 * n));
            assert!(exact.is_asked(at(2_019 + 30 * n)), "{n}");
        }
        let served = (0..60_000).filter(|ms| {
            exact.ask(at(10_000 + ms));
            exact.is_asked(at(10_000 + ms))
        });
        assert!((5_000..8_000).contains(&served.count()));
    }

    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let mut both = demand(20_000, 999);
        let (brief, second) = (Duration::from_millis(7), Duration::from_secs(1));
        both.add(second, brief);
        both.add(brief, second);
        assert_eq!(both.coalesce(), COALESCE_BRIEF);
        both.remove(second, brief);
        both.remove(brief, second);
        for _ in 0..20_000 {
            both.remove(Duration::from_millis(999), second);
        }
        assert_eq!(both, Demand::default());
    }
}
