//! What a benchmark has found: as text for people, as JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use probe_core::model::text::visible_line;
use serde_json::{Map, Value, json};

use super::collect::{Collected, Kind};
use super::plan::Plan;

/// The rows of the table.
const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
/// A prober that is later than this at the end could not keep up.
const BEHIND_TOLD: Duration = Duration::from_millis(100);
/// Said with every result, so that nobody takes the figures for something else.
const CORRECTED: &str = "nothing";
const NOTE: &str = "Response time counts from submission, of runs that succeeded; lateness from due to submission, of all.
Neither is corrected for anything: a run that waits for its predecessor or for the prober is late, one whose turn passed is skipped.";

/// A benchmark that has ended.
pub struct Report {
    /// Of an interrupted one, as long as it went.
    pub plan: Plan,
    /// Ctrl-C ended it.
    pub is_interrupted: bool,
    /// What carried the probes.
    pub engine: &'static str,
    pub collected: Collected,
    /// Until the last run was begun, the whole duration at least: a prober that cannot keep up goes on after it.
    pub took: Duration,
    /// CPU time of this process within the duration, the built-in server's apart.
    pub cpu: Duration,
    pub server_cpu: Option<Duration>,
    /// Runs that ended within the duration, for which that was spent.
    pub cpu_runs: u64,
}

impl Report {
    /// Runs that were due and never began; of an interrupted benchmark, those too that were in flight at its end: the run before was in flight all the time, or the prober did not run.
    fn skipped(&self) -> u64 {
        self.plan.load.due_runs().saturating_sub(self.collected.done())
    }

    fn achieved_per_s(&self) -> f64 {
        self.collected.done() as f64 / self.took.as_secs_f64()
    }

    /// Where the prober fell behind: by how much its last run began after the end.
    fn behind(&self) -> String {
        let by = self.took.saturating_sub(self.plan.load.duration);
        if by < BEHIND_TOLD {
            return String::new();
        }
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        format!("; it fell behind, and began the last one {} after the end", time(by_ns))
    }

    /// Whether anything succeeded.
    pub fn has_success(&self) -> bool {
        self.collected.of_kind(Kind::Succeeded) > 0
    }

