//! The engine's border: what it was told last about each probe, and that it says nothing about anything older.

use std::collections::HashMap;

use probe_core::model::id::ProbeKey;
use probe_core::model::probe::{ProbeCmd, ProbeEvent};

use super::observer::broken;

#[derive(Default)]
pub struct EngineWatch {
    probes: HashMap<ProbeKey, Told>,
    /// As it was before each command of this turn: what comes of completions, and of the
    /// commands before the one that changes it, is of that time.
    before: HashMap<ProbeKey, Vec<Told>>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Told {
    generation: u32,
    is_held: bool,
    /// An exec run was asked for and has not ended.
    in_exec: bool,
}

impl Told {
    fn allows(self, generation: u32) -> bool {
        !self.is_held && self.generation == generation
    }
}

impl EngineWatch {
    pub fn begin_turn(&mut self) {
        self.before.clear();
    }

    pub fn input(&mut self, cmd: &ProbeCmd) {
        self.remember(cmd);
        match cmd {
            ProbeCmd::Arm(arm) => {
                let told = Told { generation: arm.generation, is_held: false, in_exec: false };
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
            ProbeCmd::ExecDone { probe, generation } => {
                if let Some(told) = self.probes.get_mut(probe).filter(|it| it.generation == *generation) {
                    told.in_exec = false;
                }
            }
            ProbeCmd::Trigger { .. } | ProbeCmd::Once { .. } | ProbeCmd::Resolved { .. } => {}
        }
    }

    pub fn output(&mut self, event: &ProbeEvent) {
        match event {
            ProbeEvent::Outcome(outcome) => self.check(outcome.probe, outcome.generation),
            ProbeEvent::ExecDue { probe, generation, .. } => {
                self.check(*probe, *generation);
                if let Some(told) = self.probes.get_mut(probe).filter(|it| it.generation == *generation)
                    && std::mem::replace(&mut told.in_exec, true)
                {
                    broken("one exec run at a time", format_args!("{probe:?} is due again"));
                }
            }
            ProbeEvent::OnceDone { .. } => {}
            ProbeEvent::Resolve { host, .. } => {
                broken("no name is looked up that no manifest names", host);
            }
        }
    }

    fn remember(&mut self, cmd: &ProbeCmd) {
        let key = match cmd {
            ProbeCmd::Arm(arm) => arm.probe,
            ProbeCmd::Hold { probe, .. } | ProbeCmd::Drop { probe } => *probe,
            ProbeCmd::Trigger { .. }
            | ProbeCmd::ExecDone { .. }
            | ProbeCmd::Once { .. }
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
