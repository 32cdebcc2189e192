//! Lifecycle hooks (kubelet-semantics 13): exec in the container, one HTTP GET, or a sleep.

use std::sync::Arc;
use std::time::Duration;

use super::context::{Context, Question};
use super::msg::Output;
use super::pod::{Effect, KillStage, Life, Pod};
use crate::decide::actions::KillReason;
use crate::decide::target::{self, Purpose};
use crate::decide::view::StartFailure;
use crate::decide::{expand, messages};
use crate::model::event::Reason;
use crate::model::id::{ContainerIx, InstanceId, Ticket};
use crate::model::pod::Hook;
use crate::model::probe::{Phases, ProbeCmd, RunResult, Target, Verdict};
use crate::model::runtime::{ExecResult, ExitStatus, RuntimeCmd};
use crate::model::time::{Mono, Now};

/// An HTTP hook that nobody answers ends after this long; kubelet sets no limit of its own.
const HTTP_HOOK_TIMEOUT: Duration = Duration::from_secs(600);

/// How a hook ended: its error, if it failed.
type HookResult = Result<(), Box<str>>;

impl Pod {
    /// The process runs. Without a hook the container is shown as running at once.
    pub(super) fn begin_post_start(
        &mut self,
        instance: InstanceId,
        pid: u32,
        at: Now,
        context: &mut Context,
    ) {
        let pod = Arc::clone(&self.spec);
        let ix = instance.container;
        let Some(hook) = &pod.containers[ix.at()].post_start else {
            self.run(ix, pid, at);
            return;
        };
        let until = match hook {
            Hook::Sleep { seconds } => {
                let until = context.now.mono.after(Duration::from_secs(u64::from(*seconds)));
                context.wake_at(until, pod.uid);
                Some(until)
            }
            Hook::Exec(_) | Hook::HttpGet(_) => None,
        };
        self.containers[ix.at()].life = Life::PostStart { pid, at, until };
        let question = Question::PostStart { instance };
        if let Err(error) = self.begin_hook(ix, hook, None, question, context) {
            self.on_post_start(instance, Err(error), context);
        }
    }

    /// The hook is under way until it ends or the returned moment comes.
    pub(super) fn begin_pre_stop(
        &mut self,
        ix: ContainerIx,
        hook: &Hook,
        budget: Duration,
        context: &mut Context,
    ) -> Mono {
        let now = context.now.mono;
        let Some(instance) = self.current_instance(ix) else { return now };
        let question = Question::PreStop { instance };
        match self.begin_hook(ix, hook, Some(budget), question, context) {
            Ok(()) => match hook {
                Hook::Sleep { seconds } => now.after(budget.min(Duration::from_secs(u64::from(*seconds)))),
                Hook::Exec(_) | Hook::HttpGet(_) => now.after(budget),
            },
            Err(error) => {
                self.pre_stop_failed(ix, &error, context);
                now
            }
        }
    }

    fn begin_hook(
        &self,
        ix: ContainerIx,
        hook: &Hook,
        timeout: Option<Duration>,
        question: Question,
        context: &mut Context,
    ) -> HookResult {
        let spec = &self.spec.containers[ix.at()];
        let instance = question.instance();
        match hook {
            Hook::Sleep { .. } => {}
            Hook::Exec(action) => {
                let argv = expand::probe_argv(&action.command, spec).into();
                let ticket = context.ask(question);
                context.runtime(RuntimeCmd::Exec { instance, ticket, argv, timeout });
            }
            Hook::HttpGet(action) => {
                let target = target::http(action, spec, context.config.pod_ip, Purpose::Hook)
                    .map_err(|error| Box::<str>::from(messages::hook_error(&error.to_string(), "")))?;
                let timeout = timeout.unwrap_or(HTTP_HOOK_TIMEOUT);
                let ticket = context.ask(question);
                let target = Arc::new(Target::Http(target));
                context.out.push(Output::Probe(ProbeCmd::Once { ticket, target, timeout }));
            }
        }
        Ok(())
    }

    /// Hooks that only wait, and hooks that took too long: what is due now goes on.
    pub(super) fn advance_hooks(&mut self, context: &mut Context) {
        let now = context.now.mono;
        for at in 0..self.containers.len() {
            let ix = ContainerIx(u16::try_from(at).unwrap_or(u16::MAX));
            match &self.containers[at].life {
                Life::PostStart { pid, at, until: Some(until) } if *until <= now => {
                    let (pid, at) = (*pid, *at);
                    self.run(ix, pid, at);
                }
                Life::Killing(killing) => {
                    if matches!(killing.stage, KillStage::PreStop { until } if until <= now) {
                        self.send_stop(ix, context);
                    }
                }
                Life::Idle
                | Life::Starting { .. }
                | Life::PostStart { .. }
                | Life::Running
                | Life::Ended { .. } => {}
            }
        }
    }

