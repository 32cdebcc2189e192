//! Starting an instance: back-off, the start itself, and what the runtime says of it.

use std::sync::Arc;

use super::context::{Context, FAILED_SYNC_RETRY};
use super::pod::{Life, Pod, Restart};
use crate::decide::backoff::{Backoff, Start};
use crate::decide::view::{Record, RecordState, StartFailure};
use crate::decide::{messages, status};
use crate::model::event::Reason;
use crate::model::id::{ContainerId, ContainerIx, InstanceId};
use crate::model::runtime::{ExitStatus, RuntimeCmd, StartError, StartRequest};
use crate::model::time::{Mono, Now};

impl Pod {
    /// Starts the container if nothing of it is left and its back-off allows. Otherwise it says why, and the
    /// pod is synced again when it may.
    pub(super) fn try_start(&mut self, ix: ContainerIx, context: &mut Context) {
        let now = context.now.mono;
        let spec = &self.spec.containers[ix.at()];
        let container = &mut self.containers[ix.at()];
        if !matches!(container.life, Life::Idle) || container.not_before.is_some_and(|at| now < at) {
            return;
        }
        // Kubelet's back-off key contains the spec's hash: a changed container begins anew.
        if container.newest.as_ref().is_some_and(|record| record.spec_hash != spec.spec_hash) {
            container.backoff = Backoff::NEW;
        }
        let prev_finished_at = match container.restart.take() {
            Some(Restart { prev_finished_at }) => prev_finished_at,
            None => container.finished_at(),
        };
        match container.backoff.should_start(context.config.backoff, now, prev_finished_at) {
            Start::Now => self.start(ix, context),
            Start::Refused { retry_at, wait } => self.refuse(ix, retry_at, wait, context),
        }
    }

    fn start(&mut self, ix: ContainerIx, context: &mut Context) {
        let container_id = context.new_container_id();
        let container = &mut self.containers[ix.at()];
        let restart_count = status::next_restart_count(container.newest.as_ref(), None);
        let instance = InstanceId { pod: self.spec.uid, container: ix, restart_count };
        container.not_before = None;
        let spec_hash = self.spec.containers[ix.at()].spec_hash;
        container.life = Life::Starting { instance, container_id, spec_hash };
        let request = StartRequest { instance, container_id, pod: Arc::clone(&self.spec) };
        context.runtime(RuntimeCmd::Start(Box::new(request)));
    }

    /// CrashLoopBackOff. One event per refusal: syncs while it waits say nothing more.
    fn refuse(&mut self, ix: ContainerIx, retry_at: Mono, wait: std::time::Duration, context: &mut Context) {
        let pod = Arc::clone(&self.spec);
        let name = &pod.containers[ix.at()].name;
        let container = &mut self.containers[ix.at()];
        container.start_failure = Some(StartFailure {
            reason: messages::CRASH_LOOP_BACK_OFF,
            message: messages::back_off_waiting(&pod, name, wait).into(),
        });
        // After a kill the refusal looked at the instance before; the next attempt looks at the killed one.
        let retry_at =
            container.finished_at().map_or(retry_at, |finished| finished.after(wait).max(retry_at));
        container.not_before = Some(retry_at);
        context.wake_at(retry_at, pod.uid);
        context.event(&pod, ix, Reason::BackOff, messages::back_off_event(&pod, name));
    }

    /// The container exists: from here on it has a record, and its restart count is visible.
    pub(super) fn on_created(&mut self, instance: InstanceId, context: &mut Context) -> bool {
        let pod = Arc::clone(&self.spec);
        let Some((container_id, spec_hash)) = self.starting(instance) else { return false };
        let name = &pod.containers[instance.container.at()].name;
        let container = &mut self.containers[instance.container.at()];
        if container.newest.as_ref().is_some_and(|record| record.instance == instance) {
            return false;
        }
        let record = Record { instance, container_id, spec_hash, state: RecordState::Created };
        container.previous = container.newest.replace(record);
        container.last_child_oom = None;
        let spec = &pod.containers[instance.container.at()];
        container.probes.iter_mut().for_each(|slot| slot.revive(spec));
        context.event(&pod, instance.container, Reason::Created, messages::created(name));
        true
    }

