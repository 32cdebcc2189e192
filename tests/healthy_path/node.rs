//! One executor shard and one engine shard as the agent has them; containers without a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use probe_core::decide::backoff::BackoffParams;
use probe_core::engine::{Clocks, Counters, Engine};
use probe_core::executor::{Input, Output, PodCmd, Shard, ShardConfig};
use probe_core::model::id::{ContainerIx, InstanceId, PodUid, ProbeKey};
use probe_core::model::limits::{PROBE_PERIOD_MIN_DEFAULT, SHARD_QUEUE_MAX};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::{Arm, ProbeCmd, ProbeEvent, ProbeKind, Target, Verdict};
use probe_core::model::runtime::{RuntimeCmd, RuntimeEvent};
use probe_core::model::time::{Mono, Now};
use probe_core::ring::{RingKind, RingOptions};
use probe_core::spec::{self, JsonContext, LoadOptions};
use probe_core::sys::clock;
use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, SOON, eventually, watched};

/// Runs in flight at a time.
pub const SLOTS: u32 = 64;
const CONTAINERS_PER_POD: u32 = 10;
/// No machine that runs tests is away for so long: a run that is not healthy is a failure of the test.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Between the arming of a probe and its first run, at least.
const INITIAL_DELAY: Duration = Duration::from_secs(3);
const PID: u32 = 1;
/// No executor has this number: its probes are the test's own.
const NOBODYS: u16 = 1;

/// While it is closed, the engine's thread goes round in circles where it reads the time: without a system call.
static IS_GATE_CLOSED: AtomicBool = AtomicBool::new(false);
static IS_AT_GATE: AtomicBool = AtomicBool::new(false);

pub struct Node {
    executor: Shard,
    engine: Engine,
    from_engine: Receiver<ProbeEvent>,
    inputs: Vec<Input>,
    /// What people would see.
    events: Vec<String>,
}

impl Node {
    pub fn start() -> Node {
        let (sender, from_engine) = bounded(SHARD_QUEUE_MAX);
        let deliver = move |events: &mut Vec<ProbeEvent>| {
            for event in events.drain(..) {
                // The node is there until the process ends.
                let _ = sender.send(event);
            }
        };
        let options = RingOptions::best(RingKind::Uring, SLOTS);
        let clocks = Clocks { now, boot_ns: clock::boot_ns };
        let engine = Engine::start("engine-0", options, clocks, deliver).expect("a ring");
        let executor = Shard::new(ShardConfig {
            executor: 0,
            pod_ip: "127.0.0.1".parse().expect("an address"),
            backoff: BackoffParams::STANDARD,
            id_seed: [1, 2, 3, 4],
        });
        Node { executor, engine, from_engine, inputs: Vec::new(), events: Vec::new() }
    }

    /// Has so many runs, begun in one turn, each on a slot of its own. Keep `target`, or the engine gives it back when
    /// the last of these connections ends.
    pub fn run_at_once(&mut self, runs: u32, target: &Arc<Target>) {
        let arm = |index| {
            ProbeCmd::Arm(Box::new(Arm {
                probe: ProbeKey { executor: NOBODYS, index },
                kind: ProbeKind::Liveness,
                generation: 1,
                instance: InstanceId { pod: PodUid(0), container: ContainerIx(0), restart_count: 0 },
                target: Arc::clone(target),
                first_due: Mono::ZERO,
                period: TIMEOUT,
                timeout: TIMEOUT,
                report_successes: 1,
            }))
        };
        let inbox = self.engine.inbox();
        let gate = self.close_gate();
        let mut commands: Vec<ProbeCmd> = (0..runs).map(arm).collect();
        inbox.send(&mut commands);
        assert!(commands.is_empty(), "the engine has room for a command for each slot");
        drop(gate);
        for _ in 0..runs {
            match self.from_engine.recv_timeout(AFTER_A_WHILE).expect("every run ends") {
                ProbeEvent::Outcome(outcome) => assert_eq!(outcome.result.verdict, Verdict::Success),
                event => panic!("{event:?}"),
            }
        }
        let drop_probe = |index| ProbeCmd::Drop { probe: ProbeKey { executor: NOBODYS, index } };
        let mut commands: Vec<ProbeCmd> = (0..runs).map(drop_probe).collect();
        inbox.send(&mut commands);
        assert!(commands.is_empty(), "and for another one");
    }

    /// Keeps the engine's thread busy for so long, so that much is due at once afterwards.
    pub fn stall(&self, length: Duration) {
        let gate = self.close_gate();
        test_support::pass(length);
        drop(gate);
    }

    /// Returns when the engine's thread is at the gate; it will look for commands after that.
    fn close_gate(&self) -> ClosedGate {
        IS_AT_GATE.store(false, Ordering::Release);
        IS_GATE_CLOSED.store(true, Ordering::Release);
        let gate = ClosedGate;
        // It may be asleep.
        self.engine.inbox().send(&mut Vec::new());
        eventually("the engine's thread reads the time", SOON, || {
            IS_AT_GATE.load(Ordering::Acquire).then_some(())
        });
        gate
    }

