//! The node of a script: a shard, virtual time, a runtime that follows a script, and the transcript.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Step;
use crate::decide::backoff::BackoffParams;
use crate::executor::{Input, Output, PodCmd, Shard, ShardConfig};
use crate::model::event::Reason;
use crate::model::id::{ContainerIx, InstanceId, ProbeKey, Ticket};
use crate::model::pod::{ContainerSpec, PodSpec, RestartPolicy, Role};
use crate::model::probe::{
    Arm, Outcome, Phases, ProbeCmd, ProbeEvent, ProbeKind, RunResult, Target, Verdict,
};
use crate::model::runtime::{ExitStatus, RuntimeCmd, RuntimeEvent, StartError, StartRequest};
use crate::model::status::{ContainerState, ContainerStatus, PodSnapshot, Terminated};
use crate::model::time::{Mono, Now, Wall};

pub use crate::decide::tests::world::{POD, container, probe, thresholds};

/// Most turns between two steps: more is a shard that never comes to rest.
const TURNS_MAX: u32 = 10_000;

/// What the runtime does with one instance. The last one of a container repeats.
#[derive(Copy, Clone, Debug)]
pub struct Run {
    pub start: Begin,
    pub exit: End,
    pub on_stop: OnStop,
    /// From the exit until nothing of it is left.
    pub cleanup_ms: u64,
}

#[derive(Copy, Clone, Debug)]
pub enum Begin {
    /// `Created` now, `Started` so much later.
    Starts { after_ms: u64 },
    /// Not even created.
    CreateFails,
    /// Created, not started.
    RunFails,
}

#[derive(Copy, Clone, Debug)]
pub enum End {
    Never,
    After { ms: u64, code: u8 },
}

#[derive(Copy, Clone, Debug)]
pub enum OnStop {
    Exits {
        after_ms: u64,
        code: u8,
    },
    /// Only SIGKILL at the end of the grace period ends it.
    Ignores,
    /// Nothing ends it.
    Unkillable,
}

impl Run {
    /// Runs for ever, ends at once when asked.
    pub const FOREVER: Run = Run {
        start: Begin::Starts { after_ms: 0 },
        exit: End::Never,
        on_stop: OnStop::Exits { after_ms: 0, code: 143 },
        cleanup_ms: 0,
    };

    pub const fn exits(ms: u64, code: u8) -> Run {
        Run { exit: End::After { ms, code }, ..Run::FOREVER }
    }

    pub const fn stops(after_ms: u64, code: u8) -> Run {
        Run { on_stop: OnStop::Exits { after_ms, code }, ..Run::FOREVER }
    }
}

/// An instance as the runtime knows it.
struct Live {
    run: Run,
    ended: bool,
    kill_at: Mono,
}

pub struct Node {
    id: &'static str,
    shard: Shard,
    time: Mono,
    next: Mono,
    inputs: Vec<Input>,
    spec: Arc<PodSpec>,
    runs: HashMap<usize, VecDeque<Run>>,
    live: HashMap<InstanceId, Live>,
    /// What the runtime will say, by time and then in order.
    coming: BTreeMap<(Mono, u64), RuntimeEvent>,
    sequence: u64,
    armed: HashMap<ProbeKey, Arm>,
    /// Those that an engine holds, held ones included: it counts their runs.
    counted: HashSet<ProbeKey>,
    keys: HashMap<(ContainerIx, ProbeKind), ProbeKey>,
    execs: VecDeque<(InstanceId, Ticket)>,
    onces: VecDeque<Ticket>,
    said: Vec<String>,
    status: Option<PodSnapshot>,
}

pub fn config() -> ShardConfig {
    ShardConfig {
        executor: 3,
        pod_ip: "127.0.0.1".parse().unwrap(),
        backoff: BackoffParams::STANDARD,
        id_seed: [1, 2, 3, 4],
    }
}

