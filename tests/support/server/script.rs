//! Which requests fail by script, and which are answered late.

use std::time::Duration;

/// Which requests fail: of every `every`-th target, the requests whose number lies in the window, and again
/// after each `cycle` requests.
#[derive(Copy, Clone, Debug)]
pub struct Script {
    pub every: usize,
    pub cycle: u64,
    pub window_first: u64,
    pub window_length: u64,
}

impl Script {
    /// Whether the target ever fails.
    pub fn concerns(self, target: usize) -> bool {
        target % self.every == self.every / 2
    }

    pub(super) fn fails(self, target: usize, request: u64) -> bool {
        let place = request % self.cycle;
        self.concerns(target) && (self.window_first..self.window_first + self.window_length).contains(&place)
    }
}

/// Which targets answer late, and after how long: of every `every` the one after a tenth of them, each in turn
/// with the next of `lengths`.
#[derive(Copy, Clone, Debug)]
pub struct Delays {
    pub every: usize,
    pub lengths: &'static [Duration],
}

impl Delays {
    /// Nobody waits.
    pub const NONE: Delays = Delays { every: usize::MAX, lengths: &[] };

    pub(super) fn of(self, target: usize) -> Option<Duration> {
        let is_late = !self.lengths.is_empty() && target % self.every == self.every / 10;
        is_late.then(|| self.lengths[target / self.every % self.lengths.len()])
    }
}

/// How long a late target really took.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    pub target: usize,
    /// When the kernel had the request, on CLOCK_REALTIME.
    pub received_ns: i64,
    pub took_ns: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_in_a_hundred_fails_in_its_windows() {
        let script = Script { every: 100, cycle: 40, window_first: 20, window_length: 3 };
        let concerned: Vec<usize> = (0..300).filter(|target| script.concerns(*target)).collect();
        assert_eq!(concerned, [50, 150, 250]);
        let failing: Vec<u64> = (0..80).filter(|request| script.fails(50, *request)).collect();
        assert_eq!(failing, [20, 21, 22, 60, 61, 62]);
        assert!(!(0..80).any(|request| script.fails(51, request)));
    }
}
