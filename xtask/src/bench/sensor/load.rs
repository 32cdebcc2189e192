//! The load: processes end one at a time, in an order and at a pace that a seed gives.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::fixture::Slots;
use crate::clock::{Stopwatch, pause};

/// Between two ends. Spread, so that they do not keep step with somebody's timer.
const PACE_MIN: Duration = Duration::from_millis(5);
const PACE_SPREAD_US: u64 = 10_000;
/// A watchdog, not a promise.
const RESTART_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Whether the next process ends only after the last one was restarted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    AfterRestart,
    ByPace,
}

/// Ends the process of every slot once, and returns when all have been restarted.
pub fn end_each_once(slots: &Slots, turn: Turn, dice: &mut Dice) -> Result<()> {
    for number in dice.order(slots.count()) {
        slots.end(number)?;
        pause(PACE_MIN + Duration::from_micros(dice.below(PACE_SPREAD_US)));
        if turn == Turn::AfterRestart {
            until(RESTART_MAX, "the ended process is restarted", || {
                Ok(slots.read(number)?.starts_ns.len() == 2)
            })?;
        }
    }
    until(RESTART_MAX, "every ended process is restarted", || slots.have_started(2))
}

/// Looks until it is so; an error when `max` is over.
pub fn until(max: Duration, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let watch = Stopwatch::start();
    while !is_so()? {
        ensure!(watch.elapsed() < max, "not within {max:?}: {what}");
        pause(LOOK_EVERY);
    }
    Ok(())
}

/// Numbers that look random and are the same for the same seed (splitmix64, Steele and others 2014).
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Good enough for a load: small bounds make the bias of the remainder vanish.
    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// All numbers below `count`, shuffled.
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, self.below(at as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_each_once_and_follows_the_seed() {
        let order = Dice::new(7).order(100);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_ne!(order, sorted);
        assert_eq!(order, Dice::new(7).order(100));
        assert_ne!(order, Dice::new(8).order(100));
    }
}
