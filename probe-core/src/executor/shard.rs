//! The shard: one turn takes the inputs that have come, touches the pods they are about, and syncs each of
//! those once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::{Context, ExecAnswer, Question, ShardConfig};
use super::msg::{Input, Output, PodCmd};
use super::pod::{Effect, Pod, PodStop, Rejected};
use super::probes::ProbeSlot;
use super::sync::Synced;
use crate::decide::worker;
use crate::model::event::Reason;
use crate::model::id::PodUid;
#[cfg(test)]
use crate::model::id::{ContainerIx, ProbeKey};
use crate::model::pod::PodSpec;
#[cfg(test)]
use crate::model::probe::ProbeKind;
use crate::model::probe::{ProbeCmd, ProbeEvent, RunResult};
use crate::model::runtime::RuntimeEvent;
use crate::model::status::Deletion;
use crate::model::time::{Mono, Now, Wall};

const NS_PER_S: i64 = 1_000_000_000;

/// All pods whose uid hashes here. The only writer of their state.
pub struct Shard {
    pods: HashMap<PodUid, Pod>,
    context: Context,
    touched: Vec<PodUid>,
    stale: u64,
}

/// What one input did.
enum Took {
    /// The pod needs a sync.
    Changed(PodUid),
    Nothing,
    /// It was about something that is not current any more.
    Stale,
}

/// What a shard holds: all of it returns to zero when its pods are gone, but for `stale_inputs`.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub pods: usize,
    pub probes: usize,
    /// Exec runs and one-shot requests that were not answered yet.
    pub open_questions: usize,
    /// Inputs about an instance, a probe or a pod that is not current any more. They changed nothing.
    pub stale_inputs: u64,
}

impl Shard {
    /// A shard without pods.
    pub fn new(config: ShardConfig) -> Shard {
        Shard { pods: HashMap::new(), context: Context::new(config), touched: Vec::new(), stale: 0 }
    }

