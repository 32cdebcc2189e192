//! Stopping an instance: event, preStop hook, stop signal, and what shortens the wait (kubelet-semantics 13).

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::pod::{KillStage, Killing, Life, Pod, PodStop};
use crate::decide::actions::KillReason;
use crate::decide::grace::{self, GraceSources};
use crate::decide::messages;
use crate::model::event::Reason;
use crate::model::id::ContainerIx;
use crate::model::limits::GRACE_MIN_S;
use crate::model::runtime::RuntimeCmd;

impl Pod {
    /// Begins to stop a running container: the event comes first, then the hook, then the signal.
    /// `waited` is deducted from the grace period (the sidecars of a pod that stops).
    pub(super) fn begin_kill(
        &mut self,
        ix: ContainerIx,
        reason: KillReason,
        message: String,
        waited: Duration,
        context: &mut Context,
    ) {
        if !self.containers[ix.at()].can_be_killed() {
            return;
        }
        let pod = Arc::clone(&self.spec);
        let deletion_s = self.deletion.map(|deletion| deletion.grace_s);
        let grace_s = grace::deduct_s(GraceSources::of(&pod, ix, deletion_s).select(reason), waited);
        context.event(&pod, ix, Reason::Killing, message);
        // A hook that still runs after the start has nothing to wait for any more; the process is shown.
        if let Life::PostStart { pid, at, .. } = self.containers[ix.at()].life {
            self.run(ix, pid, at);
        }
        let since = context.now.mono;
        let hook = pod.containers[ix.at()].pre_stop.as_ref();
        match hook.zip(grace::hook_budget(grace_s)) {
            Some((hook, budget)) => {
                let until = self.begin_pre_stop(ix, hook, budget, context);
                self.containers[ix.at()].life =
                    Life::Killing(Killing { grace_s, since, stage: KillStage::PreStop { until } });
                context.wake_at(until, pod.uid);
            }
            None => {
                let stage = KillStage::PreStop { until: since };
                self.containers[ix.at()].life = Life::Killing(Killing { grace_s, since, stage });
                self.send_stop(ix, context);
            }
        }
    }

    /// The hook is over, done or abandoned: the stop signal goes out with what is left of the grace period.
    pub(super) fn send_stop(&mut self, ix: ContainerIx, context: &mut Context) {
        let now = context.now.mono;
        let Life::Killing(killing) = &mut self.containers[ix.at()].life else { return };
        let left_s = grace::stop_timeout_s(killing.grace_s, now.since(killing.since));
        let grace = Duration::from_secs(u64::from(left_s));
        killing.stage = KillStage::Stopping { until: now.after(grace) };
        if let Some(instance) = self.current_instance(ix) {
            context.runtime(RuntimeCmd::Stop { instance, grace });
        }
    }

    /// Stops every container in waves: the regular ones at once, then the sidecars one by one from the last
    /// (kubelet-semantics 13, step 5). Called again until all are over.
    pub(super) fn advance_stop(&mut self, stop: PodStop, context: &mut Context) {
        let now = context.now.mono;
        let waited = now.since(stop.since);
        let deletion_s = self.deletion.map(|deletion| deletion.grace_s);
        for wave in grace::stop_waves(&self.spec) {
            for ix in &wave {
                let message = messages::stopping(&self.spec.containers[ix.at()].name);
                self.begin_kill(*ix, KillReason::Other, message, waited, context);
            }
            let over =
                |ix: &ContainerIx| matches!(self.containers[ix.at()].life, Life::Idle | Life::Ended { .. });
            if wave.iter().all(over) {
                continue;
            }
            // A container that cannot be killed holds the sidecars up for one grace period, not for ever.
            let longest_s = wave
                .iter()
                .map(|ix| GraceSources::of(&self.spec, *ix, deletion_s).select(KillReason::Other))
                .max();
            let until =
                stop.since.after(Duration::from_secs(u64::from(longest_s.unwrap_or(0).max(GRACE_MIN_S))));
            if now < until {
                context.wake_at(until, self.spec.uid);
                return;
            }
        }
    }

    /// A delete with this grace period: stops under way end no later than it allows.
    pub(super) fn shorten_kills(&mut self, grace_s: u32, context: &mut Context) {
        let now = context.now.mono;
        let until = now.after(Duration::from_secs(u64::from(grace_s.max(GRACE_MIN_S))));
        for at in 0..self.containers.len() {
            let ix = ContainerIx(u16::try_from(at).unwrap_or(u16::MAX));
            let Life::Killing(killing) = &mut self.containers[at].life else { continue };
            match killing.stage {
                KillStage::Stopping { until: before } if until < before => {
                    killing.stage = KillStage::Stopping { until };
                    if let Some(instance) = self.current_instance(ix) {
                        context.runtime(RuntimeCmd::Stop { instance, grace: until.since(now) });
                    }
                }
                KillStage::PreStop { until: before } if until < killing.end() => {
                    let hook_until = before.min(now.after(Duration::from_secs(u64::from(grace_s))));
                    let stage = KillStage::PreStop { until: hook_until };
                    *killing = Killing { grace_s, since: now, stage };
                    context.wake_at(hook_until, self.spec.uid);
                }
                KillStage::Stopping { .. } | KillStage::PreStop { .. } => {}
            }
        }
    }
}
