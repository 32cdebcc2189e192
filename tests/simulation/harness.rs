//! One seed: two executors, two engines on twins of the ring, one runtime, and virtual time that jumps from one
//! thing that happens to the next.

use std::sync::Arc;
use std::time::Duration;

use probe_core::decide::backoff::BackoffParams;
use probe_core::engine;
use probe_core::executor::{self, Input, Output, PodCmd, ShardConfig};
use probe_core::model::event::Reason;
use probe_core::model::id::{ContainerIx, PodUid, ProbeKey, Ticket};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::{Handler, ProbeCmd, ProbeEvent, ProbeKind};
use probe_core::model::runtime::{RuntimeCmd, RuntimeEvent};
use probe_core::model::time::Mono;
use probe_core::ring::twin::{Faults, Rng, Twin, World};

use super::agenda::{Agenda, Pipe};
use super::engine_watch::EngineWatch;
use super::observer::{Counts, Observer, SCAN_EVERY};
use super::plan::{DAY, Errand, Plan, PodPlan, Weather};
use super::runtime::{POD_IP, Runtime, moment};
use super::trace::{Mode, Trace};

const SHARDS: usize = 2;
/// Slots per engine.
const SLOTS: u32 = 48;
/// Time for everything to end after the last pod was deleted: an HTTP hook whose packets are lost has ten minutes.
const EVENING: Duration = Duration::from_secs(700);
const EXECUTOR_SHIFT: u32 = 48;

/// What a seed came to.
#[derive(Copy, Clone, Debug)]
pub struct Report {
    pub hash: u64,
    pub messages: u64,
    pub virtual_time: Mono,
    pub counts: Counts,
}

/// Runs one seed from the first pod to the last one's end. Panics when a rule is broken.
pub fn run(seed: u64, mode: Mode) -> Report {
    let mut sim = Simulation::new(seed, mode);
    let morning = Mono::ZERO.after(DAY);
    while sim.now < morning {
        sim.step(morning);
    }
    sim.delete_all();
    let night = morning.after(EVENING);
    while sim.now < night && !sim.is_over() {
        sim.step(night);
    }
    sim.assert_empty();
    Report {
        hash: sim.trace.hash(),
        messages: sim.trace.messages,
        virtual_time: sim.now,
        counts: sim.observer.counts,
    }
}

struct Simulation {
    now: Mono,
    weather: Weather,
    rng: Rng,
    pods: Vec<Arc<PodPlan>>,
    errands: Agenda<Errand>,
    runtime: Runtime,
    observer: Observer,
    trace: Trace,
    executors: Vec<Executor>,
    engines: Vec<Engine>,
    scanned: Mono,
    next_question: u64,
}

/// An executor thread with its inbox.
struct Executor {
    shard: executor::Shard,
    people: Pipe<Input>,
    from_engines: Vec<Pipe<Input>>,
    from_runtime: Pipe<Input>,
    /// Exec results and second copies come on ways of their own, late.
    strays: Agenda<Input>,
    to_runtime: Pipe<RuntimeCmd>,
    wake: Mono,
    stalled_until: Mono,
}

struct Engine {
    shard: engine::Shard<Twin>,
    watch: EngineWatch,
    from_executors: Vec<Pipe<ProbeCmd>>,
    wake: Mono,
    stalled_until: Mono,
}

impl Simulation {
    fn new(seed: u64, mode: Mode) -> Simulation {
        let plan = Plan::new(seed);
        let world = World::new();
        let pods: Vec<Arc<PodPlan>> = plan.pods.into_iter().map(Arc::new).collect();
        let mut runtime = Runtime::new(world.clone(), seed);
        let mut observer = Observer::new(plan.weather.clone());
        for pod in &pods {
            runtime.know(Arc::clone(pod));
            observer.plans.insert(pod.spec.uid, Arc::clone(pod));
        }
        let mut errands = Agenda::new();
        for (at, errand) in plan.errands {
            errands.push(at, errand);
        }
        Simulation {
            now: Mono::ZERO,
            rng: Rng::new(seed ^ 0x0a11),
            pods,
            errands,
            runtime,
            observer,
            trace: Trace::new(mode),
            executors: (0..SHARDS).map(|shard| Executor::new(shard, seed)).collect(),
            engines: (0..SHARDS).map(|shard| Engine::new(shard, seed, &plan.weather, &world)).collect(),
            weather: plan.weather,
            scanned: Mono::ZERO,
            next_question: 0,
        }
    }

    fn step(&mut self, until: Mono) {
        let next = self.next_event().max(self.now.after(self.weather.quantum)).min(until);
        self.now = next;
        let now = self.now;
        while let Some((_, errand)) = self.errands.take_due(now) {
            self.run_errand(errand);
        }
        self.run_runtime();
        for shard in 0..SHARDS {
            self.run_engine(shard);
        }
        for shard in 0..SHARDS {
            self.run_executor(shard);
        }
        if now.since(self.scanned) >= SCAN_EVERY {
            self.scanned = now;
            self.observer.scan(now, &self.runtime);
        }
    }

