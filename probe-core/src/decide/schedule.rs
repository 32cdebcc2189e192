//! When a probe is first due. Kubelet spreads first probes at random; defib by a stable hash, so that a
//! restart of the agent or a replay meets the same moments (design 9.12).

use std::time::Duration;

use crate::model::id::PodUid;
use crate::model::probe::{ProbeKind, ProbeSpec};
use crate::model::time::Mono;

/// The ticker of one probe: its period and its place inside the period.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    kind: ProbeKind,
    initial_delay: Duration,
    period: Duration,
    phase: Duration,
}

impl Schedule {
    /// The schedule of one probe: its offset is a hash of pod, container and kind.
    pub fn new(pod: PodUid, container: &str, kind: ProbeKind, spec: &ProbeSpec) -> Schedule {
        let period = spec.period.max(Duration::from_millis(1));
        Schedule {
            kind,
            initial_delay: Duration::from_secs(u64::from(spec.initial_delay_s)),
            period,
            phase: phase(pod, container, kind, period),
        }
    }

    /// Time between two runs.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The first run of an instance that started at `started_at`, asked when the probe may run as far as
    /// gates go (`now`: the moment of the question).
    ///
    /// Readiness is due as soon as its initial delay is over: kubelet pokes it at every sync while the
    /// container is not ready (kubelet-semantics 11). The others wait for their tick: the first point of
    /// `start + delay + phase + n × period` that is not past. Never before the initial delay, and at most one
    /// period after the later of `now` and the delay's end.
    pub fn first_due(&self, started_at: Mono, now: Mono) -> Mono {
        let eligible = started_at.after(self.initial_delay);
        match self.kind {
            ProbeKind::Readiness => eligible.max(now),
            ProbeKind::Startup | ProbeKind::Liveness => {
                next_tick(eligible.after(self.phase), self.period, now)
            }
        }
    }
}

/// First point of the grid `origin + n × period` at or after `now`.
fn next_tick(origin: Mono, period: Duration, now: Mono) -> Mono {
    if now <= origin {
        return origin;
    }
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    let ticks = (now.as_ns() - origin.as_ns()).div_ceil(period_ns);
    Mono::from_ns(origin.as_ns().saturating_add(ticks.saturating_mul(period_ns)))
}

/// Where in its period a probe ticks: the same for the same pod, container and kind; evenly spread over
/// many. Less than `period`.
pub fn phase(pod: PodUid, container: &str, kind: ProbeKind, period: Duration) -> Duration {
    let hash = mix(fnv1a(&[&pod.0.to_be_bytes(), container.as_bytes(), &[0], kind.as_str().as_bytes()]));
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    // The high 64 bits of hash × period: a fraction of the period without the bias of a remainder.
    let share_ns = (u128::from(hash) * u128::from(period_ns)) >> 64;
    Duration::from_nanos(u64::try_from(share_ns).unwrap_or(u64::MAX))
}

/// FNV-1a, 64 bits: stable over versions and machines, unlike the standard library's hasher.
fn fnv1a(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Final mixing of SplitMix64: FNV alone leaves the high bits of short inputs poorly spread.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