    /// Takes all `inputs` at time `now` and appends what is to be done to `out`. Returns when to call again
    /// if nothing comes before.
    pub fn turn(&mut self, now: Now, inputs: &mut Vec<Input>, out: &mut Vec<Output>) -> Mono {
        self.context.now = now;
        for input in inputs.drain(..) {
            match self.take(input) {
                Took::Changed(pod) => self.touched.push(pod),
                Took::Nothing => {}
                Took::Stale => self.stale += 1,
            }
        }
        while let Some(pod) = self.context.take_due() {
            self.touched.push(pod);
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        for uid in std::mem::take(&mut self.touched) {
            if let Some(pod) = self.pods.get_mut(&uid)
                && pod.sync(&mut self.context) == Synced::Gone
            {
                self.pods.remove(&uid);
            }
        }
        out.append(&mut self.context.out);
        self.context.next_wake()
    }

    /// What it holds now.
    pub fn counters(&self) -> Counters {
        Counters {
            pods: self.pods.len(),
            probes: self.context.probes.len(),
            open_questions: self.context.open_questions(),
            stale_inputs: self.stale,
        }
    }

    #[cfg(test)]
    pub(super) fn owner_of(&self, probe: ProbeKey) -> Option<(PodUid, ContainerIx, ProbeKind)> {
        self.context.probes.owner(probe)
    }

    fn take(&mut self, input: Input) -> Took {
        let taken = match input {
            Input::Pod(cmd) => self.take_pod_cmd(cmd),
            Input::Probe(event) => self.take_probe_event(event),
            Input::Runtime(event) => self.take_runtime_event(event),
        };
        taken.unwrap_or(Took::Stale)
    }

    fn take_pod_cmd(&mut self, cmd: PodCmd) -> Option<Took> {
        let context = &mut self.context;
        match cmd {
            PodCmd::Add(spec) => {
                let uid = spec.uid;
                self.pods.entry(uid).or_insert_with(|| Pod::new(spec, context));
                Some(Took::Changed(uid))
            }
            PodCmd::Reject { spec, reason, message } => {
                let uid = spec.uid;
                context.pod_event(&spec, None, Reason::NodePorts, message.to_string());
                let message = format!("Pod was rejected: {message}").into();
                let pod = self.pods.entry(uid).or_insert_with(|| Pod::new(spec, context));
                pod.rejected = Some(Rejected { reason, message });
                Some(Took::Changed(uid))
            }
            PodCmd::Update(spec) => {
                let uid = spec.uid;
                self.pods.get_mut(&uid)?.update(spec, context);
                Some(Took::Changed(uid))
            }
            PodCmd::Delete { pod, grace_s } => {
                self.pods.get_mut(&pod)?.delete(grace_s, context);
                Some(Took::Changed(pod))
            }
            PodCmd::ProbeNow { pod: uid, container, kind, ticket } => {
                let answer = match self.pods.get_mut(&uid) {
                    Some(pod) => pod.probe_now(container, kind, ticket, context),
                    None => Err("the pod is gone".into()),
                };
                if let Err(error) = answer {
                    context.out.push(Output::ProbeNowDone { ticket, result: Err(error) });
                }
                Some(Took::Nothing)
            }
            PodCmd::ForgetNow { ticket, .. } => {
                if let Some(ticket) = context.forget_now(ticket) {
                    context.out.push(Output::Probe(ProbeCmd::CutOnce { ticket }));
                }
                Some(Took::Nothing)
            }
        }
    }

    fn take_probe_event(&mut self, event: ProbeEvent) -> Option<Took> {
        match event {
            ProbeEvent::Outcome(outcome) => {
                let (uid, container, kind) = self.context.probes.owner(outcome.probe)?;
                let pod = self.pods.get_mut(&uid)?;
                Some(pod.on_outcome(container, kind, &outcome, &mut self.context).took(uid))
            }
            ProbeEvent::ExecDue { probe, generation, .. } => {
                let (uid, container, kind) = self.context.probes.owner(probe)?;
                let pod = self.pods.get_mut(&uid)?;
                Some(pod.on_exec_due(container, kind, generation, &mut self.context).took(uid))
            }
            ProbeEvent::OnceDone { ticket, outcome } => {
                let question = self.context.answered(ticket)?;
                self.once_done(&question, outcome)
            }
            // Name look-ups and gRPC calls are the business of whoever carries the engine's events.
            ProbeEvent::Resolve { .. } | ProbeEvent::CallDue { .. } | ProbeEvent::CallCut { .. } => {
                Some(Took::Nothing)
            }
        }
    }

    fn once_done(&mut self, question: &Question, run: RunResult) -> Option<Took> {
        let uid = question.instance().pod;
        match self.pods.get_mut(&uid) {
            Some(pod) => Some(pod.on_once_done(question, run, &mut self.context).took(uid)),
            None => self.refuse_late(question),
        }
    }

    fn take_runtime_event(&mut self, event: RuntimeEvent) -> Option<Took> {
        let context = &mut self.context;
        let (uid, changed) = match event {
            RuntimeEvent::Created { instance, .. } => {
                (instance.pod, self.pods.get_mut(&instance.pod)?.on_created(instance, context))
            }
            RuntimeEvent::Started { instance, pid, at } => {
                (instance.pod, self.pods.get_mut(&instance.pod)?.on_started(instance, pid, at, context))
            }
            RuntimeEvent::StartFailed { instance, error, message, at } => {
                let pod = self.pods.get_mut(&instance.pod)?;
                (instance.pod, pod.on_start_failed(instance, error, &message, at, context))
            }
            RuntimeEvent::Exited { instance, status, oom_killed, at } => {
                let pod = self.pods.get_mut(&instance.pod)?;
                (instance.pod, pod.on_exited(instance, status, oom_killed, at, context))
            }
            RuntimeEvent::ChildOomKilled { instance, facts, at } => {
                (instance.pod, self.pods.get_mut(&instance.pod)?.on_child_oom(instance, &facts, at, context))
            }
            RuntimeEvent::Gone { instance, termination_message } => {
                let pod = self.pods.get_mut(&instance.pod)?;
                (instance.pod, pod.on_gone(instance, termination_message, context))
            }
            RuntimeEvent::ExecDone { ticket, result, .. } => {
                let question = self.context.answered(ticket)?;
                return self.exec_done(&ExecAnswer { question, result });
            }
        };
        changed.then_some(Took::Changed(uid))
    }

    fn exec_done(&mut self, answer: &ExecAnswer) -> Option<Took> {
        let uid = answer.question.instance().pod;
        match self.pods.get_mut(&uid) {
            Some(pod) => {
                Some(pod.on_exec_done(&answer.question, &answer.result, &mut self.context).took(uid))
            }
            None => self.refuse_late(&answer.question),
        }
    }

    /// The pod went away while somebody waited for a run of its probe.
    fn refuse_late(&mut self, question: &Question) -> Option<Took> {
        if let Question::Now { reply_to, .. } = question {
            let result = Err("the pod is gone".into());
            self.context.out.push(Output::ProbeNowDone { ticket: *reply_to, result });
        }
        None
    }
}

impl Effect {
    fn took(self, pod: PodUid) -> Took {
        match self {
            Effect::Changed => Took::Changed(pod),
            Effect::Nothing => Took::Nothing,
            Effect::Stale => Took::Stale,
        }
    }
}

impl Pod {
    /// Design 9.5: metadata applies at once; a container whose spec changed gets new probes, and `decide`
    /// restarts it because its record carries the old hash.
    fn update(&mut self, spec: Arc<PodSpec>, context: &mut Context) {
        let before = std::mem::replace(&mut self.spec, Arc::clone(&spec));
        for (ix, kind) in worker::workers_of(&before) {
            let changed = spec.containers[ix.at()].spec_hash != before.containers[ix.at()].spec_hash;
            if changed && let Some(slot) = self.containers[ix.at()].probe_mut(kind) {
                slot.remove(context);
            }
        }
        for (at, container) in self.containers.iter_mut().enumerate() {
            if spec.containers[at].spec_hash != before.containers[at].spec_hash {
                container.probes.clear();
                container.not_before = None;
            }
        }
        for (ix, kind) in worker::workers_of(&spec) {
            if self.containers[ix.at()].probe(kind).is_none() {
                let slot = ProbeSlot::new(&spec, ix, kind, context);
                self.containers[ix.at()].add_probe(slot);
            }
        }
        self.has_new_manifest = true;
    }

    /// The first delete begins the stop; a later one can only shorten it.
    fn delete(&mut self, grace_s: Option<u32>, context: &mut Context) {
        let grace_s = grace_s.unwrap_or(self.spec.termination_grace_s);
        if self.deletion.is_some_and(|before| before.grace_s <= grace_s) {
            return;
        }
        let now = context.now;
        let at = Wall::from_ns(now.wall.as_ns() + i64::from(grace_s) * NS_PER_S);
        self.deletion = Some(Deletion { at, grace_s });
        if !self.is_finished() || !self.is_over() {
            self.shorten_kills(grace_s, context);
            let since = self.stop.map_or(now.mono, |stop| stop.since);
            self.stop = Some(PodStop { since });
            context.wake_at(now.mono.after(Duration::from_secs(u64::from(grace_s))), self.spec.uid);
        }
    }
}