    /// The postStart hook has ended. If it failed, the container is killed.
    pub(super) fn on_post_start(
        &mut self,
        instance: InstanceId,
        result: HookResult,
        context: &mut Context,
    ) -> Effect {
        let ix = instance.container;
        let Life::PostStart { pid, at, .. } = self.containers[ix.at()].life else { return Effect::Stale };
        if self.current_instance(ix) != Some(instance) {
            return Effect::Stale;
        }
        self.run(ix, pid, at);
        if let Err(error) = result {
            let pod = Arc::clone(&self.spec);
            let error = self.why_failed(ix, pod.containers[ix.at()].post_start.as_ref(), error);
            tracing::warn!("{error}");
            let message = messages::POST_START_HOOK_FAILED.to_owned();
            context.event(&pod, ix, Reason::FailedPostStartHook, message);
            let message = messages::KILLED_BY_POST_START_HOOK.to_owned();
            self.begin_kill(ix, KillReason::Other, message, Duration::ZERO, context);
            self.containers[ix.at()].start_failure =
                Some(StartFailure { reason: messages::POST_START_HOOK_ERROR, message: error });
        }
        Effect::Changed
    }

    /// The preStop hook has ended in time; the kill goes on, whatever came of it.
    pub(super) fn on_pre_stop(
        &mut self,
        instance: InstanceId,
        result: HookResult,
        context: &mut Context,
    ) -> Effect {
        let ix = instance.container;
        let waits = matches!(
            &self.containers[ix.at()].life,
            Life::Killing(killing) if matches!(killing.stage, KillStage::PreStop { .. })
        );
        if !waits || self.current_instance(ix) != Some(instance) {
            return Effect::Stale;
        }
        if let Err(error) = result {
            self.pre_stop_failed(ix, &error, context);
        }
        self.send_stop(ix, context);
        Effect::Changed
    }

    fn pre_stop_failed(&self, ix: ContainerIx, error: &str, context: &mut Context) {
        let hook = self.spec.containers[ix.at()].pre_stop.as_ref();
        tracing::warn!("{}", self.why_failed(ix, hook, error.into()));
        let message = messages::PRE_STOP_HOOK_FAILED.to_owned();
        context.event(&self.spec, ix, Reason::FailedPreStopHook, message);
    }

    fn why_failed(&self, ix: ContainerIx, hook: Option<&Hook>, error: Box<str>) -> Box<str> {
        let name = &self.spec.containers[ix.at()].name;
        hook.map_or(error.clone(), |hook| messages::hook_failed(hook, &self.spec, name, &error).into())
    }

    /// The answer to an exec that was asked for with a ticket.
    pub(super) fn on_exec_done(
        &mut self,
        question: &Question,
        result: &ExecResult,
        context: &mut Context,
    ) -> Effect {
        match question {
            Question::Probe { instance, kind, key, generation } => {
                self.on_exec_probe(*instance, *kind, (*key, *generation), result, context)
            }
            Question::PostStart { instance } => {
                self.on_post_start(*instance, exec_hook_result(result), context)
            }
            Question::PreStop { instance } => self.on_pre_stop(*instance, exec_hook_result(result), context),
            Question::Now { instance, kind, reply_to, asked, .. } => {
                let phases = Phases { due: *asked, done: context.now.mono, ..Phases::default() };
                let run = self.judge_now(instance.container, *kind, result, phases);
                reply(*reply_to, run, context);
                Effect::Nothing
            }
        }
    }

    /// The answer to a one-shot request.
    pub(super) fn on_once_done(
        &mut self,
        question: &Question,
        run: RunResult,
        context: &mut Context,
    ) -> Effect {
        match question {
            Question::PostStart { instance } => {
                self.on_post_start(*instance, http_hook_result(&run), context)
            }
            Question::PreStop { instance } => self.on_pre_stop(*instance, http_hook_result(&run), context),
            Question::Now { reply_to, .. } => {
                reply(*reply_to, run, context);
                Effect::Nothing
            }
            // Scheduled probes never run through `Once`.
            Question::Probe { .. } => Effect::Stale,
        }
    }
}

fn reply(ticket: Ticket, run: RunResult, context: &mut Context) {
    context.out.push(Output::ProbeNowDone { ticket, result: Ok(run) });
}

fn exec_hook_result(result: &ExecResult) -> HookResult {
    let text = match result {
        ExecResult::Exited { status: ExitStatus::Code(0), .. } => return Ok(()),
        ExecResult::Exited { status, output } => {
            messages::hook_error(&format!("command exited with {}", status.exit_code()), output)
        }
        ExecResult::TimedOut => messages::hook_error("command timed out", ""),
        ExecResult::Failed { error, blame: _ } => messages::hook_error(error, ""),
    };
    Err(text.into())
}

/// Any answer of the server counts; only a request that got none fails (kubernetes
/// pkg/kubelet/lifecycle/handlers.go).
fn http_hook_result(run: &RunResult) -> HookResult {
    let detail = run.detail.as_deref().unwrap_or_default();
    let answered = run.verdict != Verdict::Failure || detail.starts_with("HTTP probe failed with statuscode");
    let judged = !matches!(run.verdict, Verdict::Errored | Verdict::Inconclusive);
    if answered && judged { Ok(()) } else { Err(messages::hook_error(detail, "").into()) }
}
