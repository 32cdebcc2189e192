//! The simulated container runtime behind the port of `probe_core::model::runtime`: instances start late or
//! not at all, end by themselves, ignore signals, survive SIGKILL, and leave slowly. It knows the truth, so it
//! checks what no observer of messages can: never two live instances of one container.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use probe_core::model::id::{ContainerIx, InstanceId, PodUid, Ticket};
use probe_core::model::pod::ContainerSpec;
use probe_core::model::probe::{Handler, ProbeKind};
use probe_core::model::runtime::{
    Blame, ExecResult, ExitStatus, OomFacts, OomLimit, RuntimeCmd, RuntimeEvent, StartError, StartRequest,
};
use probe_core::model::time::{Mono, Now};
use probe_core::ring::twin::{Behaviour, Rng, Twin, World};

use super::agenda::Agenda;
use super::health::{self, Health};
use super::plan::{Life, Nature, PodPlan, Term};
use super::pods::{POST_START_PORT, PRE_STOP_PORT, WHO, port_of};

pub const POD_IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// So many starts of restless pods in a thousand lose a child to the OOM killer, within this time.
const CHILD_OOM_PER_MILLE: u16 = 60;
const CHILD_OOM_WITHIN: Duration = Duration::from_secs(30);
const SIGKILL: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };

pub struct Runtime {
    rng: Rng,
    world: World,
    pods: BTreeMap<PodUid, Arc<PodPlan>>,
    instances: BTreeMap<InstanceId, Instance>,
    agenda: Agenda<Todo>,
    /// What is to be told to the executors, and when it happened.
    pub reports: Vec<(Mono, RuntimeEvent)>,
    /// The end of the simulation: whatever cannot be killed now can.
    releases_all: bool,
    pub starts: u64,
}

/// One instance, until nothing of it is left.
pub struct Instance {
    pub stage: Stage,
    stop_by: Option<Mono>,
    execs: Vec<Ticket>,
    /// What the server behind each probe does, and since when.
    pub health: [(Health, Mono); 3],
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    Starting,
    Running,
    /// Ended or never started; something may be left.
    Ended,
}

enum Todo {
    Create(InstanceId),
    Run(InstanceId),
    Fail(InstanceId, StartError),
    Exit(InstanceId, ExitStatus),
    /// The grace period of this stop is over.
    Kill {
        instance: InstanceId,
        by: Mono,
    },
    Gone(InstanceId),
    /// A child of the main process is killed for memory.
    ChildOom(InstanceId),
    Exec {
        instance: InstanceId,
        ticket: Ticket,
        result: ExecResult,
    },
    Mood {
        instance: InstanceId,
        kind: ProbeKind,
        step: u32,
    },
}

impl Runtime {
    pub fn new(world: World, seed: u64) -> Runtime {
        Runtime {
            rng: Rng::new(seed ^ 0x0040_7177),
            world,
            pods: BTreeMap::new(),
            instances: BTreeMap::new(),
            agenda: Agenda::new(),
            reports: Vec::new(),
            releases_all: false,
            starts: 0,
        }
    }

    pub fn know(&mut self, plan: Arc<PodPlan>) {
        self.pods.insert(plan.spec.uid, plan);
    }

    pub fn next_at(&self) -> Mono {
        self.agenda.next_at()
    }

    pub fn instance(&self, instance: InstanceId) -> Option<&Instance> {
        self.instances.get(&instance)
    }

