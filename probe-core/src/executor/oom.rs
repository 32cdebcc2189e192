//! A process of a living container was killed for memory: the event, and what the pod's annotation asks for.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::pod::{Life, Pod, Restart};
use crate::decide::actions::KillReason;
use crate::decide::messages;
use crate::model::event::Reason;
use crate::model::id::{ContainerIx, InstanceId};
use crate::model::pod::{ChildOomPolicy, RestartPolicy, Role};
use crate::model::runtime::OomFacts;
use crate::model::time::Now;

/// The process whose loss is answered.
struct Lost {
    by: ContainerIx,
    /// Of the event.
    message: Box<str>,
}

impl Pod {
    /// False for an instance that is not the current one, one whose main process has ended, and a report that
    /// came before: nothing changes.
    pub(super) fn on_child_oom(
        &mut self,
        instance: InstanceId,
        facts: &OomFacts,
        at: Now,
        context: &mut Context,
    ) -> bool {
        let ix = instance.container;
        let lives = self.containers.get(ix.at()).is_some_and(|container| {
            matches!(container.life, Life::PostStart { .. } | Life::Running | Life::Killing(_))
        });
        if !lives || self.current_instance(ix) != Some(instance) {
            return false;
        }
        // The reports of one instance come in order, so an older one is a copy.
        let last = &mut self.containers[ix.at()].last_child_oom;
        if last.is_some_and(|last| at.mono <= last) {
            return false;
        }
        *last = Some(at.mono);
        let pod = Arc::clone(&self.spec);
        let spec = &pod.containers[ix.at()];
        if spec.on_child_oom == ChildOomPolicy::Ignore {
            return true;
        }
        let message = messages::child_oom_killed(&spec.name, spec.memory_limit_bytes, facts);
        context.event(&pod, ix, Reason::ChildOomKilled, message.clone());
        // A probe that is killed has failed, and its thresholds say what follows.
        if facts.victim.as_ref().is_some_and(|victim| victim.is_exec) {
            return true;
        }
        let lost = Lost { by: ix, message: message.into() };
        match spec.on_child_oom {
            ChildOomPolicy::Ignore | ChildOomPolicy::Event => {}
            ChildOomPolicy::RestartContainer => self.kill_for_oom(ix, &lost, context),
            ChildOomPolicy::RestartPod => {
                for (other, _) in pod.indexed() {
                    self.kill_for_oom(other, &lost, context);
                }
            }
        }
        true
    }

    /// Stops one container; whether it starts again is its restart policy's word, as after a failed probe.
    fn kill_for_oom(&mut self, ix: ContainerIx, lost: &Lost, context: &mut Context) {
        // What is stopped already, with its pod or alone, needs nothing more.
        if !self.containers[ix.at()].can_be_killed() || self.deletion.is_some() || self.stop.is_some() {
            return;
        }
        let spec = &self.spec.containers[ix.at()];
        // An ordinary init container ends by itself, and its exit code says whether it did its work; one that
        // was stopped and exits with 0 would pass for done.
        if spec.role == Role::Init {
            return;
        }
        let restarts = spec.role == Role::Sidecar || self.spec.restart_policy != RestartPolicy::Never;
        let message = if ix == lost.by {
            messages::killed_for_child_oom(&spec.name, restarts)
        } else {
            messages::killed_with_pod(&spec.name, &self.spec.containers[lost.by.at()].name, restarts)
        };
        let container = &mut self.containers[ix.at()];
        container.why_killed = Some(lost.message.clone());
        container.restart = restarts.then(|| Restart {
            prev_finished_at: container.previous.as_ref().and_then(|record| record.finished_at()),
        });
        self.begin_kill(ix, KillReason::Other, message, Duration::ZERO, context);
    }
}
