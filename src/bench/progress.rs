//! The line that a terminal shows while a benchmark runs.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::collect::{Collected, Kind};
use super::report::time;

/// What has come up to a moment.
#[derive(Copy, Clone, Debug, Default)]
pub struct Point {
    pub at: Duration,
    pub done: u64,
}

/// `now` against a second ago; `collected` holds everything since the start.
pub fn line(before: Point, now: Point, duration: Duration, collected: &Collected) -> String {
    let seconds = now.at.saturating_sub(before.at).as_secs_f64();
    let rate_per_s = if seconds > 0.0 { (now.done - before.done) as f64 / seconds } else { 0.0 };
    format!(
        "{:>4}s of {}s  {rate_per_s:>8.0} runs/s  {} failed  response p50 {} p99 {}  lateness p99 {}",
        now.at.as_secs(),
        duration.as_secs_f64(),
        collected.of_kind(Kind::Failed),
        quantile(&collected.response_ns, 0.5),
        quantile(&collected.response_ns, 0.99),
        quantile(&collected.lateness_ns, 0.99),
    )
}

fn quantile(histogram_ns: &Histogram<u64>, quantile: f64) -> String {
    if histogram_ns.is_empty() { "-".to_owned() } else { time(histogram_ns.value_at_quantile(quantile)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let mut collected = Collected::new();
        collected.response_ns.record_n(150_000, 99).unwrap();
        collected.response_ns.record(2_000_000).unwrap();
        collected.lateness_ns.record_n(1_500, 100).unwrap();
        let before = Point { at: Duration::from_secs(2), done: 900 };
        let now = Point { at: Duration::from_secs(3), done: 1_400 };
        let expected =
            "   3s of 10s       500 runs/s  0 failed  response p50 150µs p99 150µs  lateness p99 1.5µs";
        assert_eq!(line(before, now, Duration::from_secs(10), &collected), expected);
        let nothing = line(now, now, Duration::from_millis(2_500), &Collected::new());
        assert_eq!(nothing, "   3s of 2.5s         0 runs/s  0 failed  response p50 - p99 -  lateness p99 -");
    }
}