    /// Something of the container is left.
    pub fn live_of(&self, pod: PodUid, container: ContainerIx) -> Option<InstanceId> {
        let from = InstanceId { pod, container, restart_count: 0 };
        let to = InstanceId { pod, container, restart_count: u32::MAX };
        self.instances.range(from..=to).next().map(|(id, _)| *id)
    }

    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    /// Nothing is unkillable any more.
    pub fn release_all(&mut self, now: Mono) {
        self.releases_all = true;
        let stuck: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, it)| it.stage == Stage::Running && it.stop_by.is_some_and(|by| by <= now))
            .map(|(id, _)| *id)
            .collect();
        for instance in stuck {
            self.agenda.push(now, Todo::Exit(instance, SIGKILL));
        }
    }

    pub fn command(&mut self, now: Mono, command: RuntimeCmd) {
        match command {
            RuntimeCmd::Start(request) => self.start(now, &request),
            RuntimeCmd::Stop { instance, grace } => self.stop(now, instance, grace),
            RuntimeCmd::Cleanup { instance } => {
                let it = self.instances.get(&instance);
                let stage = it.map(|it| it.stage);
                assert_eq!(stage, Some(Stage::Ended), "clean-up of {instance:?}, which has not ended");
                let takes = self.rng.duration_up_to(self.nature(instance).cleanup_max);
                self.agenda.push(now.after(takes), Todo::Gone(instance));
            }
            RuntimeCmd::Exec { instance, ticket, argv, timeout } => {
                self.exec(now, instance, ticket, &argv, timeout);
            }
            RuntimeCmd::ForgetPod { pod } => {
                let left = self.instances.keys().find(|instance| instance.pod == pod);
                assert_eq!(left, None, "a pod is forgotten while one of its instances is left");
            }
        }
    }

    /// Lets happen what is due.
    pub fn advance(&mut self, now: Mono) {
        while let Some((at, todo)) = self.agenda.take_due(now) {
            self.act(at, todo);
        }
    }

    fn start(&mut self, now: Mono, request: &StartRequest) {
        let id = request.instance;
        let live = self.live_of(id.pod, id.container);
        assert_eq!(live, None, "double start: {id:?} while another instance is left");
        self.starts += 1;
        let health = [(Health::Good, now); 3];
        let instance = Instance { stage: Stage::Starting, stop_by: None, execs: Vec::new(), health };
        self.instances.insert(id, instance);
        let nature = self.nature(id);
        let created_at = now.after(self.rng.duration_up_to(nature.create_max));
        let running_at = created_at.after(self.rng.duration_up_to(nature.start_max));
        if self.rng.chance(nature.start_fails) {
            let error = [StartError::Config, StartError::Create, StartError::Run][self.rng.below(3) as usize];
            if error == StartError::Run {
                self.agenda.push(created_at, Todo::Create(id));
            }
            self.agenda.push(running_at, Todo::Fail(id, error));
        } else {
            self.agenda.push(created_at, Todo::Create(id));
            self.agenda.push(running_at, Todo::Run(id));
        }
    }

    fn stop(&mut self, now: Mono, id: InstanceId, grace: Duration) {
        let term = self.nature(id).term;
        let by = now.after(grace);
        let Some(it) = self.instances.get_mut(&id) else {
            panic!("stop of {id:?}, of which nothing is left");
        };
        assert_ne!(it.stage, Stage::Starting, "stop of {id:?}, which was not reported as started");
        if it.stop_by.is_some_and(|before| before <= by) {
            return;
        }
        let is_first = it.stop_by.replace(by).is_none();
        self.agenda.push(by, Todo::Kill { instance: id, by });
        if let (true, Term::Exits { after_max, code }) = (is_first, term) {
            let takes = self.rng.duration_up_to(after_max);
            self.agenda.push(now.after(takes), Todo::Exit(id, ExitStatus::Code(code)));
        }
    }

    fn act(&mut self, at: Mono, todo: Todo) {
        match todo {
            Todo::Create(instance) => {
                self.report(at, RuntimeEvent::Created { instance, at: moment(at) });
            }
            Todo::Run(instance) => self.run(at, instance),
            Todo::Fail(instance, error) => {
                self.set_ended(at, instance);
                let message = "no such file or directory".into();
                self.report(at, RuntimeEvent::StartFailed { instance, error, message, at: moment(at) });
            }
            Todo::Exit(instance, status) => {
                if self.instances.get(&instance).is_some_and(|it| it.stage == Stage::Running) {
                    self.set_ended(at, instance);
                    let exited = RuntimeEvent::Exited { instance, status, oom_killed: false, at: moment(at) };
                    self.report(at, exited);
                }
            }
            Todo::ChildOom(instance) => {
                if self.instances.get(&instance).is_some_and(|it| it.stage == Stage::Running) {
                    let facts = OomFacts { kills: 1, victim: None, limit: OomLimit::Container };
                    self.report(at, RuntimeEvent::ChildOomKilled { instance, facts, at: moment(at) });
                }
            }
            Todo::Kill { instance, by } => self.kill(at, instance, by),
            Todo::Gone(instance) => {
                self.instances.remove(&instance);
                let termination_message = self.rng.chance(100).then(|| "bye".into());
                self.report(at, RuntimeEvent::Gone { instance, termination_message });
            }
            Todo::Exec { instance, ticket, result } => self.exec_done(at, instance, ticket, result),
            Todo::Mood { instance, kind, step } => self.turn_mood(at, instance, kind, step),
        }
    }

    fn run(&mut self, at: Mono, id: InstanceId) {
        if let Some(it) = self.instances.get_mut(&id) {
            it.stage = Stage::Running;
        }
        let pid = 1_000 + self.starts as u32;
        self.report(at, RuntimeEvent::Started { instance: id, pid, at: moment(at) });
        for kind in ProbeKind::ALL {
            self.turn_mood(at, id, kind, 0);
        }
        let nature = self.nature(id);
        for (port, hook) in [(POST_START_PORT, &nature.post_start), (PRE_STOP_PORT, &nature.pre_stop)] {
            let behaviour = (!hook.fails).then(|| health::ok(hook.takes));
            self.set_server(at, addr(self.spec(id), port), behaviour);
        }
        // Numbers of its own, so that the rest of a seed is what it was without it.
        let mut rng = Rng::new(self.spec(id).spec_hash ^ self.starts);
        if !self.pods[&id.pod].is_steady && rng.chance(CHILD_OOM_PER_MILLE) {
            self.agenda.push(at.after(rng.duration_up_to(CHILD_OOM_WITHIN)), Todo::ChildOom(id));
        }
        if let Life::Ends { after_max, failures } = nature.life {
            let code = u8::from(self.rng.chance(failures));
            let lasts = self.rng.duration_up_to(after_max);
            self.agenda.push(at.after(lasts), Todo::Exit(id, ExitStatus::Code(code)));
        }
    }

    fn kill(&mut self, at: Mono, id: InstanceId, by: Mono) {
        let Some(it) = self.instances.get(&id) else { return };
        if it.stage != Stage::Running || it.stop_by != Some(by) {
            return;
        }
        let lasts = match self.nature(id).term {
            Term::Unkillable { lasts } if !self.releases_all => lasts,
            Term::Unkillable { .. } | Term::Exits { .. } | Term::Ignores => {
                self.rng.duration_up_to(Duration::from_millis(5))
            }
        };
        self.agenda.push(at.after(lasts), Todo::Exit(id, SIGKILL));
    }

    fn set_ended(&mut self, at: Mono, id: InstanceId) {
        let Some(it) = self.instances.get_mut(&id) else { return };
        it.stage = Stage::Ended;
        let execs = std::mem::take(&mut it.execs);
        for port in 0..self.spec(id).ports.len() {
            self.set_server(at, addr(self.spec(id), port), None);
        }
        for ticket in execs {
            let result =
                ExecResult::Failed { error: "the container has ended".into(), blame: Blame::Elsewhere };
            let takes = self.rng.duration_up_to(Duration::from_millis(200));
            self.agenda.push(at.after(takes), Todo::Exec { instance: id, ticket, result });
        }
    }

    fn exec(
        &mut self,
        now: Mono,
        id: InstanceId,
        ticket: Ticket,
        argv: &[Box<str>],
        timeout: Option<Duration>,
    ) {
        let argv: Vec<&str> = argv.iter().map(|text| &**text).collect();
        let nature = self.nature(id);
        let state = self.instances.get(&id).filter(|it| it.stage == Stage::Running);
        let (takes, result) = match (state, argv.as_slice()) {
            (None, _) => {
                let error = "the container does not run".into();
                (Duration::ZERO, ExecResult::Failed { error, blame: Blame::Elsewhere })
            }
            (Some(it), ["check", WHO, kind]) => {
                let kind = ProbeKind::ALL.into_iter().find(|known| known.as_str() == *kind);
                let health = it.health[kind.expect("a known kind of probe") as usize].0;
                health::exec(health, timeout, &mut self.rng)
            }
            (Some(_), ["hook", which]) => {
                let is_post_start = *which == POST_START_PORT.to_string();
                let hook = if is_post_start { nature.post_start } else { nature.pre_stop };
                match timeout.filter(|timeout| *timeout < hook.takes) {
                    Some(timeout) => (timeout, ExecResult::TimedOut),
                    None => (hook.takes, health::exited(u8::from(hook.fails))),
                }
            }
            (Some(_), other) => panic!("exec of {other:?}, which no manifest asks for"),
        };
        if let Some(it) = self.instances.get_mut(&id).filter(|it| it.stage == Stage::Running) {
            it.execs.push(ticket);
        }
        self.agenda.push(now.after(takes), Todo::Exec { instance: id, ticket, result });
    }

    /// The first answer to a ticket counts: its own, or that of the container's end.
    fn exec_done(&mut self, at: Mono, id: InstanceId, ticket: Ticket, result: ExecResult) {
        let is_end = matches!(result, ExecResult::Failed { .. });
        let was_open = self.instances.get_mut(&id).is_some_and(|it| {
            let before = it.execs.len();
            it.execs.retain(|open| *open != ticket);
            it.execs.len() < before
        });
        if was_open || is_end {
            self.report(at, RuntimeEvent::ExecDone { instance: id, ticket, result });
        }
    }

    fn turn_mood(&mut self, at: Mono, id: InstanceId, kind: ProbeKind, step: u32) {
        let nature = self.nature(id);
        let Some(it) = self.instances.get_mut(&id).filter(|it| it.stage == Stage::Running) else { return };
        let (health, lasts) = health::next(nature.moods[kind as usize], step, &mut self.rng);
        it.health[kind as usize] = (health, at);
        if let Some(lasts) = lasts {
            self.agenda.push(at.after(lasts), Todo::Mood { instance: id, kind, step: step + 1 });
        }
        let spec = self.spec(id).clone();
        let behaviour = match spec.probe(kind).map(|probe| &probe.handler) {
            None | Some(Handler::Exec(_) | Handler::Grpc(_)) => return,
            Some(Handler::HttpGet(_)) => health::http(health, &mut self.rng),
            Some(Handler::TcpSocket(_)) => health::tcp(health),
        };
        self.set_server(at, addr(&spec, kind as usize), behaviour);
    }

    fn set_server(&mut self, at: Mono, addr: SocketAddr, behaviour: Option<Behaviour>) {
        match behaviour {
            Some(behaviour) => self.world.listen(addr, behaviour),
            None => self.world.kill(addr, at),
        }
    }

    fn report(&mut self, at: Mono, event: RuntimeEvent) {
        self.reports.push((at, event));
    }

    fn nature(&self, id: InstanceId) -> Nature {
        self.pods[&id.pod].natures[id.container.at()].clone()
    }

    fn spec(&self, id: InstanceId) -> &ContainerSpec {
        &self.pods[&id.pod].spec.containers[id.container.at()]
    }
}

/// Both clocks at once; the wall clock is 2026 when the simulation begins.
pub fn moment(mono: Mono) -> Now {
    Twin::now(mono)
}

fn addr(spec: &ContainerSpec, port: usize) -> SocketAddr {
    SocketAddr::new(POD_IP, port_of(spec, port))
}
