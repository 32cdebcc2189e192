//! What was measured: rows for people and programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// One line. Times that are no distribution have only `p50_us`, the mean; numbers that are no times have `value`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    pub source: &'static str,
    pub measure: &'static str,
    pub containers: usize,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub max_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// Of how many it was made.
    pub samples: u64,
}

impl Row {
    fn new(source: &'static str, measure: &'static str, containers: usize, samples: u64) -> Row {
        Row {
            source,
            measure,
            containers,
            p50_us: None,
            p99_us: None,
            max_us: None,
            mean_us: None,
            value: None,
            unit: None,
            samples,
        }
    }

    pub fn of_times(
        source: &'static str,
        measure: &'static str,
        containers: usize,
        times_ns: &[u64],
    ) -> Result<Row> {
        ensure!(!times_ns.is_empty(), "{source} {measure}: nothing was measured");
        let mut sorted = times_ns.to_vec();
        sorted.sort_unstable();
        let us = |ns: u64| ns as f64 / 1e3;
        let total_ns: u64 = sorted.iter().sum();
        Ok(Row {
            p50_us: Some(us(nearest_rank(&sorted, 50))),
            p99_us: Some(us(nearest_rank(&sorted, 99))),
            max_us: sorted.last().copied().map(us),
            mean_us: Some(us(total_ns) / sorted.len() as f64),
            ..Row::new(source, measure, containers, sorted.len() as u64)
        })
    }

    pub fn of_mean(
        source: &'static str,
        measure: &'static str,
        containers: usize,
        samples: u64,
        mean_us: f64,
    ) -> Row {
        Row {
            p50_us: Some(mean_us),
            mean_us: Some(mean_us),
            ..Row::new(source, measure, containers, samples)
        }
    }

    pub fn of_value(
        source: &'static str,
        measure: &'static str,
        containers: usize,
        samples: u64,
        (value, unit): (f64, &'static str),
    ) -> Row {
        Row { value: Some(value), unit: Some(unit), ..Row::new(source, measure, containers, samples) }
    }
}

/// The smallest that at least `percent` of all do not exceed. `sorted` is not empty.
fn nearest_rank(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

pub fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let mut text = format!(
        "{:<8} {:<26} {:>10} {:>8} {:>12} {:>12} {:>12} {:>12}\n",
        "SOURCE", "MEASURE", "CONTAINERS", "SAMPLES", "P50 us", "P99 us", "MAX us", "VALUE"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<8} {:<26} {:>10} {:>8} {:>12} {:>12} {:>12} {:>12} {}",
            row.source,
            row.measure,
            row.containers,
            row.samples,
            match row.value {
                None if row.p99_us.is_none() =>
                    row.p50_us.map(|mean| format!("{mean:.3}")).unwrap_or_default(),
                _ => number(row.p50_us),
            },
            number(row.p99_us),
            number(row.max_us),
            number(row.value),
            row.unit.unwrap_or_default()
        );
    }
    text
}

/// A JSON array, one row a line.
pub fn write(rows: &[Row], path: &Path) -> Result<()> {
    let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let thousand: Vec<u64> = (1..=1_000).rev().map(|us| us * 1_000).collect();
        let row = Row::of_times("ebpf", "exit_to_decision", 1_000, &thousand).unwrap();
        assert_eq!((row.p50_us, row.p99_us, row.max_us), (Some(500.0), Some(990.0), Some(1_000.0)));
        assert_eq!(row.mean_us, Some(500.5));
        let one = Row::of_times("ebpf", "exit_to_decision", 1, &[7_000]).unwrap();
        assert_eq!((one.p50_us, one.p99_us, one.max_us), (Some(7.0), Some(7.0), Some(7.0)));
        assert!(Row::of_times("ebpf", "exit_to_decision", 1, &[]).is_err());
    }

    #[test]
    fn every_row_of_the_array_has_the_six_fields() {
        let rows = [
            Row::of_times("relist", "exit_to_decision", 2, &[1_000, 2_000]).unwrap(),
            Row::of_mean("ebpf", "program_unregistered_exit", 0, 20_000, 0.25),
            Row::of_value("ebpf", "records_until_loss", 1, 10, (58_254.0, "records")),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        write(&rows, file.path()).unwrap();
        let read: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_str(&fs::read_to_string(file.path()).unwrap()).unwrap();
        assert_eq!(read.len(), 3);
        for row in &read {
            for field in ["source", "measure", "containers", "p50_us", "p99_us", "max_us"] {
                assert!(row.contains_key(field), "{field} in {row:?}");
            }
        }
        assert_eq!((&read[1]["mean_us"], &read[1]["p99_us"]), (&0.25.into(), &serde_json::Value::Null));
    }
}
