//! The probes of one container: when they are armed and held, and what an outcome does.

use std::sync::Arc;
use std::time::Duration;

use super::context::{Context, Question};
use super::msg::Output;
use super::pod::{Effect, Life, Pod};
use crate::decide::go_duration::GoDuration;
use crate::decide::schedule::Schedule;
use crate::decide::view::RecordState;
use crate::decide::worker::{Gate, GateView, Seen, SeenState, Worker};
use crate::decide::{expand, messages, ready, target};
use crate::model::event::Reason;
use crate::model::id::{ContainerIx, InstanceId, ProbeKey, Ticket};
use crate::model::limits::PROBE_ATTEMPTS;
use crate::model::pod::{ContainerSpec, PodSpec};
use crate::model::probe::{
    Arm, ExecAction, Handler, Outcome, Phases, ProbeCmd, ProbeKind, ProbeSpec, RunResult, Target, Verdict,
};
use crate::model::runtime::{Blame, ExecResult, ExitStatus, RuntimeCmd};
use crate::model::status::Phase;
use crate::model::time::Mono;

/// One worker and its place in the engine.
pub(super) struct ProbeSlot {
    pub(super) worker: Worker,
    key: ProbeKey,
    armed: Option<Armed>,
    /// The worker has ended for good (kubelet-semantics 10.3, steps 2, 6 and 7).
    ended: bool,
}

struct Armed {
    generation: u32,
    instance: InstanceId,
    target: Arc<Target>,
    /// The exec run under way.
    exec: Option<ExecRun>,
}

#[derive(Copy, Clone)]
struct ExecRun {
    due: Mono,
    attempt: u32,
    /// Of the attempts so far: [`Blame::Elsewhere`] once one of them failed for a reason of that kind.
    blame: Blame,
}

impl ProbeSlot {
    pub(super) fn new(
        pod: &PodSpec,
        container: ContainerIx,
        kind: ProbeKind,
        context: &mut Context,
    ) -> Option<ProbeSlot> {
        let worker = Worker::new(kind, pod.containers.get(container.at())?.probe(kind)?);
        let key = context.probes.insert(pod.uid, container, kind);
        Some(ProbeSlot { worker, key, armed: None, ended: false })
    }

    /// Gives its place in the engine back.
    pub(super) fn remove(&mut self, context: &mut Context) {
        self.forget(context);
        self.ended = true;
        self.worker.end();
        context.probes.remove(self.key);
    }

    /// A new instance was created after the worker had ended with the one before: a changed definition starts
    /// a container again even where the policy is Never. Kubelet makes a new worker with its next sync.
    pub(super) fn revive(&mut self, container: &ContainerSpec) {
        let kind = self.worker.kind();
        if let Some(probe) = container.probe(kind).filter(|_| self.ended) {
            self.worker = Worker::new(kind, probe);
            self.ended = false;
        }
    }

    /// Whether a run may still count. Several may arrive in one turn: after the one that reached a threshold,
    /// or after the delete, the worker is silent already though its `Hold` goes out with the sync.
    fn listens(&self, pod_stops: bool) -> bool {
        !self.worker.on_hold() && (!pod_stops || self.worker.kind() == ProbeKind::Readiness)
    }

    /// The worker ends, and what its runs came to is not shown any more (kubelet-semantics 16).
    fn forget(&mut self, context: &mut Context) {
        self.armed = None;
        context.out.push(Output::Probe(ProbeCmd::Drop { probe: self.key }));
    }

    fn hold(&mut self, context: &mut Context) {
        if let Some(armed) = self.armed.take() {
            let cmd = ProbeCmd::Hold { probe: self.key, generation: armed.generation };
            context.out.push(Output::Probe(cmd));
        }
    }
}

impl Pod {
    /// Asks every worker's gate and arms or holds its probe accordingly. Returns whether a cached result
    /// changed, which may change the status and call for actions.
    pub(super) fn gate_probes(&mut self, phase: Option<Phase>, context: &mut Context) -> bool {
        let mut changed = false;
        for at in 0..self.containers.len() {
            for kind in ProbeKind::ALL {
                changed |= self.gate_probe(ContainerIx(at as u16), kind, phase, context);
            }
        }
        changed
    }

