//! The rows of a run: one per contestant, load and round.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cpu::QUIET_MAX;
use super::resume::Origin;

/// A rate further off the offered one is another load.
const RATE_SLACK: f64 = 0.01;
/// Time that the hypervisor took counts as busy: so much of it does not matter.
const STOLEN_MAX: f64 = 0.03;
/// Two clocks, and a baseline that is an estimate.
const PROCESS_SLACK: f64 = 0.95;

/// One contestant under one load, once. None: not told by this contestant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// When the run began, in seconds since 1970: rows of two runs do not mix.
    pub run: i64,
    #[serde(flatten)]
    pub origin: Origin,
    pub contestant: String,
    pub load: String,
    /// Counted from 1.
    pub round: u32,
    /// As asked for, and as the server saw it.
    pub offered_per_s: f64,
    pub rate_per_s: f64,
    /// Length of the measured window.
    pub window_s: f64,
    /// Shares of a core: of the measured one before the contestant came, what the hypervisor took of it in the window,
    /// and what the server's core was busy in the window.
    pub baseline_share: f64,
    pub stolen_share: f64,
    pub server_share: f64,
    pub cpu_us_per_probe: f64,
    pub process_cpu_us_per_probe: f64,
    pub false_failures: u64,
    /// Failures by script, and those of them that were not reported.
    pub scripted_failures: u64,
    pub missed_failures: u64,
    pub inconclusive: u64,
    pub lateness_p50_us: Option<f64>,
    pub lateness_p99_us: Option<f64>,
    pub lateness_p999_us: Option<f64>,
    pub response_error_p99_us: Option<f64>,
    pub rss_bytes: u64,
    pub bytes_per_target: f64,
}

impl Row {
    /// The share of the offered rate that was achieved.
    pub fn achieved(&self) -> f64 {
        self.rate_per_s / self.offered_per_s
    }

    pub fn is_of(&self, contestant: &str, load: &str, round: u32) -> bool {
        (self.contestant.as_str(), self.load.as_str(), self.round) == (contestant, load, round)
    }

    /// Whether it is another load that was met.
    pub fn is_off_rate(&self) -> bool {
        (self.achieved() - 1.0).abs() > RATE_SLACK
    }

    /// Why the CPU per probe of this row says nothing about probing at the offered rate; None: it does.
    pub fn flaw(&self) -> Option<&'static str> {
        [
            (self.false_failures > 0, "false failures"),
            (self.missed_failures > 0, "failures that were not reported"),
            (self.is_off_rate(), "another rate than offered"),
            (self.is_disturbed(), "a core that others used as well"),
            (self.cpu_us_per_probe <= 0.0, "no CPU used"),
            // The core's figure holds what its process used, and the kernel's part.
            (
                self.cpu_us_per_probe < PROCESS_SLACK * self.process_cpu_us_per_probe,
                "less than its process used",
            ),
        ]
        .into_iter()
        .find_map(|(is_so, flaw)| is_so.then_some(flaw))
    }

    /// Whether something that is no part of the contest used the measured core.
    pub fn is_disturbed(&self) -> bool {
        self.baseline_share > QUIET_MAX || self.stolen_share > STOLEN_MAX
    }

    /// Whether a probe was judged wrongly, or not at all.
    pub fn has_losses(&self) -> bool {
        self.false_failures + self.missed_failures + self.inconclusive > 0
    }

    /// The share of the probes of the window that failed falsely.
    pub fn false_share(&self) -> f64 {
        self.false_failures as f64 / (self.offered_per_s * self.window_s)
    }
}

/// The rows of one contestant under one load.
pub fn of<'a>(rows: &'a [Row], contestant: &str, load: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.contestant == contestant && row.load == load).collect()
}

/// The median CPU per probe; None where a row has a flaw, or there is none.
pub fn cpu_us_per_probe(rows: &[&Row]) -> Option<f64> {
    let is_sound = rows.iter().all(|row| row.flaw().is_none());
    median(rows, |row| Some(row.cpu_us_per_probe)).filter(|_| is_sound)
}

/// The median of a figure over the rounds; None where no round tells it.
pub fn median<R>(rows: &[&R], figure: impl Fn(&R) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = rows.iter().filter_map(|row| figure(row)).collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values[values.len() / 2 - 1] + upper) / 2.0)
}

/// The value below which this share of all values lies.
pub fn percentile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * share).round() as usize).copied()
}

pub fn write<R: Serialize>(rows: &[R], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows).context("the rows")?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).with_context(|| {
        format!("cannot read {}; `cargo xtask bench peers --json {0}` writes it", path.display())
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a list of rows", path.display()))
}

#[cfg(test)]
pub fn row(contestant: &str, load: &str, cpu_us_per_probe: f64) -> Row {
    Row {
        run: 1,
        origin: Origin { tree: "t".to_owned(), boot: "b".to_owned() },
        contestant: contestant.to_owned(),
        load: load.to_owned(),
        round: 1,
        offered_per_s: 5_000.0,
        rate_per_s: 5_000.0,
        window_s: 20.0,
        baseline_share: 0.01,
        stolen_share: 0.0,
        server_share: 0.5,
        cpu_us_per_probe,
        process_cpu_us_per_probe: cpu_us_per_probe,
        false_failures: 0,
        scripted_failures: 10,
        missed_failures: 0,
        inconclusive: 0,
        lateness_p50_us: None,
        lateness_p99_us: None,
        lateness_p999_us: None,
        response_error_p99_us: None,
        rss_bytes: 1_000_000,
        bytes_per_target: 200.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_of_the_rounds_that_tell_the_figure() {
        let rows: Vec<Row> = [3.0, 1.0, 10.0].map(|cpu| row("a", "l", cpu)).into();
        let all: Vec<&Row> = rows.iter().collect();
        assert_eq!(median(&all, |row| Some(row.cpu_us_per_probe)), Some(3.0));
        assert_eq!(median(&all[..2], |row| Some(row.cpu_us_per_probe)), Some(2.0));
        assert_eq!(median(&all, |row| row.lateness_p50_us), None);
    }

    #[test]
    fn a_row_that_says_nothing_of_cpu_says_why() {
        let check = |change: fn(&mut Row), flaw: Option<&str>| {
            let mut row = row("a", "l", 10.0);
            change(&mut row);
            assert_eq!(row.flaw(), flaw);
        };
        check(|_| (), None);
        check(|row| row.false_failures = 1, Some("false failures"));
        check(|row| row.missed_failures = 1, Some("failures that were not reported"));
        check(|row| row.rate_per_s = 4_940.0, Some("another rate than offered"));
        check(|row| row.rate_per_s = 5_060.0, Some("another rate than offered"));
        check(|row| row.baseline_share = 0.05, Some("a core that others used as well"));
        check(|row| row.stolen_share = 0.05, Some("a core that others used as well"));
        check(|row| row.cpu_us_per_probe = -1.0, Some("no CPU used"));
        check(|row| row.process_cpu_us_per_probe = 11.0, Some("less than its process used"));
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(values.clone(), 0.99), Some(99.0));
        assert_eq!(percentile(values, 0.5), Some(50.0));
        assert_eq!(percentile(vec![7.0], 0.99), Some(7.0));
        assert_eq!(percentile(Vec::new(), 0.5), None);
    }

    #[test]
    fn rows_survive_a_file() {
        let rows = vec![row("defib", "http-5k", 30.5)];
        let file = tempfile::NamedTempFile::new().unwrap();
        write(&rows, file.path()).unwrap();
        assert_eq!(read(file.path()).unwrap(), rows);
        assert_eq!(of(&rows, "defib", "http-5k").len(), 1);
    }
}
