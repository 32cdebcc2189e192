//! What the runs of one probe came to: compact counters that become kubelet's metrics when somebody asks.

use std::time::Duration;

use super::id::{ContainerIx, PodUid};
use super::probe::{ProbeKind, Verdict};

/// Upper bounds of the classes of duration, in milliseconds, the last one open: the default buckets of Prometheus'
/// Go client, which kubelet uses.
pub const BOUNDS_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// Runs since the probe was first armed. A counter begins anew after 2^32 runs, as one of a restarted process would.
///
/// Packed, since every probe of a node has one: with padding an entry of the engine's table takes 16 bytes more.
#[repr(C, packed(4))]
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Of all successes.
    took_ns: u64,
    /// Successes by class of duration. A run that ends in a warning is one (kubelet-semantics 16).
    took: [u32; BOUNDS_MS.len() + 1],
    failed: u32,
}

/// The tally of one probe.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Tallied {
    pub pod: PodUid,
    pub container: ContainerIx,
    pub kind: ProbeKind,
    pub tally: Tally,
}

/// A place in an engine's tables: where a telling of tallies goes on. The default is the beginning.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct TallyCursor {
    pub executor: usize,
    pub index: usize,
}

impl Tally {
    /// A run that errs, or about which nothing is known, is not counted.
    pub fn count(&mut self, verdict: Verdict, took: Duration) {
        match verdict {
            Verdict::Success | Verdict::Warning => {
                let class = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < took);
                self.took[class] = self.took[class].wrapping_add(1);
                self.took_ns = self.took_ns.wrapping_add(took.as_nanos() as u64);
            }
            Verdict::Failure => self.failed = self.failed.wrapping_add(1),
            Verdict::Errored | Verdict::Inconclusive => {}
        }
    }

    pub fn failed(&self) -> u64 {
        self.failed.into()
    }

    pub fn succeeded(&self) -> u64 {
        self.took.iter().copied().map(u64::from).sum()
    }

    /// The time that all successes took.
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.took_ns)
    }

    /// Successes of each class and its upper bound; None for the last.
    pub fn classes(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS_MS.iter().map(|bound| Some(Duration::from_millis(*bound))).chain([None]);
        bounds.zip(self.took.iter().copied().map(u64::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successes_are_classed_and_only_what_has_a_result_counts() {
        let mut tally = Tally::default();
        let mut run = |verdict, took_us| tally.count(verdict, Duration::from_micros(took_us));
        run(Verdict::Success, 5_000);
        run(Verdict::Success, 5_001);
        run(Verdict::Warning, 60_000_000);
        run(Verdict::Failure, 7_000);
        run(Verdict::Errored, 1);
        run(Verdict::Inconclusive, 1);
        assert_eq!((tally.succeeded(), tally.failed()), (3, 1));
        assert_eq!(tally.took(), Duration::from_micros(60_010_001));
        let filled: Vec<_> = tally.classes().filter(|(_, runs)| *runs > 0).collect();
        let ms = Duration::from_millis;
        assert_eq!(filled, [(Some(ms(5)), 1), (Some(ms(10)), 1), (None, 1)]);
    }

    #[test]
    fn a_tally_is_small() {
        assert_eq!(size_of::<Tally>(), 60);
    }
}