    fn gate_probe(
        &mut self,
        ix: ContainerIx,
        kind: ProbeKind,
        phase: Option<Phase>,
        context: &mut Context,
    ) -> bool {
        let Some(view) = self.gate_view(ix, phase) else { return false };
        let spec = Arc::clone(&self.spec);
        let container = &mut self.containers[ix.at()];
        let is_running = container.running_instance();
        let started_at = container.started_at();
        let Some(slot) = container.probe_mut(kind) else { return false };
        if slot.ended {
            return false;
        }
        let gated = slot.worker.gate(&view);
        match (gated.gate, is_running, started_at) {
            (Gate::RunFrom(_), Some(instance), Some(started_at)) => {
                if slot.armed.as_ref().is_none_or(|armed| armed.instance != instance) {
                    arm(slot, &spec, ix, instance, started_at, context);
                }
            }
            (Gate::Idle | Gate::RunFrom(_), _, _) => slot.hold(context),
            (Gate::Stop, _, _) => {
                slot.forget(context);
                slot.ended = true;
                if is_running.is_none() {
                    slot.worker.end();
                }
            }
        }
        gated.update.is_some()
    }

    fn gate_view(&self, ix: ContainerIx, phase: Option<Phase>) -> Option<GateView> {
        let spec = self.spec.containers.get(ix.at())?;
        let container = &self.containers[ix.at()];
        // Workers meet an instance when it is shown as running, or has ended. Kubelet's workers see a created
        // container only if a status was made in that instant; here it may last (a postStart hook), and the
        // Failure that step 6 of 10.3 caches for it would kill the instance as soon as it runs.
        let seen = container.newest.as_ref().and_then(|record| {
            let state = match (container.started_at(), record.exit_code()) {
                (Some(started_at), _) => SeenState::Running { started_at },
                (None, Some(_)) => SeenState::Terminated,
                (None, None) => return None,
            };
            let started = ready::started(spec, &container.view());
            Some(Seen { instance: record.instance, state, started })
        });
        Some(GateView {
            phase,
            deleting: self.deletion.is_some(),
            restart_policy: self.spec.restart_policy,
            role: spec.role,
            container: seen,
        })
    }

    /// Kubelet pokes the readiness probe of a container that is started and not ready at every sync
    /// (kubelet-semantics 11).
    pub(super) fn poke_readiness(&mut self, context: &mut Context) {
        for (at, spec) in self.spec.containers.iter().enumerate() {
            let container = &self.containers[at];
            if !ready::pokes_readiness(spec, &container.view()) {
                continue;
            }
            let delay = spec.readiness.as_ref().map_or(0, |probe| probe.initial_delay_s);
            let eligible = container.started_at().map(|at| at.after(Duration::from_secs(delay.into())));
            if eligible.is_none_or(|eligible| eligible > context.now.mono) {
                continue;
            }
            let Some(slot) = container.probe(ProbeKind::Readiness) else { continue };
            if let Some(armed) = &slot.armed {
                let cmd = ProbeCmd::Trigger { probe: slot.key, generation: armed.generation };
                context.out.push(Output::Probe(cmd));
            }
        }
    }

    /// One finished run: the event on every failing run, then thresholds; a changed result calls for a sync.
    /// A run of an older instance or generation changes nothing.
    pub(super) fn on_outcome(
        &mut self,
        ix: ContainerIx,
        kind: ProbeKind,
        outcome: &Outcome,
        context: &mut Context,
    ) -> Effect {
        let spec = Arc::clone(&self.spec);
        let stopping = self.deletion.is_some();
        let Some(container) = self.containers.get_mut(ix.at()) else { return Effect::Stale };
        let running = container.running_instance();
        let Some(slot) = container.probe_mut(kind).filter(|slot| slot.listens(stopping)) else {
            return Effect::Stale;
        };
        let current = slot
            .armed
            .as_ref()
            .filter(|armed| armed.generation == outcome.generation && running == Some(armed.instance));
        let Some(armed) = current else { return Effect::Stale };
        let event = messages::probe_event(kind, &armed.target, &outcome.result);
        let folded = slot.worker.on_folded(outcome.folded_successes);
        let update = slot.worker.on_verdict(outcome.result.verdict);
        let event = event.or_else(|| {
            let row = slot.worker.inconclusive_row()?;
            let detail = outcome.result.detail.as_deref().unwrap_or_default();
            Some((Reason::ProbeInconclusive, messages::inconclusive(kind, row, detail)))
        });
        if let Some((reason, text)) = event {
            context.event(&spec, ix, reason, text);
        }
        Effect::of(folded.is_some() || update.is_some())
    }