impl Node {
    pub fn new(id: &'static str, spec: PodSpec, runs: &[(usize, Vec<Run>)]) -> Node {
        Node {
            id,
            shard: Shard::new(config()),
            time: Mono::ZERO,
            next: Mono::MAX,
            inputs: Vec::new(),
            spec: Arc::new(spec),
            runs: runs.iter().map(|(at, runs)| (*at, runs.iter().copied().collect())).collect(),
            live: HashMap::new(),
            coming: BTreeMap::new(),
            sequence: 0,
            armed: HashMap::new(),
            counted: HashSet::new(),
            keys: HashMap::new(),
            execs: VecDeque::new(),
            onces: VecDeque::new(),
            said: Vec::new(),
            status: None,
        }
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Until(ms) => self.until(Mono::from_ns(ms * 1_000_000)),
            Step::Probe(at, kind, verdict, times) => {
                for _ in 0..times {
                    self.outcome(at, kind, verdict);
                }
            }
            Step::ExecDue(at, kind) => {
                let arm = self.arm_of(at, kind);
                let (probe, generation, instance) = (arm.probe, arm.generation, arm.instance);
                self.input(Input::Probe(ProbeEvent::ExecDue { probe, generation, instance }));
            }
            Step::ExecDone(result) => {
                let (instance, ticket) = self.execs.pop_front().expect("an exec run waits");
                self.input(Input::Runtime(RuntimeEvent::ExecDone { instance, ticket, result }));
            }
            Step::OnceDone(verdict, detail) => {
                let ticket = self.onces.pop_front().expect("a one-shot request waits");
                let outcome = RunResult { detail: Some(detail.into()), ..result(verdict) };
                self.input(Input::Probe(ProbeEvent::OnceDone { ticket, outcome }));
            }
            Step::Add(spec) => self.input(Input::Pod(PodCmd::Add(Arc::new(spec)))),
            Step::Update(spec) => self.input(Input::Pod(PodCmd::Update(Arc::new(spec)))),
            Step::Delete(grace_s) => self.input(Input::Pod(PodCmd::Delete { pod: POD, grace_s })),
            Step::Reject => {
                let (spec, message) = (Arc::clone(&self.spec), "no".into());
                self.input(Input::Pod(PodCmd::Reject { spec, reason: "NodePorts", message }));
            }
            Step::ProbeNow(at, kind) => {
                let ticket = Ticket(77);
                self.input(Input::Pod(PodCmd::ProbeNow { pod: POD, container: ix(at), kind, ticket }));
            }
            Step::ForgetNow => {
                self.input(Input::Pod(PodCmd::ForgetNow { pod: POD, ticket: Ticket(77) }));
            }
            Step::Exit(at, code) => self.exit(at, code),
            Step::Says(_)
            | Step::Shows(..)
            | Step::Phase(_)
            | Step::Holds(..)
            | Step::Stale(_)
            | Step::Armed(..)
            | Step::Counted(..) => self.look(&step),
        }
    }

    /// The steps that only compare.
    fn look(&mut self, step: &Step) {
        let id = self.id;
        match step {
            Step::Says(expected) => {
                let said = std::mem::take(&mut self.said);
                assert_eq!(said, *expected, "{id} at {:?}", self.time);
            }
            Step::Shows(at, expected) => {
                let status = &self.status.as_ref().expect("a status was published").status;
                assert_eq!(shown(&status.containers[*at]), *expected, "{id} at {:?}", self.time);
            }
            Step::Phase(expected) => {
                let status = &self.status.as_ref().expect("a status was published").status;
                assert_eq!(status.phase.as_str(), *expected, "{id} at {:?}", self.time);
            }
            Step::Holds(pods, probes, questions) => {
                let counters = self.shard.counters();
                let held = (counters.pods, counters.probes, counters.open_questions);
                assert_eq!(held, (*pods, *probes, *questions), "{id} at {:?}", self.time);
            }
            Step::Stale(expected) => {
                assert_eq!(self.shard.counters().stale_inputs, *expected, "{id} at {:?}", self.time);
            }
            Step::Armed(at, kind, expected) => {
                let key = self.keys.get(&(ix(*at), *kind));
                let ticks = key.is_some_and(|key| self.armed.contains_key(key));
                assert_eq!(ticks, *expected, "{id} at {:?}", self.time);
            }
            Step::Counted(at, kind, expected) => {
                let key = self.keys.get(&(ix(*at), *kind));
                let is_counted = key.is_some_and(|key| self.counted.contains(key));
                assert_eq!(is_counted, *expected, "{id} at {:?}", self.time);
            }
            other => self.take(other.clone()),
        }
    }

    /// The input and the exit of the running instance in one turn.
    pub fn input_with_exit(&mut self, input: Input, at: usize, code: u8) {
        self.inputs.push(input);
        self.exit(at, code);
    }

    /// Several inputs of one turn.
    pub fn together(&mut self, inputs: impl IntoIterator<Item = Input>) {
        self.inputs.extend(inputs);
        self.turn();
        self.until(self.time);
    }

    pub fn forget_said(&mut self) {
        self.said.clear();
    }

    pub fn said(&self) -> &[String] {
        &self.said
    }

    pub fn input(&mut self, input: Input) {
        self.inputs.push(input);
        self.turn();
        self.until(self.time);
    }

    /// The newest `Arm` of a probe, held since or not.
    pub fn arm_of(&self, at: usize, kind: ProbeKind) -> &Arm {
        let key = self.keys.get(&(ix(at), kind)).unwrap_or_else(|| panic!("{}: never armed", self.id));
        self.armed.get(key).unwrap_or_else(|| panic!("{}: {kind:?} of {at} is held", self.id))
    }

    pub fn outcome(&mut self, at: usize, kind: ProbeKind, verdict: Verdict) {
        let arm = self.arm_of(at, kind);
        let (probe, generation, instance) = (arm.probe, arm.generation, arm.instance);
        let result = RunResult { detail: Some("x".into()), ..result(verdict) };
        let outcome = Outcome { probe, generation, instance, folded_successes: 0, result };
        self.input(Input::Probe(ProbeEvent::Outcome(outcome)));
    }

    pub fn until(&mut self, end: Mono) {
        for _ in 0..TURNS_MAX {
            let coming = self.coming.first_key_value().map_or(Mono::MAX, |((at, _), _)| *at);
            let next = self.next.min(coming).max(self.time);
            if next > end {
                self.time = self.time.max(end);
                return;
            }
            self.time = next;
            while let Some(first) = self.coming.first_entry().filter(|entry| entry.key().0 <= next) {
                let event = first.remove();
                if self.happens(&event) {
                    self.inputs.push(Input::Runtime(event));
                }
            }
            self.turn();
        }
        panic!("{}: the shard never comes to rest at {:?}", self.id, self.time);
    }

    /// Of the exits that were planned for an instance only the first one happens.
    fn happens(&mut self, event: &RuntimeEvent) -> bool {
        let RuntimeEvent::Exited { instance, .. } = event else { return true };
        let live = self.live.get_mut(instance).expect("only what was started ends");
        !std::mem::replace(&mut live.ended, true)
    }

    fn turn(&mut self) {
        let mut out = Vec::new();
        self.next = self.shard.turn(self.now(), &mut self.inputs, &mut out);
        for output in out {
            self.carry(output);
        }
    }

    pub fn now(&self) -> Now {
        Now { mono: self.time, wall: Wall::from_ns(i64::try_from(self.time.as_ns()).unwrap()) }
    }

    fn say(&mut self, line: impl std::fmt::Display) {
        let ms = self.time.as_ns() / 1_000_000;
        self.said.push(format!("{}.{:03} {line}", ms / 1_000, ms % 1_000));
    }

    fn carry(&mut self, output: Output) {
        match output {
            Output::Probe(cmd) => self.carry_probe(cmd),
            Output::Runtime(cmd) => self.carry_runtime(cmd),
            // Every start has these two; they are looked at where it matters.
            Output::Event(event) if matches!(event.reason, Reason::Created | Reason::Started) => {}
            Output::Event(event) => self.say(format_args!("{} {}", event.reason.as_str(), event.message)),
            Output::Status(snapshot) => self.status = Some(*snapshot),
            Output::PodGone(_) => self.say("gone"),
            Output::ProbeNowDone { ticket, result } => {
                assert_eq!(ticket, Ticket(77));
                let answer = match result {
                    Ok(run) => format!("{:?} {}", run.verdict, run.detail.as_deref().unwrap_or("-")),
                    Err(error) => format!("refused: {error}"),
                };
                self.say(format_args!("probe now: {answer}"));
            }
        }
    }

    fn carry_probe(&mut self, cmd: ProbeCmd) {
        match cmd {
            ProbeCmd::Arm(arm) => {
                let (_, container, kind) =
                    self.shard.owner_of(arm.probe).expect("an armed probe has an owner");
                assert_eq!(container, arm.instance.container);
                self.keys.insert((container, kind), arm.probe);
                self.counted.insert(arm.probe);
                let generation = arm.generation;
                let before = self.armed.insert(arm.probe, *arm);
                assert!(before.is_none_or(|before| before.generation < generation), "{}", self.id);
            }
            ProbeCmd::Hold { probe, .. } => {
                self.armed.remove(&probe);
            }
            ProbeCmd::Drop { probe } => {
                self.armed.remove(&probe);
                self.counted.remove(&probe);
            }
            ProbeCmd::Once { ticket, target, .. } => {
                self.onces.push_back(ticket);
                self.say(format_args!("once {}", target_name(&target)));
            }
            ProbeCmd::CutOnce { .. } => self.say("once cut"),
            ProbeCmd::Trigger { .. } => {}
            ProbeCmd::ExecDone { .. } => self.say("exec probe ended"),
            ProbeCmd::Resolving { .. } | ProbeCmd::Resolved { .. } | ProbeCmd::CallDone { .. } => {
                unreachable!("an executor resolves and calls nothing")
            }
        }
    }
}