    /// Starts pods whose containers have a liveness probe each: `probe` makes that of a target. The engine has the
    /// commands in its queue.
    pub fn arm_pods(&mut self, targets: u32, annotations: &Value, probe: impl Fn(u32) -> Value) {
        let all: Vec<u32> = (0..targets).collect();
        for (pod, targets) in (0_u128..).zip(all.chunks(CONTAINERS_PER_POD as usize)) {
            let containers: Vec<Value> =
                targets.iter().map(|target| container(*target, probe(*target))).collect();
            let spec = pod_spec(pod, annotations, &containers);
            self.inputs.push(Input::Pod(PodCmd::Add(Arc::new(spec))));
        }
        self.turn();
    }

    /// Lets the executor turn until the engine's counters, published once a second, fulfil `is_enough`.
    pub fn turn_until(&mut self, is_enough: impl Fn(&Counters) -> bool) -> Counters {
        eventually("enough runs", AFTER_A_WHILE, || {
            self.turn();
            let calls = watched::seen().calls;
            assert!(calls.is_empty(), "system calls of the engine's thread, by number: {calls:?}");
            Some(self.counters()).filter(|counters| is_enough(counters))
        })
    }

    /// The engine's counters as it published them last.
    pub fn counters(&self) -> Counters {
        self.engine.stats().counters
    }

    /// Every run so far was a success, and nobody was told otherwise.
    pub fn assert_all_healthy(&mut self) {
        self.turn();
        let all = self.counters();
        let healthy = Counters {
            successes: all.successes,
            turns: all.turns,
            enters: all.enters,
            missed_turns: all.missed_turns,
            missed_us: all.missed_us,
            late_starts: all.late_starts,
            reused: all.reused,
            ..Counters::default()
        };
        assert_eq!(all, healthy);
        let odd =
            |event: &&String| !["Created", "Started", "Scheduled"].iter().any(|ok| event.starts_with(ok));
        let told: Vec<&String> = self.events.iter().filter(odd).collect();
        assert!(told.is_empty(), "{told:?}");
    }

    fn turn(&mut self) {
        let mut outputs = Vec::new();
        self.inputs.extend(self.from_engine.try_iter().map(Input::Probe));
        // What the runtime answers is there at once.
        loop {
            self.executor.turn(clock::now(), &mut self.inputs, &mut outputs);
            let mut commands = Vec::new();
            for output in outputs.drain(..) {
                match output {
                    Output::Probe(command) => commands.push(command),
                    Output::Runtime(command) => self.inputs.extend(started(&command, clock::now())),
                    Output::Event(event) => {
                        self.events.push(format!("{:?}: {}", event.reason, event.message))
                    }
                    Output::Status(_) | Output::PodGone(_) | Output::ProbeNowDone { .. } => {}
                }
            }
            self.engine.inbox().send(&mut commands);
            assert!(commands.is_empty(), "the engine has room for a command for each probe");
            if self.inputs.is_empty() {
                return;
            }
        }
    }
}

/// The engine's clock, read on its thread only.
fn now() -> Now {
    watched::follow();
    while IS_GATE_CLOSED.load(Ordering::Acquire) {
        IS_AT_GATE.store(true, Ordering::Release);
        std::hint::spin_loop();
    }
    clock::now()
}

/// Opens the gate when it is dropped.
struct ClosedGate;

impl Drop for ClosedGate {
    fn drop(&mut self) {
        IS_GATE_CLOSED.store(false, Ordering::Release);
    }
}

/// The runtime: every start succeeds at once, and nothing else is asked for.
fn started(command: &RuntimeCmd, at: Now) -> [Input; 2] {
    let RuntimeCmd::Start(request) = command else { panic!("the runtime was asked for {command:?}") };
    let instance = request.instance;
    [RuntimeEvent::Created { instance, at }, RuntimeEvent::Started { instance, pid: PID, at }]
        .map(Input::Runtime)
}

fn container(target: u32, mut probe: Value) -> Value {
    probe["initialDelaySeconds"] = json!(INITIAL_DELAY.as_secs());
    probe["timeoutSeconds"] = json!(TIMEOUT.as_secs());
    json!({
        "name": format!("c{target}"),
        "image": "none",
        "command": ["/bin/true"],
        "livenessProbe": probe,
    })
}

fn pod_spec(pod: u128, annotations: &Value, containers: &[Value]) -> PodSpec {
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("p{pod}"), "annotations": annotations},
        "spec": {"containers": containers},
    });
    let mut options = LoadOptions {
        strict: true,
        default_initial_delay: Duration::ZERO,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut || PodUid(pod + 1),
    };
    let context = JsonContext { namespace: "default", base_dir: None };
    let loaded = spec::pod_from_json(manifest.to_string().as_bytes(), &context, &mut options);
    loaded.expect("a sound manifest").spec
}
