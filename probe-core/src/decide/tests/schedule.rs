//! First due moments (WRKX-06 with the spread by hash of design 9.12).

use std::time::Duration;

use proptest::prelude::{any, prop_assert, proptest};

use super::world::probe;
use crate::decide::schedule::{Schedule, phase};
use crate::model::id::PodUid;
use crate::model::probe::{ProbeKind, ProbeSpec};
use crate::model::time::Mono;

proptest! {
    #[test]
    fn never_before_the_delay_and_within_a_period_after_it(
        uid in any::<u128>(),
        name in "[a-z]{1,12}",
        kind in 0usize..3,
        delay_s in 0u32..10_000,
        period_s in 1u32..10_000,
        started_ns in 0u64..1 << 62,
        later_ns in 0u64..1 << 45,
    ) {
        let kind = ProbeKind::ALL[kind];
        let spec = ProbeSpec { initial_delay_s: delay_s, period: Duration::from_secs(period_s.into()), ..probe() };
        let schedule = Schedule::new(PodUid(uid), &name, kind, &spec);
        let started = Mono::from_ns(started_ns);
        let now = started.after(Duration::from_nanos(later_ns));
        let first = schedule.first_due(started, now);
        let eligible = started.after(Duration::from_secs(u64::from(delay_s)));
        prop_assert!(first >= eligible && first >= now);
        prop_assert!(first <= eligible.max(now).after(schedule.period()));
        if kind == ProbeKind::Readiness {
            prop_assert!(first == eligible.max(now));
        } else {
            // Asked at any later moment, the answer is on the same grid.
            let period_ns = u64::try_from(schedule.period().as_nanos()).unwrap();
            let at_start = schedule.first_due(started, started);
            prop_assert!((first.as_ns() - at_start.as_ns()).is_multiple_of(period_ns));
        }
    }
}

/// WRKX-06: kubelet draws the phase at random, and only while it is young; here a hash says it, always.
#[test]
fn phases_are_spread_evenly_and_stay() {
    const PROBES: u32 = 10_000;
    const BINS: usize = 10;
    const PINNED_NS: u64 = 4_014_779_724;
    let period = Duration::from_secs(10);
    let mut bins = [0u32; BINS];
    for n in 0..PROBES {
        let phase = phase(PodUid(u128::from(n)), "web", ProbeKind::Liveness, period);
        assert!(phase < period);
        bins[usize::try_from(phase.as_secs()).unwrap()] += 1;
    }
    let expected = PROBES / u32::try_from(BINS).unwrap();
    assert!(bins.iter().all(|bin| bin.abs_diff(expected) < expected / 5), "{bins:?}");
    // Pinned on purpose: another hash would move every probe when the agent is updated.
    let pinned = phase(PodUid(1), "web", ProbeKind::Liveness, period);
    assert_eq!(pinned, Duration::from_nanos(PINNED_NS));
}
