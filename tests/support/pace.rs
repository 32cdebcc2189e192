//! How fast the long windows of upstream's tests pass here (design 9.11): a tenth of their length, or all of it.

use std::env;
use std::time::Duration;

use crate::watch::AFTER_A_WHILE;

/// `cargo xtask conformance --real-time` sets it.
const REAL_TIME: &str = "DEFIB_TEST_REAL_TIME";
/// Delays, periods, back-off and watches are so much shorter; timeouts and grace periods are not.
const SHRINK: u64 = 10;
/// What upstream gives five restarts with standard waits.
const PATIENCE_AT_TRUE_SPEED: Duration = Duration::from_secs(14 * 60);

/// Whether time passes at its true speed.
pub fn is_real_time() -> bool {
    env::var_os(REAL_TIME).is_some()
}

/// Upstream's seconds as they are here, whole ones.
pub fn seconds(upstream_s: u64) -> u64 {
    if is_real_time() { upstream_s } else { upstream_s.div_ceil(SHRINK) }
}

/// A watchdog for what includes such seconds.
pub fn patience() -> Duration {
    if is_real_time() { PATIENCE_AT_TRUE_SPEED } else { AFTER_A_WHILE }
}