    fn next_event(&self) -> Mono {
        let executors = self.executors.iter().map(Executor::next_at);
        let engines = self.engines.iter().map(Engine::next_at);
        let first = executors.chain(engines).min().unwrap_or(Mono::MAX);
        first.min(self.errands.next_at()).min(self.runtime.next_at()).min(self.scanned.after(SCAN_EVERY))
    }

    /// How long a message is on its way.
    fn delay(&mut self) -> Duration {
        if self.rng.chance(self.weather.spikes) {
            self.rng.duration_up_to(self.weather.spike_max)
        } else {
            self.rng.duration_up_to(self.weather.delay_max)
        }
    }

    fn tell(&mut self, pod: PodUid, cmd: PodCmd) {
        let delay = self.delay();
        self.executors[shard_of(pod)].people.send(self.now, delay, Input::Pod(cmd));
    }

    fn run_errand(&mut self, errand: Errand) {
        let now = self.now;
        match errand {
            Errand::Add { pod } => self.add(pod),
            Errand::AddAfter { pod, after } => {
                let is_gone = !self.observer.pods.contains_key(&self.pods[after].spec.uid);
                if is_gone { self.add(pod) } else { self.errands.push(now.after(SCAN_EVERY), errand) }
            }
            Errand::Delete { pod, grace_s } => {
                let pod = self.pods[pod].spec.uid;
                self.tell(pod, PodCmd::Delete { pod, grace_s });
            }
            Errand::Update { pod, spec } => {
                if self.observer.pods.get(&self.pods[pod].spec.uid).is_some_and(|it| it.deletion.is_none()) {
                    self.tell(spec.uid, PodCmd::Update(spec));
                }
            }
            Errand::Reject { pod } => {
                let spec = Arc::clone(&self.pods[pod].spec);
                let message = "Node didn't have enough resource: ports".into();
                self.tell(spec.uid, PodCmd::Reject { spec, reason: Reason::NodePorts.as_str(), message });
            }
            Errand::ProbeNow { pod, container, kind } => self.ask(pod, container, kind),
            Errand::StallExecutor { shard, lasts } => self.executors[shard].stalled_until = now.after(lasts),
            Errand::StallEngine { shard, lasts } => self.engines[shard].stalled_until = now.after(lasts),
        }
    }

    fn add(&mut self, pod: usize) {
        let spec: Arc<PodSpec> = Arc::clone(&self.pods[pod].spec);
        self.tell(spec.uid, PodCmd::Add(spec));
    }

    fn ask(&mut self, pod: usize, container: u16, kind: ProbeKind) {
        let spec = &self.pods[pod].spec;
        let Some(asked) = spec.containers.get(usize::from(container)) else { return };
        let is_exec = matches!(asked.probe(kind).map(|probe| &probe.handler), Some(Handler::Exec(_)));
        // While its hook runs a container does not count as running, which messages alone do not tell.
        if is_exec && asked.post_start.is_some() {
            return;
        }
        let ticket = Ticket(self.next_question);
        self.next_question += 1;
        let container = ContainerIx(container);
        self.tell(spec.uid, PodCmd::ProbeNow { pod: spec.uid, container, kind, ticket });
    }

    fn run_runtime(&mut self) {
        let now = self.now;
        for shard in 0..SHARDS {
            while let Some(command) = self.executors[shard].to_runtime.take_due(now) {
                self.runtime.command(now, command);
            }
        }
        self.runtime.advance(now);
        for (_, event) in std::mem::take(&mut self.runtime.reports) {
            self.report(event);
        }
    }

    /// Sends a runtime event on its way, sometimes twice.
    fn report(&mut self, event: RuntimeEvent) {
        let (pod, is_exec, may_repeat) = match &event {
            RuntimeEvent::Created { instance, .. }
            | RuntimeEvent::Started { instance, .. }
            | RuntimeEvent::Exited { instance, .. }
            | RuntimeEvent::ChildOomKilled { instance, .. } => (instance.pod, false, true),
            // A start that failed before anything was created leaves its instance's name to the next one, so
            // a late copy could not be told from the next one's.
            RuntimeEvent::StartFailed { instance, .. } | RuntimeEvent::Gone { instance, .. } => {
                (instance.pod, false, false)
            }
            RuntimeEvent::ExecDone { instance, .. } => (instance.pod, true, true),
        };
        let delay = self.delay();
        let shard = shard_of(pod);
        let copy = (may_repeat && self.rng.chance(self.weather.duplicates)).then(|| event.clone());
        let executor = &mut self.executors[shard];
        let arrives = if is_exec {
            let at = self.now.after(delay);
            executor.strays.push(at, Input::Runtime(event));
            at
        } else {
            executor.from_runtime.send(self.now, delay, Input::Runtime(event))
        };
        if let Some(copy) = copy {
            let late = self.rng.duration_up_to(Duration::from_secs(30));
            executor.strays.push(arrives.after(late), Input::Runtime(copy));
        }
    }