    /// The table.
    pub fn table(&self) -> String {
        let (plan, load, collected) = (&self.plan, &self.plan.load, &self.collected);
        let built_in = if plan.is_built_in { " (built-in server)" } else { "" };
        let cores = self.cpu.as_secs_f64() / load.duration.as_secs_f64();
        let a_run = match self.cpu_runs {
            0 => String::new(),
            done => format!(", {:.1}µs a run", self.cpu.as_secs_f64() * 1e6 / done as f64),
        };
        let (early, skipped) = match self.is_interrupted {
            true => (" (interrupted)", "skipped or unfinished"),
            false => ("", "skipped"),
        };
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}{built_in}", plan.name);
        let _ = writeln!(
            out,
            "{} targets, each every {:?}, for {:?}{early}; timeout {:?}; {} engine thread{} on {}",
            load.targets,
            load.period,
            load.duration,
            plan.timeout,
            plan.shards,
            if plan.shards == 1 { "" } else { "s" },
            self.engine
        );
        let _ = writeln!(
            out,
            "\nRuns        {} of {} due ({} {skipped}), {} failed, {} inconclusive",
            collected.done(),
            load.due_runs(),
            self.skipped(),
            collected.of_kind(Kind::Failed),
            collected.of_kind(Kind::Inconclusive)
        );
        let _ = writeln!(
            out,
            "Rate        {:.1} runs/s of {:.1} asked for{}",
            self.achieved_per_s(),
            load.rate_per_s(),
            self.behind()
        );
        let _ = writeln!(out, "CPU         {:.1} % of a core{a_run}", 100.0 * cores);
        if let Some(server) = self.server_cpu {
            let share = 100.0 * server.as_secs_f64() / load.duration.as_secs_f64();
            let _ =
                writeln!(out, "            without the built-in server, which took {share:.1} % of a core");
        }
        let _ = writeln!(out, "\n{:<8} {:>12} {:>12}", "", "RESPONSE", "LATENESS");
        for (name, of) in figures() {
            let cell = |histogram: &Histogram<u64>| {
                if histogram.is_empty() { "-".to_owned() } else { time(of(histogram)) }
            };
            let (response, lateness) = (cell(&collected.response_ns), cell(&collected.lateness_ns));
            let _ = writeln!(out, "{name:<8} {response:>12} {lateness:>12}");
        }
        if !collected.failures.is_empty() {
            let _ = writeln!(out, "\nFAILED   TEXT");
            for (text, count) in &self.failures() {
                let _ = writeln!(out, "{count:<8} {}", visible_line(text));
            }
        }
        let _ = writeln!(out, "\n{NOTE}");
        out
    }

    /// The same for programs. Times are nanoseconds.
    pub fn json(&self) -> Value {
        let (plan, load, collected) = (&self.plan, &self.plan.load, &self.collected);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let times = |histogram: &Histogram<u64>| -> Value {
            let mut object = Map::new();
            object.insert("count".to_owned(), json!(histogram.len()));
            for (name, of) in figures() {
                let value = if histogram.is_empty() { Value::Null } else { json!(of(histogram)) };
                object.insert(name.to_owned(), value);
            }
            Value::Object(object)
        };
        let verdicts: Map<String, Value> = collected
            .verdicts
            .iter()
            .map(|(verdict, count)| (format!("{verdict:?}").to_lowercase(), json!(count)))
            .collect();
        let failures: Vec<Value> =
            self.failures().iter().map(|(text, count)| json!({"text": text, "count": count})).collect();
        json!({
            "target": plan.name,
            "builtIn": plan.is_built_in,
            "targets": load.targets,
            "periodNs": nanos(load.period),
            "durationNs": nanos(load.duration),
            "interrupted": self.is_interrupted,
            "timeoutNs": nanos(plan.timeout),
            "shards": plan.shards,
            "engine": self.engine,
            "runs": {
                "due": load.due_runs(),
                "done": collected.done(),
                "skipped": self.skipped(),
                "failed": collected.of_kind(Kind::Failed),
                "inconclusive": collected.of_kind(Kind::Inconclusive),
            },
            "verdicts": verdicts,
            "failures": failures,
            "ratePerS": {"asked": load.rate_per_s(), "achieved": self.achieved_per_s()},
            "tookNs": nanos(self.took),
            "cpuNs": nanos(self.cpu),
            "cpuRuns": self.cpu_runs,
            "serverCpuNs": self.server_cpu.map(nanos),
            "responseNs": times(&collected.response_ns),
            "latenessNs": times(&collected.lateness_ns),
            "correctedFor": CORRECTED,
        })
    }

    /// The most frequent first.
    fn failures(&self) -> Vec<(&str, u64)> {
        let mut failures: Vec<(&str, u64)> =
            self.collected.failures.iter().map(|(text, count)| (text.as_str(), *count)).collect();
        failures.sort_by(|(a_text, a), (b_text, b)| b.cmp(a).then(a_text.cmp(b_text)));
        failures
    }
}

