//! Watchdogs: how long a test waits for something that should have come long before.

use std::time::Duration;

use rustix::event::{Timespec, poll};

/// For what takes well under a second on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);
/// For what includes probe periods, grace periods or back-off.
pub const AFTER_A_WHILE: Duration = Duration::from_secs(120);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value, for states that nobody announces (a file of /proc, an answer of a
/// server). Panics with `what` when `max` is over. Never use it to let time pass.
pub fn eventually<T>(what: &str, max: Duration, look: impl FnMut() -> Option<T>) -> T {
    within(max, look).unwrap_or_else(|| panic!("not within {max:?}: {what}"))
}

/// As [`eventually`], for where a panic would hide another one.
pub(crate) fn within<T>(max: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let looks = max.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..=looks {
        if let Some(value) = look() {
            return Some(value);
        }
        pass(LOOK_EVERY);
    }
    None
}

/// Lets time pass where its length is what a test is about: how long a disturbance lasts. It waits for nothing.
pub fn pass(length: Duration) {
    let timeout = Timespec::try_from(length).expect("a short pause");
    // Interrupted by a signal: then this look comes a little earlier.
    let _ = poll(&mut [], Some(&timeout));
}
