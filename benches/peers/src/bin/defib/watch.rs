//! What is read off defib on the way: failures from its events, response times from outcomes of watched targets.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use peers::{Control, EventLine, Load, Report, Response, Tally};
use probe_core::model::event::{PodEvent, Reason};
use probe_core::model::probe::{Arm, Outcome, Verdict};
use probe_core::model::time::{Now, Wall};

use super::pods;

/// In the text of an event about a scripted failure: the status, or a port where nobody listens.
const SCRIPTED: [&str; 2] = ["statuscode: 503", "connection refused"];

/// Shared by the threads of the node; touched only for failures and watched targets.
pub struct Watch {
    pub load: Load,
    /// Whether each event is printed.
    prints: bool,
    started: Now,
    control: OnceLock<Control>,
    tally: Mutex<Tally>,
}

impl Watch {
    pub fn new(load: Load, prints: bool, started: Now) -> anyhow::Result<Watch> {
        let tally = Mutex::new(Tally::new()?);
        Ok(Watch { load, prints, started, control: OnceLock::new(), tally })
    }

    /// Counts from this run's begin of the measured window on.
    pub fn follow(&self, control: &Control) {
        // Called once, by the node's owner.
        let _ = self.control.set(control.clone());
    }

    pub fn report(&self) -> Report {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).report()
    }

    /// Has every outcome of a watched target reported, and gives a period of less than a second its length,
    /// which manifests round up.
    pub fn adjust(&self, arm: &mut Arm) {
        if self.load.is_watched(pods::target_of(arm.instance)) {
            arm.report_successes = u32::MAX;
        }
        arm.period = self.load.period();
        arm.timeout = self.load.timeout();
    }

    pub fn event(&self, event: &PodEvent) {
        // Every start is one; what a restart was for is told by the events before it.
        if matches!(event.reason, Reason::Created | Reason::Started) {
            return;
        }
        let target =
            event.container.as_ref().and_then(|(_, name)| pods::target_of_names(&event.pod_name, name));
        if self.prints {
            EventLine::print(event, target);
        }
        if !self.is_measuring() {
            return;
        }
        let is_scripted = SCRIPTED.iter().any(|part| event.message.contains(part));
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match target.filter(|_| event.reason == Reason::Unhealthy) {
            Some(target) if is_scripted => tally.failed_by_script(target),
            Some(target) => tally.failed_itself(target, || event.message.to_string()),
            None => tally.failed(|| format!("{}: {}", event.pod_name, event.message)),
        }
    }

    /// Something that a healthy load never asks for.
    pub fn unexpected(&self, what: &str) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).failed(|| what.to_owned());
    }

    pub fn outcome(&self, outcome: &Outcome) {
        let target = pods::target_of(outcome.instance);
        let Some(submitted) = outcome.result.phases.submitted else { return };
        if outcome.result.verdict != Verdict::Success || !self.load.is_watched(target) || !self.is_measuring()
        {
            return;
        }
        let phases = &outcome.result.phases;
        let began = later(self.started.wall, submitted.since(self.started.mono));
        let response = Response {
            target,
            began_ns: began.as_ns(),
            took_ns: ns(phases.done.since(submitted)),
            late_ns: ns(submitted.since(phases.due)),
        };
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).responded(response);
    }

    fn is_measuring(&self) -> bool {
        self.control.get().is_some_and(Control::is_measuring)
    }
}

fn later(from: Wall, by: Duration) -> Wall {
    Wall::from_ns(from.as_ns().saturating_add_unsigned(ns(by)))
}

fn ns(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
