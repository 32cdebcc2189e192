//! One sync of one pod: actions, kills, starts, gates, status. It may be called at any time and changes
//! nothing when nothing has changed.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::msg::Output;
use super::pod::{Container, Life, Pod, PodStop, Restart};
use crate::decide::actions::{self, PodActions, Steps};
use crate::decide::status::{self, StatusContext};
use crate::model::pod::Role;
use crate::model::runtime::RuntimeCmd;
use crate::model::status::{Phase, PodSnapshot, PodStatus};

/// Rounds of one sync: a round can only change what the gates see, and they settle at once.
const ROUNDS_MAX: usize = 4;

/// Whether the pod still exists after a sync.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Synced {
    Stays,
    Gone,
}

impl Pod {
    /// Brings the pod one step further.
    pub(super) fn sync(&mut self, context: &mut Context) -> Synced {
        self.advance_hooks(context);
        for _ in 0..ROUNDS_MAX {
            self.act(context);
            let phase = self.next_status(context).phase;
            if !self.gate_probes(Some(phase), context) {
                break;
            }
        }
        self.poke_readiness(context);
        self.publish(context);
        if self.deletion.is_some() && self.is_over() { self.forget(context) } else { Synced::Stays }
    }

    fn act(&mut self, context: &mut Context) {
        if self.rejected.is_some() {
            return;
        }
        if self.stop.is_some() && self.is_over() {
            self.stop = None;
        }
        if let Some(stop) = self.stop {
            self.advance_stop(stop, context);
            return;
        }
        // A finished pod is over for good: kubelet only stops what is left of it, sidecars for instance.
        let actions =
            if self.is_finished() { PodActions::KillPod } else { self.with_view(actions::pod_actions) };
        match actions {
            // The only container may have ended with 0 on its way to a restart that was decided already.
            PodActions::KillPod if self.restarts() => {}
            PodActions::KillPod => {
                if self.containers.iter().any(Container::can_be_killed) {
                    let stop = PodStop { since: context.now.mono };
                    self.stop = Some(stop);
                    self.advance_stop(stop, context);
                }
            }
            PodActions::Steps(steps) => self.take_steps(steps, context),
        }
    }

    /// A regular container was killed in order to be started again, and there is no running record of the new
    /// instance yet: whatever the exit code of the old one says, the pod goes on (kubelet-semantics 12.1).
    fn restarts(&self) -> bool {
        let with_specs = self.containers.iter().zip(&self.spec.containers);
        with_specs.filter(|(_, spec)| spec.role == Role::Regular).any(|(container, _)| {
            matches!(
                (&container.life, container.restart),
                (Life::Starting { .. } | Life::PostStart { .. }, _) | (Life::Ended { .. }, Some(_))
            )
        })
    }

    fn take_steps(&mut self, steps: Steps, context: &mut Context) {
        for kill in steps.kill {
            let container = &mut self.containers[kill.container.at()];
            if !container.can_be_killed() {
                continue;
            }
            let starts_again =
                steps.start.contains(&kill.container) || steps.start_init.contains(&kill.container);
            container.restart = starts_again.then(|| Restart {
                // The instance before the one that is killed now, as it was listed in this round.
                prev_finished_at: container.previous.as_ref().and_then(|record| record.finished_at()),
            });
            self.begin_kill(kill.container, kill.reason, kill.message, Duration::ZERO, context);
        }
        for ix in steps.start_init {
            self.try_start(ix, context);
            // An ordinary init container keeps all later ones waiting.
            if self.spec.containers[ix.at()].role == Role::Init {
                break;
            }
        }
        for ix in steps.start {
            self.try_start(ix, context);
        }
    }

    fn next_status(&self, context: &Context) -> PodStatus {
        let about = StatusContext {
            previous: self.status.as_ref(),
            start_time: self.start_time,
            deletion: self.deletion,
            now: context.now.wall,
        };
        match &self.rejected {
            Some(rejected) => status::rejected(&self.spec, rejected.reason, &rejected.message, &about),
            None => {
                let mut next = self.with_view(|view| status::pod_status(view, &about));
                let is_finished = matches!(next.phase, Phase::Succeeded | Phase::Failed);
                if let Some(before) = self.status.as_ref().filter(|_| is_finished && self.restarts()) {
                    next.phase = before.phase;
                    next.conditions.clone_from(&before.conditions);
                }
                next
            }
        }
    }

    /// Shows the pod if anything visible has changed: its status, or only its manifest.
    pub(super) fn publish(&mut self, context: &mut Context) {
        let next = self.next_status(context);
        let is_new = std::mem::take(&mut self.has_new_manifest) || self.status.as_ref() != Some(&next);
        if !is_new {
            return;
        }
        self.status = Some(next.clone());
        let snapshot = PodSnapshot { spec: Arc::clone(&self.spec), status: next };
        context.out.push(Output::Status(Box::new(snapshot)));
    }

    fn forget(&mut self, context: &mut Context) -> Synced {
        for container in &mut self.containers {
            for slot in &mut container.probes {
                slot.remove(context);
            }
        }
        context.runtime(RuntimeCmd::ForgetPod { pod: self.spec.uid });
        context.out.push(Output::PodGone(self.spec.uid));
        Synced::Gone
    }

    /// Succeeded or Failed.
    pub(super) fn is_finished(&self) -> bool {
        self.status.as_ref().is_some_and(|status| matches!(status.phase, Phase::Succeeded | Phase::Failed))
    }
}