    fn run_engine(&mut self, at: usize) {
        let now = self.now;
        let engine = &mut self.engines[at];
        if engine.next_at() > now {
            return;
        }
        let mut inputs = Vec::new();
        engine.watch.begin_turn(engine.due_at(), now);
        for pipe in &mut engine.from_executors {
            while let Some(cmd) = pipe.take_due(now) {
                engine.watch.input(&cmd);
                inputs.push(cmd);
            }
        }
        let mut events = Vec::new();
        engine.wake = engine.shard.turn(moment(now), &mut inputs, &mut events);
        for event in events {
            self.engines[at].watch.output(now, &event);
            self.carry_event(at, event);
        }
    }

    fn carry_event(&mut self, engine: usize, event: ProbeEvent) {
        let delay = self.delay();
        let (executor, event) = match event {
            ProbeEvent::OnceDone { ticket, outcome } => {
                let executor = (ticket.0 >> EXECUTOR_SHIFT) as usize;
                let ticket = Ticket(ticket.0 & ((1 << EXECUTOR_SHIFT) - 1));
                (executor, ProbeEvent::OnceDone { ticket, outcome })
            }
            ProbeEvent::Outcome(outcome) => {
                (usize::from(outcome.probe.executor), ProbeEvent::Outcome(outcome))
            }
            ProbeEvent::ExecDue { probe, .. } => (usize::from(probe.executor), event),
            ProbeEvent::Resolve { .. } | ProbeEvent::CallDue { .. } | ProbeEvent::CallCut { .. } => return,
        };
        self.executors[executor].from_engines[engine].send(self.now, delay, Input::Probe(event));
    }

    fn run_executor(&mut self, at: usize) {
        let now = self.now;
        if self.executors[at].next_at() > now {
            return;
        }
        let mut inputs = self.executors[at].take_inputs(now);
        for input in &inputs {
            self.trace.input(now, at, input);
            self.observer.input(now, at as u16, input, &self.runtime);
        }
        let mut outputs = Vec::new();
        let executor = &mut self.executors[at];
        executor.wake = executor.shard.turn(moment(now), &mut inputs, &mut outputs);
        for output in &outputs {
            self.trace.output(now, at, output);
        }
        self.observer.outputs(now, at as u16, &outputs);
        for output in outputs {
            self.carry_output(at, output);
        }
    }

    fn carry_output(&mut self, executor: usize, output: Output) {
        match output {
            Output::Probe(cmd) => {
                let delay = self.delay();
                let (engine, cmd) = address(executor, cmd);
                self.engines[engine].from_executors[executor].send(self.now, delay, cmd);
            }
            Output::Runtime(cmd) => {
                let delay = self.delay();
                self.executors[executor].to_runtime.send(self.now, delay, cmd);
            }
            Output::Event(_) | Output::Status(_) | Output::PodGone(_) | Output::ProbeNowDone { .. } => {}
        }
    }

    /// The end of the day: every pod is deleted, and nothing stands in the way any more.
    fn delete_all(&mut self) {
        self.errands = Agenda::new();
        for engine in &mut self.engines {
            engine.shard.ring_mut().set_faults(Faults::none());
        }
        self.weather.duplicates = 0;
        self.runtime.release_all(self.now);
        for at in 0..self.pods.len() {
            let pod = self.pods[at].spec.uid;
            self.tell(pod, PodCmd::Delete { pod, grace_s: None });
        }
    }

    /// Every pod is gone, and the last messages have arrived.
    fn is_over(&self) -> bool {
        let is_quiet = |executor: &Executor| {
            executor.strays.next_at() == Mono::MAX
                && executor.people.next_at() == Mono::MAX
                && executor.to_runtime.next_at() == Mono::MAX
                && executor.from_runtime.next_at() == Mono::MAX
                && executor.from_engines.iter().all(|pipe| pipe.next_at() == Mono::MAX)
                && executor.shard.counters().pods == 0
                && executor.shard.counters().open_questions == 0
        };
        self.executors.iter().all(is_quiet)
            && self.engines.iter().all(|engine| {
                engine.from_executors.iter().all(|pipe| pipe.next_at() == Mono::MAX) && engine.shard.is_idle()
            })
            && self.runtime.instances() == 0
    }

