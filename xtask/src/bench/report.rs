//! Figures with their bounds: a table for people, JSON rows for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// What a figure must be.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Bound {
    /// Only told.
    None,
    Exactly(f64),
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

#[derive(Debug, Serialize)]
struct Row {
    benchmark: &'static str,
    figure: &'static str,
    value: f64,
    unit: &'static str,
    bound: String,
    met: bool,
}

pub struct Report {
    benchmark: &'static str,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(benchmark: &'static str) -> Report {
        Report { benchmark, rows: Vec::new() }
    }

    pub fn add(&mut self, figure: &'static str, value: f64, unit: &'static str, bound: Bound) {
        let (text, met) = match bound {
            Bound::None => (String::new(), true),
            Bound::Exactly(wanted) => (format!("= {wanted}"), (value - wanted).abs() < f64::EPSILON),
            Bound::AtLeast(least) => (format!(">= {least}"), value >= least),
            Bound::AtMost(most) => (format!("<= {most}"), value <= most),
            Bound::Below(limit) => (format!("< {limit}"), value < limit),
        };
        self.rows.push(Row { benchmark: self.benchmark, figure, value, unit, bound: text, met });
    }

    /// Prints the table, writes one JSON object a line to `json`, and fails when a bound is missed.
    pub fn finish(&self, json: Option<&Path>) -> Result<()> {
        print!("{}", self.table());
        if let Some(path) = json {
            let mut text = String::new();
            for row in &self.rows {
                writeln!(text, "{}", serde_json::to_string(row)?)?;
            }
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let missed: Vec<&str> = self.rows.iter().filter(|row| !row.met).map(|row| row.figure).collect();
        if !missed.is_empty() {
            bail!("bench {}: missed: {}", self.benchmark, missed.join(", "));
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut text = format!("{:<28} {:>14} {:<8} {:<10} \n", "FIGURE", "VALUE", "UNIT", "BOUND");
        for row in &self.rows {
            let verdict = match (row.bound.is_empty(), row.met) {
                (true, _) => "",
                (false, true) => "met",
                (false, false) => "MISSED",
            };
            let value = (row.value * 10_000.0).round() / 10_000.0;
            text.push_str(&format!(
                "{:<28} {value:>14} {:<8} {:<10} {verdict}\n",
                row.figure, row.unit, row.bound
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_or_missed() {
        let check = |value, bound, met| {
            let mut report = Report::new("test");
            report.add("figure", value, "unit", bound);
            assert_eq!(report.rows[0].met, met, "{value} {bound:?}");
            assert_eq!(report.finish(None).is_ok(), met);
        };
        check(5.0, Bound::None, true);
        check(0.0, Bound::Exactly(0.0), true);
        check(1.0, Bound::Exactly(0.0), false);
        check(0.999, Bound::AtLeast(0.999), true);
        check(0.998, Bound::AtLeast(0.999), false);
        check(1.0, Bound::AtMost(1.0), true);
        check(1.1, Bound::AtMost(1.0), false);
        check(f64::NAN, Bound::AtMost(1.0), false);
        check(0.2, Bound::Below(0.2), false);
        check(0.19, Bound::Below(0.2), true);
    }
}
