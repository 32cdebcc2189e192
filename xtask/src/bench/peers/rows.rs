//! The rows of a run: one per contestant, load and round.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One contestant under one load, once. None: not told by this contestant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    pub contestant: String,
    pub load: String,
    /// Counted from 1.
    pub round: u32,
    /// As asked for, and as the server saw it.
    pub offered_per_s: f64,
    pub rate_per_s: f64,
    /// Length of the measured window.
    pub window_s: f64,
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

    /// The share of the probes of the window that failed falsely.
    pub fn false_share(&self) -> f64 {
        self.false_failures as f64 / (self.offered_per_s * self.window_s)
    }
}

/// The rows of one contestant under one load.
pub fn of<'a>(rows: &'a [Row], contestant: &str, load: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.contestant == contestant && row.load == load).collect()
}

/// The median of a figure over the rounds; None where no round tells it.
pub fn median(rows: &[&Row], figure: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = rows.iter().filter_map(|row| figure(row)).collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values[values.len() / 2 - 1] + upper) / 2.0)
}

pub fn write(rows: &[Row], path: &Path) -> Result<()> {
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
        contestant: contestant.to_owned(),
        load: load.to_owned(),
        round: 1,
        offered_per_s: 5_000.0,
        rate_per_s: 5_000.0,
        window_s: 20.0,
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
    fn rows_survive_a_file() {
        let rows = vec![row("defib", "http-5k", 30.5)];
        let file = tempfile::NamedTempFile::new().unwrap();
        write(&rows, file.path()).unwrap();
        assert_eq!(read(file.path()).unwrap(), rows);
        assert_eq!(of(&rows, "defib", "http-5k").len(), 1);
    }
}
