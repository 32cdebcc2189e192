//! What came of the runs of one engine, kept where it came.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use probe_core::model::limits::{BENCH_FAILURE_TEXTS_MAX, BENCH_LATENCY_MAX};
use probe_core::model::probe::{RunResult, Verdict};
use probe_core::model::time::Mono;

/// Digits of a value that are kept: it is off by a thousandth at most.
const DIGITS: u8 = 3;
/// Under this text are counted those that have no place of their own.
const OTHER_TEXTS: &str = "(other texts)";

/// Everything that is counted. Several can be added up.
#[derive(Clone, Debug)]
pub struct Collected {
    /// Nanoseconds from submitted to done, of the runs that succeeded.
    pub response_ns: Histogram<u64>,
    /// Nanoseconds from due to submitted, of all runs that were submitted.
    pub lateness_ns: Histogram<u64>,
    /// Runs by verdict.
    pub verdicts: Vec<(Verdict, u64)>,
    /// When the last run was submitted.
    pub last_submitted: Mono,
    /// Runs that failed, by text.
    pub failures: BTreeMap<String, u64>,
}

/// What a run came to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Succeeded,
    Failed,
    /// The prober itself was not there: this says nothing of the target.
    Inconclusive,
}

impl Kind {
    /// A warning counts as success (kubelet-semantics 8).
    fn of(verdict: Verdict) -> Kind {
        match verdict {
            Verdict::Success | Verdict::Warning => Kind::Succeeded,
            Verdict::Failure | Verdict::Errored => Kind::Failed,
            Verdict::Inconclusive => Kind::Inconclusive,
        }
    }
}

impl Collected {
    pub fn new() -> Collected {
        let histogram = || {
            let max_ns = nanos(BENCH_LATENCY_MAX);
            Histogram::new_with_max(max_ns, DIGITS).expect("the bounds are constants that it accepts")
        };
        Collected {
            response_ns: histogram(),
            lateness_ns: histogram(),
            verdicts: Vec::new(),
            last_submitted: Mono::ZERO,
            failures: BTreeMap::new(),
        }
    }

    /// Counts one run, if it was due before `end`. True when it was.
    pub fn note(&mut self, result: &RunResult, end: Mono) -> bool {
        let phases = &result.phases;
        if phases.due >= end {
            return false;
        }
        let kind = Kind::of(result.verdict);
        if let Some(submitted) = phases.submitted {
            // An errored run had three attempts, of which this is the last.
            if result.verdict != Verdict::Errored {
                self.last_submitted = self.last_submitted.max(submitted);
            }
            self.lateness_ns.saturating_record(nanos(submitted.since(phases.due)));
            if kind == Kind::Succeeded {
                self.response_ns.saturating_record(nanos(phases.done.since(submitted)));
            }
        }
        self.count(result.verdict, 1);
        if kind == Kind::Failed {
            let text = result.detail.as_deref().unwrap_or("no text");
            self.count_failure(without_local_port(text), 1);
        }
        true
    }

    /// Adds what another engine has collected.
    pub fn add(&mut self, other: &Collected) {
        // All have the same bounds, so that nothing is refused.
        let _ = self.response_ns.add(&other.response_ns);
        let _ = self.lateness_ns.add(&other.lateness_ns);
        self.last_submitted = self.last_submitted.max(other.last_submitted);
        for (verdict, count) in &other.verdicts {
            self.count(*verdict, *count);
        }
        for (text, count) in &other.failures {
            self.count_failure(text.clone(), *count);
        }
    }

    /// Runs that have ended.
    pub fn done(&self) -> u64 {
        self.verdicts.iter().map(|(_, count)| count).sum()
    }

    /// Of these, how many came to this.
    pub fn of_kind(&self, kind: Kind) -> u64 {
        self.verdicts.iter().filter(|(verdict, _)| Kind::of(*verdict) == kind).map(|(_, count)| count).sum()
    }

