//! What goes into an executor, in the order in which it is given to `turn`.

use std::sync::Arc;

use probe_core::executor::{Input, PodCmd};
use probe_core::model::event::Reason;
use probe_core::model::id::{ContainerIx, InstanceId, PodUid, Ticket};
use probe_core::model::limits::{INCONCLUSIVE_ROW, PROBE_ATTEMPTS};
use probe_core::model::pod::{ChildOomPolicy, PodSpec, RestartPolicy, Role};
use probe_core::model::probe::{Handler, Outcome, ProbeEvent, ProbeKind, Verdict};
use probe_core::model::runtime::{ExecResult, RuntimeEvent, StartError};
use probe_core::model::time::Mono;

use super::super::book::{Attempt, ContainerBook, DeletionBook, ProbeBook, Run};
use super::super::health::Expected;
use super::super::runtime::Runtime;
use super::{Asked, Observer, Owner, broken};

impl Observer {
    pub fn input(&mut self, now: Mono, executor: u16, input: &Input, truth: &Runtime) {
        match input {
            Input::Pod(cmd) => self.pod_cmd(now, cmd),
            Input::Probe(event) => self.probe_event(now, event, truth),
            Input::Runtime(event) => self.runtime_event(now, executor, event),
        }
    }

    fn pod_cmd(&mut self, now: Mono, cmd: &PodCmd) {
        let uid = match cmd {
            PodCmd::Add(spec) => self.add(Arc::clone(spec), now),
            PodCmd::Reject { spec, .. } => {
                let uid = self.add(Arc::clone(spec), now);
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.is_rejected = true;
                }
                uid
            }
            PodCmd::Update(spec) => {
                self.update(spec);
                spec.uid
            }
            PodCmd::Delete { pod, grace_s } => {
                self.delete(now, *pod, *grace_s);
                *pod
            }
            PodCmd::ProbeNow { pod, container, kind, ticket } => {
                self.question(*pod, *container, *kind, *ticket);
                *pod
            }
            PodCmd::ForgetNow { pod, .. } => *pod,
        };
        self.touched.insert(uid);
    }

    fn update(&mut self, spec: &Arc<PodSpec>) {
        let Some(pod) = self.pods.get_mut(&spec.uid) else { return };
        let before = std::mem::replace(&mut pod.spec, Arc::clone(spec));
        let specs = spec.containers.iter().zip(&before.containers);
        for ((after, before), container) in specs.zip(&mut pod.containers) {
            if after.spec_hash == before.spec_hash {
                continue;
            }
            container.failed_at = None;
            if after.role == Role::Init {
                continue;
            }
            for kind in ProbeKind::ALL {
                container.probes[kind as usize] = after.probe(kind).map(|_| ProbeBook::new(kind));
            }
        }
    }

    fn delete(&mut self, now: Mono, uid: PodUid, grace_s: Option<u32>) {
        let Some(pod) = self.pods.get_mut(&uid) else { return };
        let grace_s = grace_s.unwrap_or(pod.spec.termination_grace_s);
        self.counts.deletions += u64::from(pod.deletion.is_none());
        if pod.deletion.is_none_or(|before| grace_s < before.grace_s) {
            pod.deletion = Some(DeletionBook { at: now, grace_s });
        }
        pod.containers.iter_mut().for_each(ContainerBook::stop_workers);
    }

    fn question(&mut self, uid: PodUid, ix: ContainerIx, kind: ProbeKind, ticket: Ticket) {
        self.questions.insert(ticket);
        let Some(pod) = self.pods.get(&uid) else { return };
        let Some(spec) = pod.spec.containers.get(ix.at()) else { return };
        let is_exec = matches!(spec.probe(kind).map(|probe| &probe.handler), Some(Handler::Exec(_)));
        if is_exec && spec.role != Role::Init && pod.containers[ix.at()].running().is_some() {
            self.to_ask.push_back(Asked::Now);
        }
    }

    fn probe_event(&mut self, now: Mono, event: &ProbeEvent, truth: &Runtime) {
        match event {
            ProbeEvent::Outcome(outcome) => {
                let Some(owner) = self.keys.get(&outcome.probe).copied() else {
                    self.counts.stale += 1;
                    return;
                };
                self.outcome(now, owner, outcome, truth);
            }
            // No pod of the simulation has a gRPC probe.
            ProbeEvent::CallDue { .. } | ProbeEvent::CallCut { .. } => {}
            ProbeEvent::ExecDue { probe, generation, instance } => {
                let Some(owner) = self.keys.get(probe).copied() else { return };
                if self.is_current(owner, *generation) == Some(*instance) {
                    let asked = Asked::Probe {
                        key: *probe,
                        generation: *generation,
                        instance: *instance,
                        attempt: 1,
                    };
                    self.to_ask.push_back(asked);
                    if let Some(book) = self.probe(owner) {
                        book.exec_attempt = Some(1);
                    }
                }
            }
            ProbeEvent::OnceDone { .. } | ProbeEvent::Resolve { .. } => {}
        }
    }

    /// The instance that a run of this generation counts for; None when it counts for none.
    fn is_current(&self, owner: Owner, generation: u32) -> Option<InstanceId> {
        let pod = self.pods.get(&owner.pod)?;
        let container = pod.containers.get(owner.container)?;
        let probe = container.probes[owner.kind as usize].as_ref()?;
        let armed = probe.armed.filter(|armed| armed.generation == generation)?;
        let is_stopped = pod.deletion.is_some() && owner.kind != ProbeKind::Readiness;
        let counts = container.running() == Some(armed.instance) && !probe.on_hold && !is_stopped;
        counts.then_some(armed.instance)
    }

    /// One finished run: an event for each one that did not pass, then the count.
    fn outcome(&mut self, now: Mono, owner: Owner, outcome: &Outcome, truth: &Runtime) {
        let Some(instance) = self.is_current(owner, outcome.generation) else {
            self.counts.stale += 1;
            return;
        };
        if outcome.instance != instance {
            broken("an outcome carries its instance", format_args!("{outcome:?} of {instance:?}"));
        }
        self.check_truth(owner, outcome, truth);
        let spec = self.probe_spec(owner);
        let started_at = self.container(instance).and_then(|it| it.newest.as_ref()?.started_at);
        let eligible =
            started_at.unwrap_or(now).after(std::time::Duration::from_secs(spec.initial_delay_s.into()));
        if outcome.result.phases.due < eligible {
            broken("no probe before its initial delay", format_args!("{outcome:?} due before {eligible:?}"));
        }
        self.counts.runs += u64::from(outcome.folded_successes) + 1;
        let detail = outcome.result.detail.as_deref().unwrap_or_default();
        let kind = owner.kind.as_str();
        let verdict = outcome.result.verdict;
        let is_http = matches!(spec.handler, Handler::HttpGet(_));
        let text = match verdict {
            Verdict::Success | Verdict::Inconclusive => None,
            Verdict::Warning => Some((Reason::ProbeWarning, format!("{kind} probe warning: {detail}"))),
            Verdict::Failure => Some((Reason::Unhealthy, format!("{kind} probe failed: {detail}"))),
            Verdict::Errored => {
                let state = if is_http { "failure" } else { "unknown" };
                let text = format!("{kind} probe errored and resulted in {state} state: {detail}");
                Some((Reason::Unhealthy, text))
            }
        };
        if let Some((reason, text)) = text {
            self.expected.push((owner.pod, owner.container, reason, text));
        }
        let mut unjudged = None;
        let Some(probe) = self.probe(owner) else { return };
        if verdict == Verdict::Inconclusive {
            let row = if outcome.folded_successes > 0 { 1 } else { probe.inconclusive + 1 };
            probe.inconclusive = row;
            if row.is_multiple_of(INCONCLUSIVE_ROW) {
                unjudged = Some(format!(
                    "{kind} probe could not be judged {row} times in a row, its result stays as it was: {detail}"
                ));
            }
        } else {
            probe.inconclusive = 0;
        }
        if outcome.folded_successes > 0 {
            probe.count(true, outcome.folded_successes, &spec, now);
        }
        match verdict {
            Verdict::Success | Verdict::Warning => probe.count(true, 1, &spec, now),
            Verdict::Failure => probe.count(false, 1, &spec, now),
            Verdict::Errored | Verdict::Inconclusive => {}
        }
        let passed = probe.result == Some(true);
        if let Some(text) = unjudged {
            self.expected.push((owner.pod, owner.container, Reason::ProbeInconclusive, text));
        }
        if owner.kind == ProbeKind::Startup && passed {
            self.container(instance).into_iter().for_each(|it| it.passed = true);
        }
        self.counts.failures += u64::from(verdict == Verdict::Failure);
        self.touched.insert(owner.pod);
    }

    /// The verdict against what the server really did, as far as that did not change during the run.
    fn check_truth(&self, owner: Owner, outcome: &Outcome, truth: &Runtime) {
        let pod = &self.pods[&owner.pod];
        let spec = &pod.spec.containers[owner.container];
        let Some(handler) = spec.probe(owner.kind).map(|probe| &probe.handler) else { return };
        let Some(instance) = truth.instance(outcome.instance) else { return };
        let (health, since) = instance.health[owner.kind as usize];
        // A server is looked at a little after the run was begun, and an engine may be a little behind.
        let margin = std::time::Duration::from_millis(50) + self.weather.stall_max;
        if since.after(margin) > outcome.result.phases.due
            || instance.stage != super::super::runtime::Stage::Running
        {
            return;
        }
        let verdict = outcome.result.verdict;
        // Whether the engine may say so is seen at its own border, where it is known when it stalled.
        if verdict == Verdict::Inconclusive {
            return;
        }
        let is_true = match health.expected(handler) {
            Expected::Passes if self.weather.is_lossy => true,
            Expected::Passes => matches!(verdict, Verdict::Success | Verdict::Warning),
            Expected::Fails => verdict == Verdict::Failure,
            Expected::Errs => verdict == Verdict::Errored || self.weather.is_lossy,
        };
        if !is_true {
            broken(
                "no false verdict",
                format_args!("{outcome:?} of a server that is {health:?} since {since:?}"),
            );
        }
    }

    fn probe_spec(&self, owner: Owner) -> probe_core::model::probe::ProbeSpec {
        let spec = &self.pods[&owner.pod].spec.containers[owner.container];
        spec.probe(owner.kind).expect("a worker has a probe").clone()
    }

    fn runtime_event(&mut self, now: Mono, executor: u16, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Created { instance, .. } => self.created(*instance),
            RuntimeEvent::Started { instance, at, .. } => self.started(*instance, at.mono),
            RuntimeEvent::StartFailed { instance, error, message, at } => {
                self.start_failed(*instance, *error, message, at.mono);
            }
            RuntimeEvent::Exited { instance, status, at, .. } => {
                let newest = self.container(*instance).and_then(|it| it.newest.as_mut());
                let Some(run) = newest.filter(|run| run.instance == *instance && run.is_running()) else {
                    self.counts.stale += 1;
                    return;
                };
                run.ended = Some((at.mono, status.exit_code()));
                self.ended_now.insert(*instance);
                self.set_attempt(*instance, Attempt::Ended);
            }
            RuntimeEvent::Gone { instance, .. } => self.gone(now, *instance),
            RuntimeEvent::ChildOomKilled { instance, at, .. } => self.child_oom(*instance, at.mono),
            RuntimeEvent::ExecDone { ticket, result, .. } => self.exec_done(now, executor, *ticket, result),
        }
    }

    fn set_attempt(&mut self, instance: InstanceId, state: Attempt) {
        if let Some(container) = self.container(instance) {
            container.attempt = Some((instance, state));
        }
        self.touched.insert(instance.pod);
    }

    fn created(&mut self, instance: InstanceId) {
        let Some(pod) = self.pods.get(&instance.pod) else { return };
        let spec: Arc<PodSpec> = Arc::clone(&pod.spec);
        let policy = spec.restart_policy;
        let Some(container) = self.container(instance) else { return };
        let is_known = container.newest.as_ref().is_some_and(|run| run.instance == instance);
        if container.attempt != Some((instance, Attempt::Sent)) || is_known {
            self.counts.stale += 1;
            return;
        }
        let spec = &spec.containers[instance.container.at()];
        let run = Run { instance, spec_hash: container.sent_hash, started_at: None, ended: None };
        let before = container.newest.replace(run);
        container.previous_ended = before.and_then(|run| run.ended).map(|(at, _)| at);
        container.refused = None;
        container.last_child_oom = None;
        let ends_with_instance = policy == RestartPolicy::Never && spec.role == Role::Regular;
        for probe in container.probes.iter_mut().flatten() {
            if ends_with_instance {
                *probe = ProbeBook::new(probe.kind);
            }
            probe.bind();
        }
        self.expect_event(instance, Reason::Created, format!("Created container {}", spec.name));
    }

    fn started(&mut self, instance: InstanceId, at: Mono) {
        let is_deleted = self.pods.get(&instance.pod).is_some_and(|pod| pod.deletion.is_some());
        let Some(container) = self.container(instance) else { return };
        let is_sent = container.attempt == Some((instance, Attempt::Sent));
        let Some(run) = container.newest.as_mut().filter(|run| run.instance == instance && is_sent) else {
            self.counts.stale += 1;
            return;
        };
        run.started_at = Some(at);
        if container.probes[ProbeKind::Startup as usize].is_none() {
            container.passed = true;
        }
        if is_deleted {
            container.stop_workers();
        }
        self.set_attempt(instance, Attempt::Running);
        let name = self.name(instance);
        self.expect_event(instance, Reason::Started, format!("Started container {name}"));
    }

    fn start_failed(&mut self, instance: InstanceId, error: StartError, message: &str, at: Mono) {
        let Some(container) = self.container(instance) else { return };
        if container.attempt != Some((instance, Attempt::Sent)) {
            self.counts.stale += 1;
            return;
        }
        match error {
            StartError::Run => {
                if let Some(run) = container.newest.as_mut().filter(|run| run.instance == instance) {
                    run.ended = Some((at, 128));
                }
            }
            StartError::Config | StartError::Create => container.failed_at = Some(at),
        }
        self.set_attempt(instance, Attempt::Ended);
        self.expect_event(instance, Reason::Failed, format!("Error: {message}"));
    }

    fn child_oom(&mut self, instance: InstanceId, at: Mono) {
        let Some(pod) = self.pods.get_mut(&instance.pod) else { return };
        let ix = instance.container.at();
        let container = &mut pod.containers[ix];
        let is_new = container.last_child_oom.is_none_or(|last| at > last);
        if container.running() != Some(instance) || !is_new {
            self.counts.stale += 1;
            return;
        }
        container.last_child_oom = Some(at);
        let spec = Arc::clone(&pod.spec);
        let policy = spec.containers[ix].on_child_oom;
        let is_stopping = pod.deletion.is_some() || pod.stops_itself;
        for (other, (one, container)) in spec.containers.iter().zip(&mut pod.containers).enumerate() {
            let dies = match policy {
                ChildOomPolicy::Ignore | ChildOomPolicy::Event => false,
                ChildOomPolicy::RestartContainer => other == ix,
                ChildOomPolicy::RestartPod => true,
            };
            if dies && one.role != Role::Init && !is_stopping {
                container.dies_of_oom = container.running();
            }
        }
        self.counts.child_ooms += 1;
        if policy != ChildOomPolicy::Ignore {
            let name = self.name(instance);
            let why = "memory limit of the container was reached";
            let text = format!("A process of container {name} was killed for memory; {why}");
            self.expect_event(instance, Reason::ChildOomKilled, text);
        }
    }

    fn gone(&mut self, now: Mono, instance: InstanceId) {
        let Some(container) = self.container(instance) else { return };
        if container.attempt != Some((instance, Attempt::Ended)) {
            self.counts.stale += 1;
            return;
        }
        container.attempt = None;
        container.idle_since = now;
        self.touched.insert(instance.pod);
    }

    fn exec_done(&mut self, now: Mono, executor: u16, ticket: Ticket, result: &ExecResult) {
        let asked = self.asked.remove(&(executor, ticket));
        let Some(Asked::Probe { key, generation, instance, attempt }) = asked else { return };
        let Some(owner) = self.keys.get(&key).copied() else { return };
        let armed = self.probe(owner).and_then(|probe| {
            let armed = probe.armed.filter(|armed| armed.generation == generation)?;
            (probe.exec_attempt.take() == Some(attempt)).then_some(armed)
        });
        if armed.is_none() {
            self.counts.stale += 1;
            return;
        }
        let erred = matches!(result, ExecResult::Failed { .. });
        let runs = self.container(instance).and_then(|it| it.running()) == Some(instance);
        if erred && attempt < PROBE_ATTEMPTS && runs {
            let attempt = attempt + 1;
            self.to_ask.push_back(Asked::Probe { key, generation, instance, attempt });
            if let Some(probe) = self.probe(owner) {
                probe.exec_attempt = Some(attempt);
            }
            return;
        }
        self.exec_ended.push((key, generation));
        self.exec_outcome(now, owner, generation, result);
    }

    /// What an exec run came to (kubelet-semantics 6).
    fn exec_outcome(&mut self, now: Mono, owner: Owner, generation: u32, result: &ExecResult) {
        let Some(instance) = self.is_current(owner, generation) else { return };
        let spec = self.probe_spec(owner);
        let kind = owner.kind.as_str();
        let (passed, text) = match result {
            ExecResult::Exited { status, .. } if status.exit_code() == 0 => (Some(true), None),
            ExecResult::Exited { output, .. } => {
                (Some(false), Some(format!("{kind} probe failed: {output}")))
            }
            ExecResult::TimedOut => {
                let command = format!("\"check srv {kind}\"");
                let timeout_s = spec.timeout.as_secs();
                let text =
                    format!("{kind} probe failed: command timed out: {command} timed out after {timeout_s}s");
                (Some(false), Some(text))
            }
            ExecResult::Failed { error, .. } => {
                (None, Some(format!("{kind} probe errored and resulted in unknown state: {error}")))
            }
        };
        if let Some(text) = text {
            self.expected.push((owner.pod, owner.container, Reason::Unhealthy, text));
        }
        self.counts.runs += 1;
        self.counts.failures += u64::from(passed == Some(false));
        if let (Some(probe), Some(passed)) = (self.probe(owner), passed) {
            probe.count(passed, 1, &spec, now);
            if owner.kind == ProbeKind::Startup && passed {
                self.container(instance).into_iter().for_each(|it| it.passed = true);
            }
        }
        self.touched.insert(owner.pod);
    }

    fn expect_event(&mut self, instance: InstanceId, reason: Reason, text: String) {
        self.expected.push((instance.pod, instance.container.at(), reason, text));
        self.touched.insert(instance.pod);
    }

    pub(super) fn name(&self, instance: InstanceId) -> Box<str> {
        self.pods[&instance.pod].spec.containers[instance.container.at()].name.clone()
    }
}