    /// An exec probe is due: have the runtime run it.
    pub(super) fn on_exec_due(
        &mut self,
        ix: ContainerIx,
        kind: ProbeKind,
        generation: u32,
        context: &mut Context,
    ) -> Effect {
        let due = context.now.mono;
        let stopping = self.deletion.is_some();
        let Some(container) = self.containers.get_mut(ix.at()) else { return Effect::Stale };
        let running = container.running_instance();
        let Some(slot) = container.probe_mut(kind).filter(|slot| slot.listens(stopping)) else {
            return Effect::Stale;
        };
        let Some(armed) = slot.armed.as_mut() else { return Effect::Stale };
        if armed.generation != generation || running != Some(armed.instance) {
            return Effect::Stale;
        }
        armed.exec = Some(ExecRun { due, attempt: 1, blame: Blame::Command });
        let instance = armed.instance;
        let question = Question::Probe { instance, kind, key: slot.key, generation };
        self.exec_probe(ix, kind, instance, question, context);
        Effect::Nothing
    }

    /// An exec run of a probe has ended. Up to three attempts while it errs (kubelet-semantics 8).
    pub(super) fn on_exec_probe(
        &mut self,
        instance: InstanceId,
        kind: ProbeKind,
        (key, generation): (ProbeKey, u32),
        result: &ExecResult,
        context: &mut Context,
    ) -> Effect {
        let ix = instance.container;
        let now = context.now.mono;
        let Some(run) = self.exec_run(ix, kind, key, generation) else { return Effect::Stale };
        let erred = matches!(result, ExecResult::Failed { .. });
        let blame = if blamed(result) == Blame::Elsewhere { Blame::Elsewhere } else { run.blame };
        if erred
            && run.attempt < PROBE_ATTEMPTS
            && self.containers[ix.at()].running_instance() == Some(instance)
        {
            let attempt = run.attempt + 1;
            if let Some(armed) = self.containers[ix.at()].probe_mut(kind).and_then(|slot| slot.armed.as_mut())
            {
                armed.exec = Some(ExecRun { attempt, blame, ..run });
            }
            let question = Question::Probe { instance, kind, key, generation };
            self.exec_probe(ix, kind, instance, question, context);
            return Effect::Nothing;
        }
        let phases = Phases { due: run.due, done: now, ..Phases::default() };
        let action = self.exec_action(ix, kind);
        let result = action
            .map(|(action, probe)| judge_exec(result, blame, &self.probe_argv(ix, action), probe, phases));
        let verdict = result.as_ref().map_or(Verdict::Errored, |result| result.verdict);
        let took = phases.took();
        context.out.push(Output::Probe(ProbeCmd::ExecDone { probe: key, generation, verdict, took }));
        let Some(result) = result else { return Effect::Stale };
        let outcome = Outcome { probe: key, generation, instance, folded_successes: 0, result };
        self.on_outcome(ix, kind, &outcome, context)
    }

    fn exec_run(
        &mut self,
        ix: ContainerIx,
        kind: ProbeKind,
        key: ProbeKey,
        generation: u32,
    ) -> Option<ExecRun> {
        let slot = self.containers.get_mut(ix.at())?.probe_mut(kind).filter(|slot| slot.key == key)?;
        slot.armed.as_mut().filter(|armed| armed.generation == generation)?.exec.take()
    }

    /// Runs one probe now, outside its schedule and thresholds. Err says why it cannot run.
    pub(super) fn probe_now(
        &mut self,
        ix: ContainerIx,
        kind: ProbeKind,
        reply_to: Ticket,
        context: &mut Context,
    ) -> Result<(), Box<str>> {
        let name = self.spec.containers.get(ix.at()).map_or("?", |spec| &spec.name);
        let probe = self.spec.containers.get(ix.at()).and_then(|spec| spec.probe(kind));
        let Some(probe) = probe else {
            let kind = kind.as_str().to_lowercase();
            return Err(format!("container {name} has no {kind} probe").into());
        };
        let Some(instance) = self.containers[ix.at()].running_instance() else {
            return Err(format!("container {name} is not running").into());
        };
        let target = target::resolve(&probe.handler, &self.spec.containers[ix.at()], context.config.pod_ip);
        let is_engines = !matches!(target, Target::Exec);
        let question = Question::Now { instance, kind, reply_to, asked: context.now.mono, is_engines };
        match target {
            Target::Exec => self.exec_probe(ix, kind, instance, question, context),
            Target::Broken { error } => return Err(error),
            target @ (Target::Http(_) | Target::Tcp(_) | Target::Grpc(_)) => {
                let timeout = probe.timeout;
                let ticket = context.ask(question);
                let once = ProbeCmd::Once { ticket, target: Arc::new(target), timeout };
                context.out.push(Output::Probe(once));
            }
        }
        Ok(())
    }

