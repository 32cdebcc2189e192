//! Whether the shard was there to watch, and what the kernel's receive times mean on its clock.
//!
//! A shard that was starved, stopped or frozen, or whose machine was suspended, did not look at its runs for a
//! while. What such a run then shows by silence may be the shard's own fault, so it must not become a verdict.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::limits::{
    ABSENCES_MAX, MEDIUM_TIMEOUT, SHORT_TIMEOUT, UNWATCHED_MIN, UNWATCHED_MIN_SHORT, WATCH_EVERY,
    WATCH_EVERY_MEDIUM, WATCH_EVERY_SHORT,
};
use crate::model::time::{Mono, Now, Wall};

/// Readings of the two clocks, one right after the other, differ by a constant to this much. More is a step of
/// CLOCK_REALTIME, or a thread that was interrupted between the readings: the times of that turn are not used.
pub const CLOCKS_AGREE: Duration = Duration::from_micros(50);

/// The shard's own attention over time.
#[derive(Default)]
pub struct Watch {
    /// When the next turn was to come at the latest; None before the first.
    expected: Option<Mono>,
    /// By how much this turn came late.
    overdue: Duration,
    /// Turns that were overdue by [`UNWATCHED_MIN`] or more.
    ordinary: Absences,
    /// Those by [`UNWATCHED_MIN_SHORT`] or more.
    short: Absences,
    /// CLOCK_REALTIME less CLOCK_MONOTONIC at the latest turn.
    offset_ns: Option<i64>,
    /// Whether that is the same as at the turn before.
    is_steady: bool,
}

/// Times in which nobody looked.
pub struct Absences {
    sum: Duration,
    /// How often that was.
    count: u64,
    /// By number and length, without those that a later one was as long as: lengths fall.
    longest: VecDeque<(u64, Duration)>,
}

/// How many runs are in flight, by the length of their timeouts. An absence between two looks at the clock is not seen,
/// so a shorter timeout wants more of them.
#[derive(Copy, Clone, Default, Debug)]
pub struct InFlight {
    short: u32,
    medium: u32,
}

impl InFlight {
    pub fn add(&mut self, timeout: Duration) {
        if let Some(count) = self.of(timeout) {
            *count += 1;
        }
    }

    pub fn remove(&mut self, timeout: Duration) {
        if let Some(count) = self.of(timeout) {
            *count -= 1;
        }
    }

    /// At the latest so long after a look the next one is due.
    pub fn look_every(self) -> Duration {
        match self {
            InFlight { short: 0, medium: 0 } => WATCH_EVERY,
            InFlight { short: 0, .. } => WATCH_EVERY_MEDIUM,
            InFlight { .. } => WATCH_EVERY_SHORT,
        }
    }

    fn of(&mut self, timeout: Duration) -> Option<&mut u32> {
        if timeout < SHORT_TIMEOUT {
            Some(&mut self.short)
        } else {
            (timeout < MEDIUM_TIMEOUT).then_some(&mut self.medium)
        }
    }
}

impl Watch {
    /// A turn begins. Returns by how much it is overdue.
    pub fn begin_turn(&mut self, now: Now) -> Duration {
        let offset_ns = now.wall.as_ns().saturating_sub(now.mono.as_ns() as i64);
        self.is_steady =
            self.offset_ns.is_some_and(|last| last.abs_diff(offset_ns) < CLOCKS_AGREE.as_nanos() as u64);
        self.offset_ns = Some(offset_ns);
        self.overdue = self.expected.map_or(Duration::ZERO, |expected| now.mono.since(expected));
        self.overdue
    }

    /// The absence right before this turn, if it counts for a run of this timeout.
    pub fn overdue(&self, timeout: Duration) -> Duration {
        let least = if timeout < SHORT_TIMEOUT { UNWATCHED_MIN_SHORT } else { UNWATCHED_MIN };
        if self.overdue < least { Duration::ZERO } else { self.overdue }
    }

    /// The turn that has begun at `now` ends; the next one comes at `wake` or before.
    pub fn end_turn(&mut self, now: Mono, wake: Mono) {
        self.expected = Some(wake.max(now));
    }

    /// Time in which nobody looked, by another measure: a suspended machine stops CLOCK_MONOTONIC.
    pub fn missed(&mut self, by: Duration) {
        if by >= UNWATCHED_MIN {
            self.ordinary.add(by);
        }
        if by >= UNWATCHED_MIN_SHORT {
            self.short.add(by);
        }
    }

    /// The absences that count for a run of this timeout.
    pub fn absences(&self, timeout: Duration) -> &Absences {
        if timeout < SHORT_TIMEOUT { &self.short } else { &self.ordinary }
    }

    /// A receive time on the clock of deadlines; None when it cannot be told.
    pub fn mono_of(&self, received_at: Option<Wall>) -> Option<Mono> {
        let at_ns = received_at?.as_ns().checked_sub(self.offset_ns.filter(|_| self.is_steady)?)?;
        u64::try_from(at_ns).ok().map(Mono::from_ns)
    }
}

