//! Time as values. Nothing in this crate outside `sys::clock` reads a clock.

use std::fmt;
use std::time::Duration;

const NS_PER_S: i64 = 1_000_000_000;

/// A moment on CLOCK_MONOTONIC, in nanoseconds. Deadlines and durations use only this clock.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono {
    ns: u64,
}

impl Mono {
    /// The clock's zero: boot, or the start of a simulation.
    pub const ZERO: Mono = Mono { ns: 0 };
    /// Later than every deadline: "never".
    pub const MAX: Mono = Mono { ns: u64::MAX };

    /// From nanoseconds since the clock's zero.
    pub const fn from_ns(ns: u64) -> Mono {
        Mono { ns }
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_ns(self) -> u64 {
        self.ns
    }

    /// `self + by`, at most [`Mono::MAX`].
    #[must_use]
    pub fn after(self, by: Duration) -> Mono {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Mono { ns: self.ns.saturating_add(by_ns) }
    }

    /// This moment earlier by `by`; not before the origin.
    pub fn before(self, by: Duration) -> Mono {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Mono { ns: self.ns.saturating_sub(by_ns) }
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.ns / 1_000_000_000, self.ns % 1_000_000_000)
    }
}

/// A moment on CLOCK_REALTIME, in nanoseconds since the Unix epoch. For showing to people only.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Wall {
    ns: i64,
}

impl Wall {
    /// From nanoseconds since the Unix epoch.
    pub const fn from_ns(ns: i64) -> Wall {
        Wall { ns }
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_ns(self) -> i64 {
        self.ns
    }

    /// Whole seconds since the Unix epoch, rounded down: the resolution of Kubernetes timestamps.
    pub const fn as_s(self) -> i64 {
        self.ns.div_euclid(NS_PER_S)
    }
}

/// One reading of both clocks, taken once per turn and passed down.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For arithmetic.
    pub mono: Mono,
    /// For display.
    pub wall: Wall,
}
