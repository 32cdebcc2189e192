//! One executor shard and one engine shard on their threads, as the agent has them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use peers::{Control, Load, Report, heap};
use probe_core::decide::backoff::BackoffParams;
use probe_core::engine::{Clocks, Engine, Inbox, Stats};
use probe_core::executor::{Input, Output, PodCmd, Shard, ShardConfig};
use probe_core::model::limits::{ENGINE_SLOTS_DEFAULT, SHARD_QUEUE_MAX};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::{ProbeCmd, ProbeEvent};
use probe_core::model::runtime::{ExitStatus, RuntimeCmd, RuntimeEvent};
use probe_core::model::time::{Mono, Now};
use probe_core::ring::{RingKind, RingOptions};
use probe_core::sys::clock;

use super::pods::{self, Probes};
use super::watch::Watch;

/// As in the agent.
const TURN_INPUTS_MAX: usize = 1_024;
const BACKLOG_RETRY: Duration = Duration::from_millis(1);
const PID: u32 = 1;

pub struct Node {
    engine: Engine,
    inbox: Sender<Input>,
    all_armed: Receiver<()>,
    executor: JoinHandle<()>,
    watch: Arc<Watch>,
}

impl Node {
    /// Starts both threads, without a pod.
    pub fn start(watch: Watch) -> Result<Node> {
        let watch = Arc::new(watch);
        let (inbox, inputs) = bounded(SHARD_QUEUE_MAX);
        let (outcomes, seen) = (inbox.clone(), Arc::clone(&watch));
        let deliver = move |events: &mut Vec<ProbeEvent>| {
            for event in events.drain(..) {
                if let ProbeEvent::Outcome(outcome) = &event {
                    seen.outcome(outcome);
                }
                // False only when the executor has ended: nobody is left to tell.
                let _ = outcomes.send(Input::Probe(event));
            }
        };
        let options = RingOptions::best(RingKind::Uring, ENGINE_SLOTS_DEFAULT);
        let clocks = Clocks { now: clock::now, boot_ns: clock::boot_ns };
        let engine = Engine::start("engine-0", options, clocks, deliver)?;
        let (armed, all_armed) = bounded(1);
        let work = Work {
            shard: shard()?,
            inputs,
            engine: engine.inbox(),
            watch: Arc::clone(&watch),
            armed: 0,
            told: armed,
        };
        let executor = std::thread::Builder::new().name("executor-0".to_owned()).spawn(move || work.run())?;
        Ok(Node { engine, inbox, all_armed, executor, watch })
    }

    /// Adds the pods and waits until the probes of all their containers tick.
    pub fn run(&self, specs: &[Arc<PodSpec>]) -> Result<()> {
        for spec in specs {
            let add = Input::Pod(PodCmd::Add(Arc::clone(spec)));
            self.inbox.send(add).map_err(|_| anyhow!("the executor has ended"))?;
        }
        self.all_armed.recv().context("the executor has ended")
    }

    pub fn follow(&self, control: &Control) {
        self.watch.follow(control);
    }

    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Ends both threads.
    pub fn stop(self) -> Result<(Stats, Report)> {
        let report = self.watch.report();
        let stats = self.engine.stop()?;
        drop(self.inbox);
        self.executor.join().map_err(|_| anyhow!("the executor panicked"))?;
        Ok((stats, report))
    }
}

/// What the executor's thread works on.
struct Work {
    shard: Shard,
    inputs: Receiver<Input>,
    engine: Inbox,
    watch: Arc<Watch>,
    armed: u32,
    told: Sender<()>,
}

impl Work {
    /// The loop of the agent's executor threads.
    fn run(mut self) {
        let (mut inputs, mut outputs) = (Vec::with_capacity(TURN_INPUTS_MAX), Vec::new());
        let mut for_engine = Vec::new();
        let mut next = Mono::ZERO;
        loop {
            if !for_engine.is_empty() {
                next = next.min(clock::mono().after(BACKLOG_RETRY));
            }
            // What the runtime has answered is there at once.
            if inputs.is_empty() {
                match self.inputs.recv_timeout(next.since(clock::mono())) {
                    Ok(input) => inputs.push(input),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                inputs.extend(self.inputs.try_iter().take(TURN_INPUTS_MAX - inputs.len()));
            }
            next = self.shard.turn(clock::now(), &mut inputs, &mut outputs);
            for output in outputs.drain(..) {
                self.carry(output, &mut inputs, &mut for_engine);
            }
            if !for_engine.is_empty() {
                self.engine.send(&mut for_engine);
                if for_engine.is_empty() && self.armed == self.watch.load.targets {
                    // Told once; later arms change nothing.
                    let _ = self.told.try_send(());
                }
            }
        }
    }

    fn carry(&mut self, output: Output, inputs: &mut Vec<Input>, for_engine: &mut Vec<ProbeCmd>) {
        match output {
            Output::Probe(ProbeCmd::Arm(mut arm)) => {
                self.watch.adjust(&mut arm);
                self.armed += 1;
                for_engine.push(ProbeCmd::Arm(arm));
            }
            Output::Probe(cmd) => for_engine.push(cmd),
            Output::Runtime(cmd) => match answer(&cmd, clock::now()) {
                Some(events) => inputs.extend(events.into_iter().map(Input::Runtime)),
                None => self.watch.unexpected(&format!("the runtime was asked for {cmd:?}")),
            },
            Output::Event(event) => self.watch.event(&event),
            Output::Status(_) | Output::PodGone(_) | Output::ProbeNowDone { .. } => {}
        }
    }
}

/// The runtime: every start succeeds at once, and every stop. None for anything else.
fn answer(cmd: &RuntimeCmd, at: Now) -> Option<Vec<RuntimeEvent>> {
    match cmd {
        RuntimeCmd::Start(request) => {
            let instance = request.instance;
            let started = RuntimeEvent::Started { instance, pid: PID, at };
            Some(vec![RuntimeEvent::Created { instance, at }, started])
        }
        RuntimeCmd::Stop { instance, .. } => {
            let (instance, status) = (*instance, ExitStatus::Code(0));
            Some(vec![RuntimeEvent::Exited { instance, status, oom_killed: false, at }])
        }
        RuntimeCmd::Cleanup { instance } => {
            Some(vec![RuntimeEvent::Gone { instance: *instance, termination_message: None }])
        }
        RuntimeCmd::Exec { .. } | RuntimeCmd::ForgetPod { .. } => None,
    }
}

fn shard() -> Result<Shard> {
    Ok(Shard::new(ShardConfig {
        executor: 0,
        pod_ip: "127.0.0.1".parse().context("the pods' address")?,
        backoff: BackoffParams::STANDARD,
        id_seed: [1, 2, 3, 4],
    }))
}

/// Memory of the same pods, running, without probes: what there is beyond it belongs to the probes.
pub fn bytes_without_probes(load: Load) -> Result<u64> {
    let specs = pods::specs(load, Probes::None)?;
    let mut shard = shard()?;
    let before = heap::allocated_bytes();
    let mut outputs = Vec::new();
    for spec in &specs {
        let mut inputs = vec![Input::Pod(PodCmd::Add(Arc::clone(spec)))];
        while !inputs.is_empty() {
            shard.turn(clock::now(), &mut inputs, &mut outputs);
            for output in outputs.drain(..) {
                if let Output::Runtime(cmd) = output {
                    inputs.extend(answer(&cmd, clock::now()).into_iter().flatten().map(Input::Runtime));
                }
            }
        }
    }
    Ok(heap::allocated_bytes().saturating_sub(before))
}