impl Node {
    fn carry_runtime(&mut self, cmd: RuntimeCmd) {
        match cmd {
            RuntimeCmd::Start(request) => self.start(&request),
            RuntimeCmd::Stop { instance, grace } => self.stop(instance, grace),
            RuntimeCmd::Cleanup { instance } => {
                let live = self.live.get(&instance).expect("only what was started is cleaned up");
                assert!(live.ended, "{}: cleanup of {instance:?}, which runs", self.id);
                let after_ms = live.run.cleanup_ms;
                self.coming_after(after_ms, RuntimeEvent::Gone { instance, termination_message: None });
            }
            RuntimeCmd::Exec { instance, ticket, argv, timeout } => {
                self.execs.push_back((instance, ticket));
                let timeout_s = timeout.map_or("-".to_owned(), |timeout| timeout.as_secs().to_string());
                let name = self.name(instance);
                self.say(format_args!("exec {name} [{}] timeout {timeout_s}", argv.join(" ")));
            }
            RuntimeCmd::ForgetPod { .. } => self.say("forget"),
        }
    }

    fn start(&mut self, request: &StartRequest) {
        let instance = request.instance;
        let queue = self.runs.entry(instance.container.at()).or_default();
        let run = if queue.len() > 1 { queue.pop_front() } else { queue.front().copied() };
        let run = run.unwrap_or(Run::FOREVER);
        let older = self.live.iter().filter(|(other, _)| other.container == instance.container);
        assert!(older.clone().all(|(_, live)| live.ended), "{}: two live instances", self.id);
        self.say(format_args!("start {}", self.name(instance)));
        let ended = !matches!(run.start, Begin::Starts { .. });
        self.live.insert(instance, Live { run, ended, kill_at: Mono::MAX });
        let at = self.now();
        let failed =
            |error, message: &str| RuntimeEvent::StartFailed { instance, error, message: message.into(), at };
        match run.start {
            Begin::CreateFails => self.coming_after(0, failed(StartError::Create, "no room")),
            Begin::RunFails => {
                self.coming_after(0, RuntimeEvent::Created { instance, at });
                self.coming_after(0, failed(StartError::Run, "no such file"));
            }
            Begin::Starts { after_ms } => {
                self.coming_after(after_ms / 2, RuntimeEvent::Created { instance, at });
                let at = self.after_ms(after_ms);
                self.coming_after(after_ms, RuntimeEvent::Started { instance, pid: 100, at });
                if let End::After { ms, code } = run.exit {
                    self.exit_after(instance, after_ms + ms, ExitStatus::Code(code));
                }
            }
        }
    }