    fn count(&mut self, verdict: Verdict, by: u64) {
        match self.verdicts.iter_mut().find(|(known, _)| *known == verdict) {
            Some((_, count)) => *count += by,
            None => self.verdicts.push((verdict, by)),
        }
    }

    fn count_failure(&mut self, text: String, by: u64) {
        let has_place = self.failures.len() < BENCH_FAILURE_TEXTS_MAX || self.failures.contains_key(&text);
        let text = if has_place { text } else { OTHER_TEXTS.to_owned() };
        *self.failures.entry(text).or_default() += by;
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `read tcp 127.0.0.1:41000->127.0.0.1:80: …` without the number that is another in each run.
fn without_local_port(text: &str) -> String {
    let Some((local, rest)) = text.split_once("->") else { return text.to_owned() };
    match local.trim_end_matches(|c: char| c.is_ascii_digit()) {
        host if host.len() < local.len() && host.ends_with(':') => format!("{host}*->{rest}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use probe_core::model::probe::Phases;

    use super::*;

    fn run(verdict: Verdict, detail: Option<&str>, [due_ns, submitted_ns, done_ns]: [u64; 3]) -> RunResult {
        let phases = Phases {
            due: Mono::from_ns(due_ns),
            submitted: Some(Mono::from_ns(submitted_ns)),
            done: Mono::from_ns(done_ns),
            ..Phases::default()
        };
        RunResult { verdict, detail: detail.map(Box::from), phases }
    }

    #[test]
    fn runs_are_counted_by_when_they_were_due() {
        let end = Mono::from_ns(1_000);
        let (mut first, mut second) = (Collected::new(), Collected::new());
        assert!(first.note(&run(Verdict::Success, None, [999, 1_009, 1_309]), end));
        assert!(!first.note(&run(Verdict::Success, None, [1_000, 1_000, 1_001]), end));
        assert!(second.note(&run(Verdict::Failure, Some("x"), [5, 25, 5_000]), end));
        let unsubmitted = Phases { due: Mono::ZERO, done: Mono::ZERO, ..Phases::default() };
        let broken = RunResult { verdict: Verdict::Errored, detail: None, phases: unsubmitted };
        assert!(second.note(&broken, end));
        assert!(second.note(&run(Verdict::Inconclusive, Some("y"), [5, 25, 9_000]), end));
        first.add(&second);
        let counts = [Kind::Succeeded, Kind::Failed, Kind::Inconclusive].map(|kind| first.of_kind(kind));
        assert_eq!((first.done(), counts), (4, [1, 2, 1]));
        assert_eq!((first.response_ns.len(), first.response_ns.max()), (1, 300));
        assert_eq!((first.lateness_ns.len(), first.lateness_ns.max()), (3, 20));
        assert_eq!(first.last_submitted, Mono::from_ns(1_009));
        let failures: Vec<(&str, u64)> = first.failures.iter().map(|(text, n)| (text.as_str(), *n)).collect();
        assert_eq!(failures, [("no text", 1), ("x", 1)]);
    }

    #[test]
    fn texts_have_a_bound() {
        let mut collected = Collected::new();
        for n in 0..3 * BENCH_FAILURE_TEXTS_MAX {
            collected.note(&run(Verdict::Failure, Some(&format!("text {n}")), [0, 0, 0]), Mono::MAX);
        }
        assert_eq!(collected.failures.len(), BENCH_FAILURE_TEXTS_MAX + 1);
        assert_eq!(collected.failures[OTHER_TEXTS], 2 * BENCH_FAILURE_TEXTS_MAX as u64);
    }

    #[test]
    fn the_local_port_is_left_out() {
        for (text, expected) in [
            ("read tcp 127.0.0.1:41000->127.0.0.1:80: reset", "read tcp 127.0.0.1:*->127.0.0.1:80: reset"),
            ("read tcp [::1]:9->[::1]:80: reset", "read tcp [::1]:*->[::1]:80: reset"),
            ("a->b", "a->b"),
            ("statuscode: 503", "statuscode: 503"),
        ] {
            assert_eq!(without_local_port(text), expected);
        }
    }
}
