//! What a benchmark does, in numbers that are checked.

use std::sync::Arc;
use std::time::Duration;

use probe_core::model::limits::{BENCH_PERIOD_MAX, BENCH_PERIOD_MIN};
use probe_core::model::probe::Target;

use crate::cli::args::EngineKind;

const NS_PER_S: u64 = 1_000_000_000;

/// A benchmark that can be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As it is shown.
    pub name: String,
    /// The built-in server is what is probed.
    pub is_built_in: bool,
    pub target: Arc<Target>,
    pub load: Load,
    pub timeout: Duration,
    /// What carries the probes.
    pub engine: EngineKind,
    pub shards: u16,
}

/// How often what is due.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// Probes, each with a ticker of its own. At least 1.
    pub targets: u32,
    /// Of each target.
    pub period: Duration,
    /// Runs that are due in this time count.
    pub duration: Duration,
}

/// Numbers that do not go together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "error: {targets} targets at {rate_per_s} runs/s are one run per target every {period:?}: --targets and --rate \
     have to give {BENCH_PERIOD_MIN:?} to {BENCH_PERIOD_MAX:?}"
)]
pub struct PeriodError {
    targets: u32,
    rate_per_s: u32,
    period: Duration,
}

impl Load {
    /// `targets` that together have `rate_per_s` runs a second, at least 1.
    ///
    /// # Errors
    /// One target would be probed too often, or too rarely.
    pub fn at_rate(targets: u32, rate_per_s: u32, duration: Duration) -> Result<Load, PeriodError> {
        let period = Duration::from_nanos(u64::from(targets) * NS_PER_S / u64::from(rate_per_s));
        if !(BENCH_PERIOD_MIN..=BENCH_PERIOD_MAX).contains(&period) {
            return Err(PeriodError { targets, rate_per_s, period });
        }
        Ok(Load { targets, period, duration })
    }

    /// When the first run of a target is due, after the start: spread evenly over one period.
    pub fn first_due(&self, target: u32) -> Duration {
        let share = self.period.as_nanos() * u128::from(target) / u128::from(self.targets);
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// Runs that are due before the end.
    pub fn due_runs(&self) -> u64 {
        let of_target = |target: u32| {
            let left = self.duration.saturating_sub(self.first_due(target));
            u64::try_from(left.as_nanos().div_ceil(self.period.as_nanos())).unwrap_or(u64::MAX)
        };
        (0..self.targets).map(of_target).sum()
    }

    /// Runs a second of all targets together.
    pub fn rate_per_s(&self) -> f64 {
        f64::from(self.targets) / self.period.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads() {
        let ms = Duration::from_millis;
        for (targets, rate_per_s, duration, period, due_runs) in [
            (50, 500, ms(2_000), ms(100), 1_000),
            (1, 1, ms(1), ms(1_000), 1),
            (3, 1, ms(1_000), ms(3_000), 1),
            (3, 1, ms(1_001), ms(3_000), 2),
            (7, 10, ms(10_000), ms(700), 100),
            (20_000, 20_000, ms(1_500), ms(1_000), 30_000),
        ] {
            let load = Load::at_rate(targets, rate_per_s, duration).unwrap();
            assert_eq!((load.period, load.due_runs()), (period, due_runs), "{targets} at {rate_per_s}/s");
            assert!((load.rate_per_s() - f64::from(rate_per_s)).abs() < 1e-6);
        }
    }

    #[test]
    fn first_runs_are_spread_over_a_period() {
        let load = Load { targets: 4, period: Duration::from_secs(1), duration: Duration::from_secs(9) };
        let dues: Vec<u128> = (0..4).map(|target| load.first_due(target).as_millis()).collect();
        assert_eq!(dues, [0, 250, 500, 750]);
    }

    #[test]
    fn numbers_that_do_not_go_together() {
        let second = Duration::from_secs(1);
        let error = Load::at_rate(1, 5_000, second).unwrap_err().to_string();
        let expected = "error: 1 targets at 5000 runs/s are one run per target every 200µs: \
                        --targets and --rate have to give 1ms to 3600s";
        assert_eq!(error, expected);
        assert!(Load::at_rate(200_000, 1, second).is_err());
        assert!(Load::at_rate(5, 5_000, second).is_ok());
    }
}