    /// Instances of a container that were started so far.
    pub fn starts(&self, at: usize) -> u32 {
        let count = self.live.keys().filter(|instance| instance.container == ix(at)).count();
        u32::try_from(count).unwrap()
    }

    /// How the instance before ended, as it was published.
    pub fn last_state(&self, at: usize) -> Option<Terminated> {
        self.status.as_ref().expect("a status was published").status.containers[at].last_state.clone()
    }

    fn stop(&mut self, instance: InstanceId, grace: Duration) {
        self.say(format_args!("stop {} grace {}", self.name(instance), grace.as_secs()));
        let grace_ms = u64::try_from(grace.as_millis()).unwrap();
        let kill_at = self.time.after(grace);
        let Some(live) = self.live.get_mut(&instance).filter(|live| !live.ended) else { return };
        if live.kill_at <= kill_at {
            return;
        }
        live.kill_at = kill_at;
        let killed = ExitStatus::Signal { number: 9, core_dumped: false };
        match live.run.on_stop {
            OnStop::Exits { after_ms, code } if after_ms < grace_ms => {
                self.exit_after(instance, after_ms, ExitStatus::Code(code));
            }
            OnStop::Exits { .. } | OnStop::Ignores => self.exit_after(instance, grace_ms, killed),
            OnStop::Unkillable => {}
        }
    }