impl Default for Absences {
    fn default() -> Absences {
        Absences { sum: Duration::ZERO, count: 0, longest: VecDeque::with_capacity(ABSENCES_MAX) }
    }
}

impl Absences {
    fn add(&mut self, by: Duration) {
        self.sum = self.sum.saturating_add(by);
        self.count += 1;
        while self.longest.back().is_some_and(|(_, length)| *length <= by) {
            self.longest.pop_back();
        }
        let is_full = self.longest.len() >= ABSENCES_MAX;
        match self.longest.back_mut().filter(|_| is_full) {
            // As if it had been as long as the one before it: on the side of the target.
            Some(last) => last.0 = self.count,
            None => self.longest.push_back((self.count, by)),
        }
    }

    /// How many so far, a mark for [`Absences::longest_since`].
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest absence since this mark.
    pub fn longest_since(&self, mark: u64) -> Duration {
        let since = self.longest.iter().find(|(number, _)| *number > mark);
        since.map_or(Duration::ZERO, |(_, length)| *length)
    }

    /// Grows while nobody looks: the difference of two readings is the time missed between them.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono_ms: u64, wall_ms: i64) -> Now {
        Now { mono: ms(mono_ms), wall: Wall::from_ns(wall_ms * 1_000_000) }
    }

    fn ms(ms: u64) -> Mono {
        Mono::from_ns(ms * 1_000_000)
    }

    #[test]
    fn the_shortest_timeout_in_flight_says_how_often_to_look() {
        let mut in_flight = InFlight::default();
        let timeouts = [1_000, 999, 100, 99].map(Duration::from_millis);
        let looks_ms = |in_flight: &InFlight| in_flight.look_every().as_millis();
        let added = timeouts.map(|timeout| {
            in_flight.add(timeout);
            looks_ms(&in_flight)
        });
        assert_eq!(added, [100, 10, 10, 2]);
        let removed = [99, 999, 100, 1_000].map(|timeout_ms| {
            in_flight.remove(Duration::from_millis(timeout_ms));
            looks_ms(&in_flight)
        });
        assert_eq!(removed, [10, 10, 100, 100]);
    }

    #[test]
    fn only_an_overdue_turn_misses_anything() {
        let mut watch = Watch::default();
        // (turn at, wake asked for, overdue by): all in milliseconds.
        let turns = [(100, 200, 0), (200, 210, 0), (214, 215, 4), (220, 220, 5), (3_220, 3_300, 3_000)];
        for (at, wake, overdue) in turns {
            let overdue = Duration::from_millis(overdue);
            let told = watch.begin_turn(now(at, 0));
            watch.missed(told);
            assert_eq!(told, overdue, "at {at}");
            watch.end_turn(ms(at), ms(wake));
        }
        let sums =
            [100, 99].map(|timeout_ms| watch.absences(Duration::from_millis(timeout_ms)).sum().as_millis());
        assert_eq!(sums, [3_005, 3_009]);
    }

    #[test]
    fn the_longest_absence_since_a_mark_is_known() {
        let mut watch = Watch::default();
        let lengths_ms = [9, 40, 7, 30, 30, 5];
        lengths_ms.iter().for_each(|ms| watch.missed(Duration::from_millis(*ms)));
        let absences = watch.absences(Duration::from_secs(1));
        let since: Vec<u128> = (0..=6).map(|mark| absences.longest_since(mark).as_millis()).collect();
        assert_eq!(since, [40, 40, 30, 30, 30, 5, 0]);
    }

    #[test]
    fn more_absences_than_are_kept_count_as_longer_ones() {
        let mut watch = Watch::default();
        let count = ABSENCES_MAX as u64 + 3;
        (0..count).for_each(|n| watch.missed(Duration::from_millis(1_000 - n)));
        assert_eq!(watch.ordinary.longest.len(), ABSENCES_MAX);
        for mark in 0..count {
            assert!(watch.ordinary.longest_since(mark) >= Duration::from_millis(1_000 - mark), "{mark}");
        }
        assert_eq!(watch.ordinary.longest_since(count), Duration::ZERO);
    }

    #[test]
    fn receive_times_are_used_while_the_clocks_agree() {
        let mut watch = Watch::default();
        let received = Some(Wall::from_ns(50_900_000_000));
        watch.begin_turn(now(1_000, 51_000));
        assert_eq!(watch.mono_of(received), None, "nothing to compare with yet");
        watch.begin_turn(now(1_001, 51_001));
        assert_eq!(watch.mono_of(received), Some(ms(900)));
        assert_eq!(watch.mono_of(None), None);
        watch.begin_turn(now(1_002, 60_002));
        assert_eq!(watch.mono_of(received), None, "the clock was stepped");
        watch.begin_turn(now(1_003, 60_003));
        assert_eq!(watch.mono_of(Some(Wall::from_ns(60_003_000_000))), Some(ms(1_003)));
        assert_eq!(watch.mono_of(Some(Wall::from_ns(1))), None, "before the boot");
    }
}
