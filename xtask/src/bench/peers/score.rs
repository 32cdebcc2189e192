//! What was reported against what was served.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use test_support::server::Wait;

use super::rows;

/// What a contestant tells at its end (`benches/peers/src/report.rs`).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Told {
    /// Failures that look like scripted ones, by target.
    pub scripted: Vec<(u32, u64)>,
    pub other_failures: u64,
    /// Those of them that name their target, by target. Not told by all.
    #[serde(default)]
    pub failed: Vec<(u32, u64)>,
    pub example: Option<String>,
    pub inconclusive: u64,
    pub lateness_us: Option<Percentiles>,
    pub responses: Vec<Response>,
    pub state_bytes: Option<u64>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Response {
    pub target: u32,
    pub began_ns: i64,
    pub took_ns: i64,
    /// From due to begun. Not told by all.
    #[serde(default)]
    pub late_ns: i64,
}

/// Failures that should have been reported, against those that were.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Score {
    pub scripted: u64,
    /// Scripted, and never reported.
    pub missed: u64,
    /// Reported, and never served.
    pub false_failures: u64,
}

/// `failed`: how often each target was failed by script.
pub fn http(failed: &[u64], told: &Told) -> Score {
    let mut score = Score { false_failures: told.other_failures, ..Score::default() };
    let reported: BTreeMap<usize, u64> =
        told.scripted.iter().map(|(target, count)| (*target as usize, *count)).collect();
    for (target, served) in failed.iter().enumerate() {
        let seen = reported.get(&target).copied().unwrap_or_default();
        score.scripted += served;
        score.missed += served.saturating_sub(seen);
        score.false_failures += seen.saturating_sub(*served);
    }
    let unknown = reported.range(failed.len()..).map(|(_, count)| count).sum::<u64>();
    score.false_failures += unknown;
    score
}

/// `refusing`: targets where nobody listens. Each has to be reported, how often does not matter.
pub fn tcp(refusing: &BTreeSet<u32>, told: &Told) -> Score {
    let mut score =
        Score { scripted: refusing.len() as u64, false_failures: told.other_failures, ..Score::default() };
    let reported: BTreeSet<u32> = told.scripted.iter().map(|(target, _)| *target).collect();
    score.missed = refusing.difference(&reported).count() as u64;
    let healthy = told.scripted.iter().filter(|(target, _)| !refusing.contains(target));
    score.false_failures += healthy.map(|(_, count)| count).sum::<u64>();
    score
}

/// The 99th percentile of |reported − true| over the probes of late targets, in microseconds. A probe's request is
/// the one of its target that came nearest to its begin, within half a `period`: requests of a target are a period
/// apart, however wrong a response time is.
pub fn response_error_p99_us(responses: &[Response], waits: &[Wait], period: Duration) -> Option<f64> {
    let half_ns = period.as_nanos() as i64 / 2;
    let mut by_target: BTreeMap<u32, Vec<Wait>> = BTreeMap::new();
    for wait in waits {
        by_target.entry(wait.target as u32).or_default().push(*wait);
    }
    let mut errors_us: Vec<f64> = Vec::new();
    for response in responses {
        let of_target = by_target.get(&response.target).map_or(&[][..], Vec::as_slice);
        let apart_ns = |wait: &&Wait| (wait.received_ns - response.began_ns).abs();
        if let Some(wait) = of_target.iter().min_by_key(apart_ns).filter(|wait| apart_ns(wait) < half_ns) {
            errors_us.push((response.took_ns - wait.took_ns).abs() as f64 / 1_000.0);
        }
    }
    rows::percentile(errors_us, 0.99)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(scripted: &[(u32, u64)], other_failures: u64) -> Told {
        Told { scripted: scripted.to_vec(), other_failures, ..Told::default() }
    }

    #[test]
    fn every_scripted_failure_is_reported_once() {
        let check = |told: &Told, missed, false_failures| {
            let score = http(&[0, 2, 0, 1], told);
            assert_eq!(score, Score { scripted: 3, missed, false_failures }, "{told:?}");
        };
        check(&told(&[(1, 2), (3, 1)], 0), 0, 0);
        check(&told(&[(1, 1)], 0), 2, 0);
        check(&told(&[(1, 3), (3, 1)], 5), 0, 6);
        check(&told(&[(0, 1), (1, 2), (3, 1), (9, 4)], 0), 0, 5);
    }

    #[test]
    fn refusing_targets_are_reported_and_no_others() {
        let refusing = BTreeSet::from([5, 7]);
        let check = |told: &Told, missed, false_failures| {
            let score = tcp(&refusing, told);
            assert_eq!(score, Score { scripted: 2, missed, false_failures }, "{told:?}");
        };
        check(&told(&[(5, 20), (7, 1)], 0), 0, 0);
        check(&told(&[(5, 20)], 3), 1, 3);
        check(&told(&[(5, 1), (6, 2), (7, 1)], 0), 0, 2);
    }

    #[test]
    fn a_response_is_compared_with_the_nearest_wait() {
        const MS: i64 = 1_000_000;
        let wait = |target, received_ms, took_ms| Wait {
            target,
            received_ns: received_ms * MS,
            took_ns: took_ms * MS,
        };
        let waits = [wait(20, 1_000, 5), wait(20, 2_000, 6), wait(40, 1_000, 9)];
        let response =
            |target, began_ms, took_ns| Response { target, began_ns: began_ms * MS, took_ns, late_ns: 0 };
        let responses = [
            response(20, 1_000, 5 * MS + 40_000),
            response(20, 2_000, 6 * MS - 70_000),
            response(40, 1_600, 1),
        ];
        let second = Duration::from_secs(1);
        assert_eq!(response_error_p99_us(&responses, &waits, second), Some(70.0));
        assert_eq!(response_error_p99_us(&responses[2..], &waits, second), None);
        let far = response(20, 1_100, 105 * MS);
        assert_eq!(response_error_p99_us(&[far], &waits, second), Some(100_000.0));
    }
}