    fn running(&self, at: usize) -> InstanceId {
        let running = self.live.iter().find(|(other, live)| other.container == ix(at) && !live.ended);
        *running.expect("an instance runs").0
    }

    /// Its main process is killed by the kernel.
    pub fn kill_for_memory(&mut self, at: usize) {
        let (instance, status) = (self.running(at), ExitStatus::Signal { number: 9, core_dumped: false });
        let at = self.after_ms(0);
        self.coming_after(0, RuntimeEvent::Exited { instance, status, oom_killed: true, at });
        self.until(self.time);
    }

    /// Ends the running instance of a container now, also one that nothing else ends.
    fn exit(&mut self, at: usize, code: u8) {
        let instance = self.running(at);
        self.exit_after(instance, 0, ExitStatus::Code(code));
        self.until(self.time);
    }

    fn exit_after(&mut self, instance: InstanceId, ms: u64, status: ExitStatus) {
        let at = self.after_ms(ms);
        self.coming_after(ms, RuntimeEvent::Exited { instance, status, oom_killed: false, at });
    }

    fn coming_after(&mut self, ms: u64, event: RuntimeEvent) {
        self.sequence += 1;
        self.coming.insert((self.after_ms(ms).mono, self.sequence), event);
    }

    fn after_ms(&self, ms: u64) -> Now {
        let mono = self.time.after(Duration::from_millis(ms));
        Now { mono, wall: Wall::from_ns(i64::try_from(mono.as_ns()).unwrap()) }
    }

    fn name(&self, instance: InstanceId) -> String {
        let spec = &self.spec.containers[instance.container.at()];
        format!("{}.{}", spec.name, instance.restart_count)
    }
}

fn result(verdict: Verdict) -> RunResult {
    RunResult { verdict, detail: None, phases: Phases::default() }
}

fn ix(at: usize) -> ContainerIx {
    ContainerIx(u16::try_from(at).unwrap())
}

fn target_name(target: &Target) -> String {
    match target {
        Target::Http(http) => http.url.to_string(),
        Target::Tcp(tcp) => format!("tcp port {}", tcp.port),
        Target::Grpc(grpc) => format!("grpc {} {:?}", grpc.addr, grpc.service),
        Target::Exec | Target::Broken { .. } => format!("{target:?}"),
    }
}

/// State, readiness, restarts and last state in one line.
fn shown(status: &ContainerStatus) -> String {
    let ended = |end: &Terminated| format!("{} {}", end.reason, end.exit_code);
    let state = match &status.state {
        ContainerState::Waiting { reason, message } => match message {
            Some(message) => format!("waiting {reason}: {message}"),
            None => format!("waiting {reason}"),
        },
        ContainerState::Running { .. } => "running".to_owned(),
        ContainerState::Terminated(end) => format!("terminated {}", ended(end)),
    };
    let ready = if status.ready { ", ready" } else { "" };
    let last = status.last_state.as_ref().map_or(String::new(), |end| format!(", last {}", ended(end)));
    format!("{state}{ready}, restarts {}{last}", status.restart_count)
}

/// A pod with one container `c`.
pub fn one(policy: RestartPolicy, change: impl FnOnce(&mut ContainerSpec)) -> PodSpec {
    let mut spec = container("c", Role::Regular);
    change(&mut spec);
    pod(policy, vec![spec])
}

pub fn pod(policy: RestartPolicy, containers: Vec<ContainerSpec>) -> PodSpec {
    crate::decide::tests::world::pod(policy, containers)
}
