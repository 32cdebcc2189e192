//! What a contestant tells of its run.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use probe_core::model::event::PodEvent;
use serde::{Deserialize, Serialize};

/// Response times reported at most: 100 a second for the longest run there is.
pub const RESPONSES_MAX: usize = 100_000;
const LATENESS_MAX_US: u64 = 60_000_000;
const LATENESS_DIGITS: u8 = 2;

/// The response time of one probe of a watched target.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Response {
    pub target: u32,
    /// When the connection was begun, on CLOCK_REALTIME.
    pub began_ns: i64,
    pub took_ns: u64,
    /// From due to begun.
    pub late_ns: u64,
}

/// From due to begun, of all probes of the measured window.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Percentiles {
        let at = |share| histogram.value_at_quantile(share);
        Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// One event of a pod, as one line of JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventLine {
    /// On CLOCK_MONOTONIC, as the prober itself read it.
    pub at_ns: u64,
    /// None where it is about no container of a target.
    pub target: Option<u32>,
    pub reason: String,
    pub message: String,
}

impl EventLine {
    pub fn print(event: &PodEvent, target: Option<u32>) {
        let line = EventLine {
            at_ns: event.at.mono.as_ns(),
            target,
            reason: event.reason.as_str().to_owned(),
            message: event.message.to_string(),
        };
        // Numbers and texts always become JSON; whoever has closed our output is told nothing any more.
        if let Ok(text) = serde_json::to_string(&line) {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }
}

/// Printed as one line of JSON. All of it since the begin of the measured window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Failures that look like scripted ones, by target: status 503, or a refused connection.
    pub scripted: Vec<(u32, u64)>,
    /// All others. No target of a benchmark of peers fails that way.
    pub other_failures: u64,
    /// Those of them that name their target, by target. Empty where the contestant does not tell.
    pub failed: Vec<(u32, u64)>,
    /// One of them, for people.
    pub example: Option<String>,
    pub inconclusive: u64,
    /// None where the contestant has no schedule of its own to be late against.
    pub lateness_us: Option<Percentiles>,
    pub responses: Vec<Response>,
    /// Memory that exists because of the probes alone; None: take all of the process.
    pub state_bytes: Option<u64>,
}

impl Report {
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self) -> Result<()> {
        let line = serde_json::to_string(self).context("the report")?;
        let mut out = std::io::stdout();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
    }
}

/// Counts while it runs; what contestants without counters of their own use.
#[derive(Debug)]
pub struct Tally {
    scripted: BTreeMap<u32, u64>,
    other_failures: u64,
    failed: BTreeMap<u32, u64>,
    example: Option<String>,
    lateness_us: Histogram<u64>,
    responses: Vec<Response>,
}

impl Tally {
    /// # Errors
    /// Never: the bounds of the histogram are constants that it takes.
    pub fn new() -> Result<Tally> {
        let lateness_us =
            Histogram::new_with_max(LATENESS_MAX_US, LATENESS_DIGITS).context("the histogram")?;
        Ok(Tally {
            scripted: BTreeMap::new(),
            other_failures: 0,
            failed: BTreeMap::new(),
            example: None,
            lateness_us,
            responses: Vec::new(),
        })
    }

    pub fn late(&mut self, by: Duration) {
        self.lateness_us.saturating_record(u64::try_from(by.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn failed_by_script(&mut self, target: u32) {
        *self.scripted.entry(target).or_default() += 1;
    }

    pub fn failed(&mut self, why: impl FnOnce() -> String) {
        self.other_failures += 1;
        self.example.get_or_insert_with(why);
    }

    /// As [`Tally::failed`], of a target that is known.
    pub fn failed_itself(&mut self, target: u32, why: impl FnOnce() -> String) {
        *self.failed.entry(target).or_default() += 1;
        self.failed(|| format!("target {target}: {}", why()));
    }

    pub fn responded(&mut self, response: Response) {
        if self.responses.len() < RESPONSES_MAX {
            self.responses.push(response);
        }
    }

    pub fn report(&mut self) -> Report {
        Report {
            scripted: std::mem::take(&mut self.scripted).into_iter().collect(),
            other_failures: self.other_failures,
            failed: std::mem::take(&mut self.failed).into_iter().collect(),
            example: self.example.take(),
            inconclusive: 0,
            lateness_us: (!self.lateness_us.is_empty()).then(|| Percentiles::from(&self.lateness_us)),
            responses: std::mem::take(&mut self.responses),
            state_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_becomes_a_report() {
        let mut tally = Tally::new().unwrap();
        for ms in [1, 2, 3] {
            tally.late(Duration::from_millis(ms));
        }
        tally.failed_by_script(50);
        tally.failed_by_script(50);
        tally.failed(|| "first".to_owned());
        tally.failed_itself(7, || "second".to_owned());
        tally.responded(Response { target: 20, began_ns: 7, took_ns: 9, late_ns: 3 });
        let report = tally.report();
        assert_eq!(report.scripted, [(50, 2)]);
        assert_eq!((report.other_failures, report.example.as_deref()), (2, Some("first")));
        assert_eq!(report.failed, [(7, 1)]);
        let lateness = report.lateness_us.unwrap();
        assert!((2_000..2_032).contains(&lateness.p50), "{lateness:?}");
        assert_eq!(
            serde_json::to_string(&report.responses).unwrap(),
            r#"[{"target":20,"began_ns":7,"took_ns":9,"late_ns":3}]"#
        );
    }

    #[test]
    fn a_tally_without_runs_has_no_lateness() {
        assert_eq!(Tally::new().unwrap().report().lateness_us, None);
    }
}