    /// Its main process runs.
    pub(super) fn on_started(
        &mut self,
        instance: InstanceId,
        pid: u32,
        at: Now,
        context: &mut Context,
    ) -> bool {
        let pod = Arc::clone(&self.spec);
        if self.starting(instance).is_none() {
            return false;
        }
        let name = &pod.containers[instance.container.at()].name;
        context.event(&pod, instance.container, Reason::Started, messages::started(name));
        let container = &mut self.containers[instance.container.at()];
        container.start_failure = None;
        self.begin_post_start(instance, pid, at, context);
        true
    }

    /// The instance is shown as running, and its probes may begin.
    pub(super) fn run(&mut self, ix: ContainerIx, pid: u32, started_at: Now) {
        let container = &mut self.containers[ix.at()];
        if let Some(record) = &mut container.newest {
            record.state = RecordState::Running { pid, started_at };
        }
        container.life = Life::Running;
    }

    /// It could not be started. After `Created` that is an end with StartError, before it there is no record.
    pub(super) fn on_start_failed(
        &mut self,
        instance: InstanceId,
        error: StartError,
        message: &str,
        at: Now,
        context: &mut Context,
    ) -> bool {
        let pod = Arc::clone(&self.spec);
        let Some((container_id, _)) = self.starting(instance) else { return false };
        let ix = instance.container;
        let container = &mut self.containers[ix.at()];
        match container.newest.as_mut().filter(|record| record.instance == instance) {
            Some(record) => {
                let terminated = status::start_failed(message, at.wall, container_id);
                record.state = RecordState::Exited { terminated, finished_at: at.mono };
            }
            None => {
                let retry_at = at.mono.after(FAILED_SYNC_RETRY);
                container.not_before = Some(retry_at);
                context.wake_at(retry_at, pod.uid);
            }
        }
        container.start_failure =
            Some(StartFailure { reason: messages::start_error_reason(error), message: message.into() });
        container.life = Life::Ended { instance };
        context.event(&pod, ix, Reason::Failed, messages::failed(message));
        context.runtime(RuntimeCmd::Cleanup { instance });
        true
    }

    /// The main process ended: the state changes now, the next start waits for `Gone` (design 9.3).
    pub(super) fn on_exited(
        &mut self,
        instance: InstanceId,
        exit: ExitStatus,
        oom_killed: bool,
        at: Now,
        context: &mut Context,
    ) -> bool {
        let container = &mut self.containers[instance.container.at()];
        let started_at = match &container.life {
            Life::PostStart { at, .. } => at.wall,
            Life::Running | Life::Killing(_) => match container.newest.as_ref().map(|record| &record.state) {
                Some(RecordState::Running { started_at, .. }) => started_at.wall,
                _ => return false,
            },
            Life::Idle | Life::Starting { .. } | Life::Ended { .. } => return false,
        };
        let Some(record) = container.newest.as_mut().filter(|record| record.instance == instance) else {
            return false;
        };
        let mut terminated = status::terminated(exit, oom_killed, started_at, at.wall, record.container_id);
        terminated.message = container.why_killed.take();
        record.state = RecordState::Exited { terminated, finished_at: at.mono };
        container.life = Life::Ended { instance };
        context.runtime(RuntimeCmd::Cleanup { instance });
        true
    }

    /// Nothing of the instance is left. A start that was decided with the kill goes ahead now.
    pub(super) fn on_gone(
        &mut self,
        instance: InstanceId,
        termination_message: Option<Box<str>>,
        context: &mut Context,
    ) -> bool {
        let ix = instance.container;
        let container = &mut self.containers[ix.at()];
        let Life::Ended { instance: ended } = &container.life else { return false };
        if *ended != instance {
            return false;
        }
        container.life = Life::Idle;
        if let Some(record) = container.newest.as_mut().filter(|record| record.instance == instance)
            && let RecordState::Exited { terminated, .. } = &mut record.state
            && termination_message.is_some()
        {
            terminated.message = termination_message;
        }
        if self.deletion.is_some() || self.stop.is_some() {
            self.containers[ix.at()].restart = None;
        } else if self.containers[ix.at()].restart.is_some() {
            self.try_start(ix, context);
        }
        true
    }

    /// Container id and spec hash of a start that is under way for exactly this instance.
    fn starting(&self, instance: InstanceId) -> Option<(ContainerId, u64)> {
        match &self.containers.get(instance.container.at())?.life {
            Life::Starting { instance: current, container_id, spec_hash } if *current == instance => {
                Some((*container_id, *spec_hash))
            }
            _ => None,
        }
    }
}