/// A row: its name, and its value in a histogram that is not empty.
type Figure = (&'static str, Box<dyn Fn(&Histogram<u64>) -> u64>);

fn figures() -> Vec<Figure> {
    let mut rows: Vec<Figure> = vec![("min", Box::new(Histogram::min))];
    for (name, quantile) in QUANTILES {
        rows.push((name, Box::new(move |histogram| histogram.value_at_quantile(quantile))));
    }
    rows.push(("max", Box::new(Histogram::max)));
    rows.push(("mean", Box::new(|histogram| histogram.mean().round() as u64)));
    rows
}

/// Three digits and a unit: `742ns`, `15.2µs`, `1.07ms`, `2.31s`, `3600s`.
pub fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..999_500 => (ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    // A round value is shown as one.
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use probe_core::model::probe::{Phases, RunResult, Target, Verdict};
    use probe_core::model::time::Mono;

    use super::*;
    use crate::bench::plan::Load;
    use crate::cli::args::EngineKind;

    fn report() -> Report {
        let mut collected = Collected::new();
        for n in 1..=999 {
            let phases = Phases {
                due: Mono::from_ns(n),
                submitted: Some(Mono::from_ns(n + 2_000)),
                done: Mono::from_ns(n + 2_000 + n * 1_000),
                ..Phases::default()
            };
            let verdict = if n % 100 == 0 { Verdict::Failure } else { Verdict::Success };
            let detail =
                (verdict == Verdict::Failure).then(|| "HTTP probe failed with statuscode: 503".into());
            collected.note(&RunResult { verdict, detail, phases }, Mono::MAX);
        }
        let load = Load { targets: 50, period: Duration::from_millis(100), duration: Duration::from_secs(2) };
        let plan = Plan {
            name: "http://127.0.0.1:8080/".to_owned(),
            is_built_in: true,
            target: Arc::new(Target::Exec),
            load,
            engine: EngineKind::Uring,
            timeout: Duration::from_secs(1),
            shards: 1,
        };
        Report {
            plan,
            is_interrupted: false,
            engine: "io_uring",
            cpu_runs: collected.done(),
            collected,
            took: load.duration,
            cpu: Duration::from_millis(50),
            server_cpu: Some(Duration::from_millis(20)),
        }
    }

    #[test]
    fn the_table() {
        assert_eq!(report().table(), include_str!("golden/table.txt"));
    }

    #[test]
    fn the_json() {
        let json = report().json();
        assert_eq!(
            json["runs"],
            json!({"due": 1_000, "done": 999, "skipped": 1, "failed": 9, "inconclusive": 0})
        );
        assert_eq!(json["verdicts"], json!({"success": 990, "failure": 9}));
        assert_eq!(json["failures"][0]["count"], 9);
        assert_eq!(json["latenessNs"]["max"], 2_000);
        assert_eq!(json["responseNs"]["count"], 990);
        assert_eq!(json["correctedFor"], "nothing");
        assert_eq!(json["interrupted"], false);
        let mut empty = report();
        empty.collected = Collected::new();
        assert!(!empty.has_success());
        assert_eq!(empty.json()["responseNs"]["p99"], Value::Null);
        assert!(empty.table().contains("p99.9               -            -\n"), "{}", empty.table());
    }

    #[test]
    fn one_that_fell_behind_has_the_rate_that_it_had() {
        let mut behind = report();
        behind.took = Duration::from_secs(8);
        behind.cpu_runs = 250;
        let table = behind.table();
        let rate = "Rate        124.9 runs/s of 500.0 asked for; it fell behind, and began the last one 6s after the end";
        assert!(table.contains(rate), "{table}");
        assert!(table.contains("CPU         2.5 % of a core, 200.0µs a run"), "{table}");
        assert_eq!(behind.json()["ratePerS"]["achieved"], 124.875);
    }

    #[test]
    fn an_interrupted_one_says_so() {
        let mut cut = report();
        cut.is_interrupted = true;
        let table = cut.table();
        assert!(table.contains(", for 2s (interrupted); timeout 1s;"), "{table}");
        assert!(table.contains("Runs        999 of 1000 due (1 skipped or unfinished), 9 failed"), "{table}");
        assert_eq!(cut.json()["interrupted"], true);
    }

    #[test]
    fn times() {
        for (ns, expected) in [
            (0, "0ns"),
            (742, "742ns"),
            (1_000, "1µs"),
            (1_234, "1.23µs"),
            (15_249, "15.2µs"),
            (150_015, "150µs"),
            (999_499, "999µs"),
            (999_500, "1ms"),
            (1_070_000, "1.07ms"),
            (2_310_000_000, "2.31s"),
            (3_600_000_000_000, "3600s"),
        ] {
            assert_eq!(time(ns), expected, "{ns}");
        }
    }
}
