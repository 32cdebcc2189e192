//! The engine's border: what it was told last about each probe, and that it says nothing about anything older.

use std::collections::HashMap;
use std::time::Duration;

use probe_core::model::id::ProbeKey;
use probe_core::model::limits::{UNWATCHED_MIN, UNWATCHED_PARTS};
use probe_core::model::probe::{Outcome, ProbeCmd, ProbeEvent, Verdict};
use probe_core::model::time::Mono;

use super::observer::broken;

#[derive(Default)]
pub struct EngineWatch {
    probes: HashMap<ProbeKey, Told>,
    /// As it was before each command of this turn: what comes of completions, and of the
    /// commands before the one that changes it, is of that time.
    before: HashMap<ProbeKey, Vec<Told>>,
    /// When the shard had something to do and did not run, from and to, in order.
    absences: Vec<(Mono, Mono)>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Told {
    generation: u32,
    is_held: bool,
    /// An exec run was asked for and has not ended.
    in_exec: bool,
    timeout: Duration,
}

impl Told {
    fn allows(self, generation: u32) -> bool {
        !self.is_held && self.generation == generation
    }
}

impl EngineWatch {
    /// A turn at `now`, though there was something to do at `due_at`.
    pub fn begin_turn(&mut self, due_at: Mono, now: Mono) {
        self.before.clear();
        if now.since(due_at) >= UNWATCHED_MIN {
            self.absences.push((due_at, now));
        }
    }

    pub fn input(&mut self, cmd: &ProbeCmd) {
        self.remember(cmd);
        match cmd {
            ProbeCmd::Arm(arm) => {
                let told =
                    Told { generation: arm.generation, is_held: false, in_exec: false, timeout: arm.timeout };
                self.probes.insert(arm.probe, told);
            }
            ProbeCmd::Hold { probe, generation } => {
                if let Some(told) = self.probes.get_mut(probe).filter(|it| it.generation == *generation) {
                    told.is_held = true;
                }
            }
            ProbeCmd::Drop { probe } => {
                self.probes.remove(probe);
            }
            ProbeCmd::ExecDone { probe, generation, .. } => {
                if let Some(told) = self.probes.get_mut(probe).filter(|it| it.generation == *generation) {
                    told.in_exec = false;
                }
            }
            ProbeCmd::Trigger { .. }
            | ProbeCmd::Once { .. }
            | ProbeCmd::CutOnce { .. }
            | ProbeCmd::CallDone { .. }
            | ProbeCmd::Resolving { .. }
            | ProbeCmd::Resolved { .. } => {}
        }
    }

    pub fn output(&mut self, now: Mono, event: &ProbeEvent) {
        match event {
            ProbeEvent::Outcome(outcome) => {
                self.check(outcome.probe, outcome.generation);
                if outcome.result.verdict == Verdict::Inconclusive {
                    self.check_excuse(now, outcome);
                }
            }
            ProbeEvent::ExecDue { probe, generation, .. } => {
                self.check(*probe, *generation);
                if let Some(told) = self.probes.get_mut(probe).filter(|it| it.generation == *generation)
                    && std::mem::replace(&mut told.in_exec, true)
                {
                    broken("one exec run at a time", format_args!("{probe:?} is due again"));
                }
            }
            ProbeEvent::OnceDone { .. } => {}
            ProbeEvent::CallDue { call, .. } | ProbeEvent::CallCut { call } => {
                broken("no call without a gRPC probe", format_args!("{call:?}"));
            }
            ProbeEvent::Resolve { host, .. } => {
                broken("no name is looked up that no manifest names", host);
            }
        }
    }

    /// Only a shard that was not there for a part of the run may say that it cannot judge.
    fn check_excuse(&self, now: Mono, outcome: &Outcome) {
        let told =
            self.before.get(&outcome.probe).into_iter().flatten().chain(self.probes.get(&outcome.probe));
        let Some(told) = told.copied().find(|told| told.generation == outcome.generation) else { return };
        let due = outcome.result.phases.due;
        let absent: Duration =
            self.absences.iter().map(|(from, to)| to.min(&now).since(*from.max(&due))).sum();
        if absent * UNWATCHED_PARTS < told.timeout {
            broken(
                "no inconclusive run of a shard that was there",
                format_args!("{outcome:?}, which the shard missed for {absent:?}"),
            );
        }
    }

    fn remember(&mut self, cmd: &ProbeCmd) {
        let key = match cmd {
            ProbeCmd::Arm(arm) => arm.probe,
            ProbeCmd::Hold { probe, .. } | ProbeCmd::Drop { probe } => *probe,
            ProbeCmd::Trigger { .. }
            | ProbeCmd::ExecDone { .. }
            | ProbeCmd::CallDone { .. }
            | ProbeCmd::Once { .. }
            | ProbeCmd::CutOnce { .. }
            | ProbeCmd::Resolving { .. }
            | ProbeCmd::Resolved { .. } => return,
        };
        self.before.entry(key).or_default().extend(self.probes.get(&key).copied());
    }

    fn check(&self, probe: ProbeKey, generation: u32) {
        let told = self.probes.get(&probe).copied();
        let before = self.before.get(&probe).into_iter().flatten();
        if before.copied().any(|told| told.allows(generation)) {
            return;
        }
        if !told.is_some_and(|told| told.allows(generation)) {
            broken(
                "no outcome of a held, dropped or older probe",
                format_args!("{probe:?} {generation}, told {told:?}"),
            );
        }
    }
}