    /// Nothing is left of anything.
    fn assert_empty(&self) {
        self.observer.assert_quiet();
        assert_eq!(self.runtime.instances(), 0, "instances are left in the runtime");
        for executor in &self.executors {
            let counters = executor.shard.counters();
            let left = (counters.pods, counters.probes, counters.open_questions);
            assert_eq!(left, (0, 0, 0), "pods, probes and questions left in an executor");
        }
        for engine in &self.engines {
            let stats = engine.shard.stats();
            let left = (stats.armed, stats.in_flight, stats.waiting, stats.timers);
            assert_eq!(left, (0, 0, 0, 0), "probes, runs, waiting runs and timers left in an engine");
            assert_eq!(engine.shard.ring().in_flight_total(), 0, "operations in flight are left");
            assert_eq!(stats.counters.stale_completions, 0, "completions of a slot that had moved on");
        }
    }
}

impl Executor {
    fn new(shard: usize, seed: u64) -> Executor {
        let config = ShardConfig {
            executor: shard as u16,
            pod_ip: POD_IP,
            backoff: BackoffParams::STANDARD,
            id_seed: [seed, shard as u64, 1, 2],
        };
        Executor {
            shard: executor::Shard::new(config),
            people: Pipe::new(),
            from_engines: (0..SHARDS).map(|_| Pipe::new()).collect(),
            from_runtime: Pipe::new(),
            strays: Agenda::new(),
            to_runtime: Pipe::new(),
            wake: Mono::MAX,
            stalled_until: Mono::ZERO,
        }
    }

    /// When something happens here, or because of it.
    fn next_at(&self) -> Mono {
        let engines = self.from_engines.iter().map(Pipe::next_at).min().unwrap_or(Mono::MAX);
        let own = self.people.next_at().min(engines).min(self.from_runtime.next_at());
        own.min(self.strays.next_at()).min(self.wake).max(self.stalled_until).min(self.to_runtime.next_at())
    }

    fn take_inputs(&mut self, now: Mono) -> Vec<Input> {
        let mut inputs = Vec::new();
        while let Some(input) = self.people.take_due(now) {
            inputs.push(input);
        }
        for pipe in &mut self.from_engines {
            while let Some(input) = pipe.take_due(now) {
                inputs.push(input);
            }
        }
        while let Some(input) = self.from_runtime.take_due(now) {
            inputs.push(input);
        }
        while let Some((_, input)) = self.strays.take_due(now) {
            inputs.push(input);
        }
        inputs
    }
}

impl Engine {
    fn new(shard: usize, seed: u64, weather: &Weather, world: &World) -> Engine {
        let twin = Twin::new(SLOTS, world.clone(), weather.faults.clone(), seed ^ (shard as u64 + 7) << 40);
        Engine {
            shard: engine::Shard::new(twin),
            watch: EngineWatch::default(),
            from_executors: (0..SHARDS).map(|_| Pipe::new()).collect(),
            wake: Mono::MAX,
            stalled_until: Mono::ZERO,
        }
    }

    fn next_at(&self) -> Mono {
        self.due_at().max(self.stalled_until)
    }

    /// When it has something to do.
    fn due_at(&self) -> Mono {
        let commands = self.from_executors.iter().map(Pipe::next_at).min().unwrap_or(Mono::MAX);
        commands.min(self.wake).min(self.shard.ring().next_event())
    }
}

fn shard_of(pod: PodUid) -> usize {
    (pod.0 % SHARDS as u128) as usize
}

/// The engine of a command. Tickets are made unique over all executors on the way.
fn address(executor: usize, cmd: ProbeCmd) -> (usize, ProbeCmd) {
    let of = |key: ProbeKey| (key.index as usize + usize::from(key.executor)) % SHARDS;
    let engine = match &cmd {
        ProbeCmd::Arm(arm) => of(arm.probe),
        ProbeCmd::Hold { probe, .. }
        | ProbeCmd::Trigger { probe, .. }
        | ProbeCmd::Drop { probe }
        | ProbeCmd::ExecDone { probe, .. } => of(*probe),
        ProbeCmd::Once { ticket, .. }
        | ProbeCmd::CutOnce { ticket }
        | ProbeCmd::Resolving { ticket }
        | ProbeCmd::Resolved { ticket, .. } => ticket.0 as usize % SHARDS,
        ProbeCmd::CallDone { .. } => unreachable!("no pod of the simulation has a gRPC probe"),
    };
    match cmd {
        ProbeCmd::Once { ticket, target, timeout } => {
            let ticket = Ticket((executor as u64) << EXECUTOR_SHIFT | ticket.0);
            (engine, ProbeCmd::Once { ticket, target, timeout })
        }
        ProbeCmd::CutOnce { ticket } => {
            let ticket = Ticket((executor as u64) << EXECUTOR_SHIFT | ticket.0);
            (engine, ProbeCmd::CutOnce { ticket })
        }
        other => (engine, other),
    }
}
