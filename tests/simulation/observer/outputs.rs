//! What comes out of an executor: every message is allowed by the books, or the seed ends.

use probe_core::executor::Output;
use probe_core::model::event::{PodEvent, Reason};
use probe_core::model::id::{PodUid, ProbeKey};
use probe_core::model::pod::{ContainerSpec, Role};
use probe_core::model::probe::{Arm, Handler, ProbeCmd, ProbeKind, Target};
use probe_core::model::runtime::{RuntimeCmd, StartRequest};
use probe_core::model::status::{ContainerState, PodSnapshot};
use probe_core::model::time::Mono;
use std::time::Duration;

use super::super::book::{ArmedBook, Attempt};
use super::super::pods::port_of;
use super::{Observer, Owner, broken};

/// A start that failed and left no record is tried again no sooner than this.
const FAILED_START_WAIT: Duration = Duration::from_secs(10);

impl Observer {
    pub fn outputs(&mut self, now: Mono, executor: u16, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Probe(cmd) => self.probe_cmd(now, cmd),
                Output::Runtime(cmd) => self.runtime_cmd(now, executor, cmd),
                Output::Event(event) => self.event(now, event),
                Output::Status(snapshot) => self.status(snapshot),
                Output::PodGone(pod) => self.pod_gone(*pod),
                Output::ProbeNowDone { ticket, .. } => {
                    if !self.questions.remove(ticket) {
                        broken("one answer to a question", format_args!("another one to {ticket:?}"));
                    }
                }
            }
        }
        self.after_turn(now, executor);
    }

    fn probe_cmd(&mut self, now: Mono, cmd: &ProbeCmd) {
        match cmd {
            ProbeCmd::Arm(arm) => self.arm(now, arm),
            ProbeCmd::Hold { probe, generation } => {
                self.current(*probe, *generation, "hold");
                self.disarm(*probe);
            }
            ProbeCmd::Trigger { probe, generation } => self.current(*probe, *generation, "trigger"),
            ProbeCmd::Drop { probe } => {
                self.disarm(*probe);
                self.keys.remove(probe);
            }
            ProbeCmd::ExecDone { probe, generation, .. } => {
                let found = self.exec_ended.iter().position(|ended| *ended == (*probe, *generation));
                match found {
                    Some(at) => {
                        self.exec_ended.swap_remove(at);
                    }
                    None => broken("an exec run ends once", format_args!("{probe:?} {generation} again")),
                }
            }
            ProbeCmd::Once { .. }
            | ProbeCmd::CutOnce { .. }
            | ProbeCmd::CallDone { .. }
            | ProbeCmd::Resolving { .. }
            | ProbeCmd::Resolved { .. } => {}
        }
    }

    fn disarm(&mut self, key: ProbeKey) {
        let owner = self.keys.get(&key).copied();
        if let Some(probe) = owner.and_then(|owner| self.probe(owner)) {
            probe.armed = None;
            probe.exec_attempt = None;
        }
    }

    fn current(&mut self, key: ProbeKey, generation: u32, what: &str) {
        if self.generations.get(&key) != Some(&generation) {
            broken("commands name the current generation", format_args!("{what} {key:?} {generation}"));
        }
    }

    fn arm(&mut self, now: Mono, arm: &Arm) {
        let pod = arm.instance.pod;
        let container = arm.instance.container.at();
        let before = self.generations.insert(arm.probe, arm.generation);
        if before.is_some_and(|before| before >= arm.generation) {
            broken("generations grow", format_args!("{:?} after {before:?}", arm.generation));
        }
        let spec = &self.pods[&pod].spec.containers[container];
        let Some(kind) = kind_of(spec, &arm.target) else {
            broken("a probe goes to its target", format_args!("{:?} for {:?}", arm.target, spec.name));
        };
        let owner = Owner { pod, container, kind };
        if *self.keys.entry(arm.probe).or_insert(owner) != owner {
            broken(
                "a key has one owner",
                format_args!("{:?} has {:?} and {owner:?}", arm.probe, self.keys[&arm.probe]),
            );
        }
        let probe = self.probe_spec_of(owner);
        let newest = self.container(arm.instance).and_then(|it| it.newest.clone());
        let Some(started_at) =
            newest.filter(|run| run.instance == arm.instance).and_then(|run| run.started_at)
        else {
            broken("probes belong to the running instance", format_args!("{:?} is armed", arm.instance));
        };
        let eligible = started_at.after(Duration::from_secs(probe.initial_delay_s.into()));
        let latest = eligible.max(now).after(probe.period);
        if arm.first_due < eligible || arm.first_due > latest {
            broken(
                "first probe between the initial delay and one period later",
                format_args!("{:?} first due {:?}, not in {eligible:?}..{latest:?}", owner, arm.first_due),
            );
        }
        if (arm.period, arm.timeout) != (probe.period, probe.timeout) {
            broken("period and timeout of the manifest", format_args!("{:?} for {probe:?}", arm.period));
        }
        let (generation, instance, first_due) = (arm.generation, arm.instance, arm.first_due);
        if let Some(probe) = self.probe(owner) {
            probe.armed = Some(ArmedBook { generation, instance, since: now, first_due });
            probe.exec_attempt = None;
        }
    }

    fn probe_spec_of(&self, owner: Owner) -> probe_core::model::probe::ProbeSpec {
        let spec = &self.pods[&owner.pod].spec.containers[owner.container];
        spec.probe(owner.kind).expect("its kind was found by its probe").clone()
    }

    fn runtime_cmd(&mut self, now: Mono, executor: u16, cmd: &RuntimeCmd) {
        match cmd {
            RuntimeCmd::Start(request) => self.start(now, request),
            RuntimeCmd::Stop { instance, grace } => self.stop(now, *instance, *grace),
            RuntimeCmd::Cleanup { instance } => {
                let attempt = self.container(*instance).and_then(|it| it.attempt);
                if attempt != Some((*instance, Attempt::Ended)) {
                    broken("clean-up follows the end", format_args!("{instance:?} is {attempt:?}"));
                }
            }
            RuntimeCmd::Exec { ticket, argv, .. } => {
                if &*argv[0] == "check" {
                    let Some(asked) = self.to_ask.pop_front() else {
                        broken("exec probes run when they are due", format_args!("{argv:?} was not due"));
                    };
                    self.asked.insert((executor, *ticket), asked);
                }
            }
            RuntimeCmd::ForgetPod { pod } => {
                let is_over = self.pods[pod].containers.iter().all(|container| container.attempt.is_none());
                if !is_over || self.pods[pod].deletion.is_none() {
                    broken("a pod is forgotten when it is over", pod);
                }
            }
        }
    }

    fn start(&mut self, now: Mono, request: &StartRequest) {
        let id = request.instance;
        let at = id.container.at();
        let Some(pod) = self.pods.get(&id.pod) else {
            broken("only known pods are started", format_args!("{id:?}"));
        };
        let spec = pod.spec.containers[at].clone();
        let container = &pod.containers[at];
        if let Some(attempt) = container.attempt {
            broken("never two instances", format_args!("{id:?} is started, and there is {attempt:?}"));
        }
        let changed = container.newest.as_ref().is_some_and(|run| run.spec_hash != spec.spec_hash);
        if !pod.wants(at) && container.restart.is_none() || pod.deletion.is_some() {
            broken("restart policy", format_args!("{id:?} is started after {:?}", container.newest));
        }
        if !pod.is_its_turn(at) {
            broken("order of containers", format_args!("{id:?} is started too early"));
        }
        let count = container.newest.as_ref().map_or(0, |run| run.instance.restart_count + 1);
        if id.restart_count != count {
            broken("restart count", format_args!("{id:?} is not number {count}"));
        }
        let early = |failed: Mono| now < failed.after(FAILED_START_WAIT) && !changed;
        if container.failed_at.is_some_and(early) {
            broken("a failed start waits", format_args!("{id:?}, failed at {:?}", container.failed_at));
        }
        self.counts.starts += 1;
        let Some(container) = self.container(id) else { return };
        if changed {
            container.waits = super::super::waits::Waits::NONE;
        }
        let prev = container.restart.take().unwrap_or_else(|| ended_at(container));
        if !container.waits.allows(now, prev) {
            broken("back-off", format_args!("{id:?} is started; {:?} after {prev:?}", container.waits));
        }
        container.waits.start(now, prev);
        container.failed_at = None;
        container.attempt = Some((id, Attempt::Sent));
        container.sent_hash = spec.spec_hash;
        if spec.role == Role::Regular {
            self.pods.get_mut(&id.pod).into_iter().for_each(|pod| pod.initialized = true);
        }
    }

    fn event(&mut self, now: Mono, event: &PodEvent) {
        let Some(pod) = self.pods.get(&event.pod) else {
            broken("events are about known pods", format_args!("{event:?}"));
        };
        let of = event.container.as_ref();
        let at = of.and_then(|(_, name)| pod.spec.containers.iter().position(|it| it.name == *name));
        let Some(at) = at else {
            if event.reason != Reason::NodePorts {
                broken("events name their container", format_args!("{event:?}"));
            }
            return;
        };
        match event.reason {
            Reason::Unhealthy
            | Reason::ProbeWarning
            | Reason::ProbeInconclusive
            | Reason::Created
            | Reason::Started
            | Reason::Failed
            | Reason::ChildOomKilled => {
                let same = |it: &(PodUid, usize, Reason, String)| {
                    (it.0, it.1, it.2, it.3.as_str()) == (event.pod, at, event.reason, &*event.message)
                };
                match self.expected.iter().position(same) {
                    Some(found) => {
                        self.expected.remove(found);
                    }
                    None => broken("an event has its cause", format_args!("{event:?}")),
                }
            }
            Reason::Killing => self.killing(now, event, at),
            Reason::BackOff => self.back_off(now, event, at),
            Reason::FailedPostStartHook => same_text(event, "PostStartHook failed"),
            Reason::FailedPreStopHook => same_text(event, "PreStopHook failed"),
            Reason::NodePorts => broken("NodePorts is about the pod", format_args!("{event:?}")),
        }
    }

    fn back_off(&mut self, now: Mono, event: &PodEvent, at: usize) {
        let pod = self.pods.get_mut(&event.pod).expect("looked up before");
        let name = &pod.spec.containers[at].name;
        let whole = format!("{}_{}({})", pod.spec.name, pod.spec.namespace, pod.spec.uid);
        same_text(event, &format!("Back-off restarting failed container {name} in pod {whole}"));
        let container = &mut pod.containers[at];
        let prev = container.restart.take().unwrap_or_else(|| ended_at(container));
        let Some(wait) = container.waits.wait(prev).filter(|_| !container.waits.allows(now, prev)) else {
            broken("back-off only while it lasts", format_args!("{event:?}: {:?}", container.waits));
        };
        container.refused = Some((now, wait));
        self.counts.refusals += 1;
    }

    fn status(&mut self, snapshot: &PodSnapshot) {
        let uid = snapshot.spec.uid;
        let Some(pod) = self.pods.get_mut(&uid) else {
            broken("status of known pods", uid);
        };
        if !self.shown.insert(uid) {
            broken("one status per turn", uid);
        }
        let before = pod.status.replace(snapshot.status.clone());
        for (at, status) in snapshot.status.containers.iter().enumerate() {
            let container = &pod.containers[at];
            let count = container.newest.as_ref().map_or(0, |run| run.instance.restart_count);
            if status.restart_count != count {
                broken(
                    "restart count shown",
                    format_args!("{uid} {at}: {} for {count}", status.restart_count),
                );
            }
            let sank = before.as_ref().is_some_and(|b| b.containers[at].restart_count > status.restart_count);
            if sank {
                broken("restart counts never sink", format_args!("{uid} {at}"));
            }
            let is_running = matches!(status.state, ContainerState::Running { .. });
            if is_running && container.running().is_none() {
                broken("running is what runs", format_args!("{uid} {at} is shown as {:?}", status.state));
            }
            // The workers of a finished pod have ended: what they last said of a sidecar that is still being
            // stopped depends in kubelet on when each of them looks.
            let is_leftover = is_running && pod.is_finished();
            if pod.spec.containers[at].role == Role::Init || pod.is_rejected || is_leftover {
                continue;
            }
            let has_readiness = container.probes[ProbeKind::Readiness as usize].is_some();
            let is_ready = is_running
                && container.is_started()
                && (!has_readiness || container.result(ProbeKind::Readiness) == Some(true));
            if status.ready != is_ready || status.started != (is_running && container.is_started()) {
                broken("ready and started", format_args!("{uid} {at}: {status:?}, by the books {is_ready}"));
            }
        }
    }

    fn pod_gone(&mut self, uid: PodUid) {
        let Some(pod) = self.pods.remove(&uid) else {
            broken("a pod is gone once", uid);
        };
        if pod.containers.iter().any(|container| container.attempt.is_some()) {
            broken("a pod is gone when nothing of it is left", uid);
        }
        if let Some((key, owner)) = self.keys.iter().find(|(_, owner)| owner.pod == uid) {
            broken("the probes of a pod go with it", format_args!("{key:?} of {owner:?}"));
        }
        self.touched.remove(&uid);
    }
}

/// When the newest instance ended, if it did.
fn ended_at(container: &super::ContainerBook) -> Option<Mono> {
    container.newest.as_ref().and_then(|run| run.ended).map(|(at, _)| at)
}

fn same_text(event: &PodEvent, text: &str) {
    if &*event.message != text {
        broken("event wording", format_args!("{:?}, not {text:?}", event.message));
    }
}

/// Which probe of the container goes to this target: each has a port of its own, and at most one is an exec.
fn kind_of(spec: &ContainerSpec, target: &Target) -> Option<ProbeKind> {
    ProbeKind::ALL.into_iter().find(|kind| match (spec.probe(*kind).map(|it| &it.handler), target) {
        (Some(Handler::HttpGet(_)), Target::Http(http)) => http.port == port_of(spec, *kind as usize),
        (Some(Handler::TcpSocket(_)), Target::Tcp(tcp)) => tcp.port == port_of(spec, *kind as usize),
        (Some(Handler::Exec(_)), Target::Exec) => true,
        _ => false,
    })
}