    /// What an exec run that was asked for by [`Pod::probe_now`] came to.
    pub(super) fn judge_now(
        &self,
        ix: ContainerIx,
        kind: ProbeKind,
        result: &ExecResult,
        phases: Phases,
    ) -> RunResult {
        match self.exec_action(ix, kind) {
            Some((action, probe)) => {
                judge_exec(result, Blame::Elsewhere, &self.probe_argv(ix, action), probe, phases)
            }
            None => RunResult { verdict: Verdict::Errored, detail: None, phases },
        }
    }

    fn exec_action(&self, ix: ContainerIx, kind: ProbeKind) -> Option<(&ExecAction, &ProbeSpec)> {
        let probe = self.spec.containers.get(ix.at())?.probe(kind)?;
        match &probe.handler {
            Handler::Exec(action) => Some((action, probe)),
            Handler::HttpGet(_) | Handler::TcpSocket(_) | Handler::Grpc(_) => None,
        }
    }

    fn probe_argv(&self, ix: ContainerIx, action: &ExecAction) -> Vec<Box<str>> {
        expand::probe_argv(&action.command, &self.spec.containers[ix.at()])
    }

    fn exec_probe(
        &self,
        ix: ContainerIx,
        kind: ProbeKind,
        instance: InstanceId,
        question: Question,
        context: &mut Context,
    ) {
        let Some((action, probe)) = self.exec_action(ix, kind) else { return };
        let argv = self.probe_argv(ix, action).into();
        let timeout = Some(probe.timeout);
        let ticket = context.ask(question);
        context.runtime(RuntimeCmd::Exec { instance, ticket, argv, timeout });
    }
}

impl super::pod::Container {
    /// When the process of the newest record started, while it runs and is shown as running.
    fn started_at(&self) -> Option<Mono> {
        match (&self.life, &self.newest.as_ref()?.state) {
            (Life::Running | Life::Killing(_), RecordState::Running { started_at, .. }) => {
                Some(started_at.mono)
            }
            _ => None,
        }
    }
}

fn arm(
    slot: &mut ProbeSlot,
    pod: &PodSpec,
    ix: ContainerIx,
    instance: InstanceId,
    started_at: Mono,
    context: &mut Context,
) {
    let container = &pod.containers[ix.at()];
    let kind = slot.worker.kind();
    let Some(probe) = container.probe(kind) else { return };
    let target = Arc::new(target::resolve(&probe.handler, container, context.config.pod_ip));
    let generation = context.probes.next_generation(slot.key);
    let schedule = Schedule::new(pod.uid, &container.name, kind, probe);
    let arm = Arm {
        probe: slot.key,
        kind,
        generation,
        instance,
        target: Arc::clone(&target),
        first_due: schedule.first_due(started_at, context.now.mono),
        period: schedule.period(),
        timeout: probe.timeout,
        report_successes: slot.worker.report_successes(),
    };
    context.out.push(Output::Probe(ProbeCmd::Arm(Box::new(arm))));
    slot.armed = Some(Armed { generation, instance, target, exec: None });
}

fn blamed(result: &ExecResult) -> Blame {
    match result {
        ExecResult::Failed { blame, .. } => *blame,
        ExecResult::Exited { .. } | ExecResult::TimedOut => Blame::Command,
    }
}

/// The table of kubelet-semantics 6.
fn judge_exec(
    result: &ExecResult,
    blame: Blame,
    argv: &[Box<str>],
    probe: &ProbeSpec,
    phases: Phases,
) -> RunResult {
    let (verdict, detail) = match result {
        ExecResult::Exited { status: ExitStatus::Code(0), .. } => (Verdict::Success, None),
        ExecResult::Exited { output, .. } => (Verdict::Failure, Some(output.clone())),
        ExecResult::TimedOut => {
            let argv = argv.join(" ");
            let text = format!("command timed out: \"{argv}\" timed out after {}", GoDuration(probe.timeout));
            (Verdict::Failure, Some(text.into()))
        }
        ExecResult::Failed { error, .. } => (probe.errored_runs.verdict(blame), Some(error.clone())),
    };
    RunResult { verdict, detail, phases }
}
