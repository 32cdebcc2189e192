//! Builds the agent in order, runs it, and takes it down in the reverse order.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use crossbeam::channel::{self, Receiver};
use probe_core::decide::backoff::BackoffParams;
use probe_core::engine::Engine;
use probe_core::executor::{Input, Shard, ShardConfig};
use probe_core::model::limits::SHARD_QUEUE_MAX;
use probe_core::model::pod::PodSpec;
use probe_core::model::runtime::RuntimeEvent;
use probe_core::sensor::{Kernel, Sensor};
use probe_core::sys::lock::StateLock;
use probe_core::sys::spawn::Spawner;
use probe_ebpf::{LoadError, LoadOptions};
use tokio::sync::{mpsc, oneshot};

use super::backend::{Agent, Defaults};
use super::control::Control;
use super::executors::{Executors, Routes};
use super::resolver::Resolver;
use super::signals::Signals;
use super::version::VersionFile;
use super::{engines, executors};
use crate::api::{self, Api, Socket};
use crate::cli::args::{EngineKind, SensorKind};
use crate::cli::events::Printer;
use crate::files;
use crate::grpc::Calls;
use crate::logs::LogDoor;
use crate::rings::Rings;
use crate::runtime::{ProcessRuntime, RuntimeConfig};
use crate::sensor;
use crate::store::Store;

/// Pod IP of every pod: containers of the process runtime share the host's network.
const POD_IP: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// What the command line decided.
pub struct Config {
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub node_name: String,
    /// At least one.
    pub engine_shards: u16,
    /// At least one.
    pub executor_shards: u16,
    /// Waits before a crashed container is started again.
    pub backoff: BackoffParams,
    pub engine: EngineKind,
    pub sensor: SensorKind,
    pub sensor_options: LoadOptions,
    /// For pods that come over the API, as for those of the command line.
    pub default_initial_delay: Duration,
    pub min_probe_period: Duration,
    pub strict: bool,
}

/// Why the agent came to its end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    AllSucceeded,
    SomeFailed,
    /// By a signal.
    Stopped,
}

/// Runs the agent with these pods until they are finished or a signal ends them.
///
/// # Errors
/// Anything that keeps the agent from starting: the state directory is held by another agent, no ring can be
/// had for the probes, leftovers of an earlier agent do not end, the socket cannot be made.
pub fn run(config: &Config, spawner: Spawner, pods: Vec<PodSpec>, printer: Printer) -> anyhow::Result<Ended> {
    let lock = StateLock::take(&config.state_dir)?;
    let ended = run_locked(config, spawner, pods, printer);
    if ended.is_err() {
        // A start that was refused leaves no directory that was not there.
        lock.give_back();
    }
    ended
}

fn run_locked(
    config: &Config,
    spawner: Spawner,
    pods: Vec<PodSpec>,
    printer: Printer,
) -> anyhow::Result<Ended> {
    // Before anything is started or ended: a start that is refused changes nothing.
    let socket = Socket::bind(&config.socket)?;
    let kernel = load_kernel(config).context("--sensor ebpf")?;
    let (executors, inboxes) = executor_queues(config.executor_shards);
    let (resolver, _resolvers) = Resolver::start().context("start the resolver threads")?;
    let calls = Calls::start().context("start the thread of gRPC probes")?;
    let engines = start_engines(config, &executors, &resolver, &calls)?;
    let (version, first_version) = VersionFile::open(&config.state_dir)?;
    let store = Store::new(first_version);
    let runtime = Arc::new(start_runtime(config, spawner, &executors, kernel)?);
    let defaults = Defaults {
        strict: config.strict,
        initial_delay: config.default_initial_delay,
        min_probe_period: config.min_probe_period,
    };
    let agent = Agent::new(executors, engines.iter().map(Engine::tallies).collect(), defaults);
    let (publish, updates) = mpsc::channel(SHARD_QUEUE_MAX);
    let threads = start_executors(config, inboxes, &engines, &runtime, &agent, &publish)?;
    drop(publish);

    let about = About { config, agent: &agent, store, updates, version, runtime: &runtime };
    let ended = control(about, &socket, pods, printer);
    drop(socket);

    for engine in engines {
        if let Err(error) = engine.stop() {
            tracing::error!(%error, "an engine did not end well");
        }
    }
    // What the engines have not cut is cut now.
    drop(calls);
    // Ends its thread and the sensor's, and leaves the cgroups. The executors end when nobody can send to them any
    // more; they hold nothing by now, so the process may as well end without waiting for them.
    drop(runtime);
    drop((threads, agent));
    ended
}

fn executor_queues(shards: u16) -> (Executors, Vec<Receiver<Input>>) {
    let (inboxes, outboxes): (Vec<_>, Vec<_>) =
        (0..shards).map(|_| channel::bounded(SHARD_QUEUE_MAX)).unzip();
    (Executors::new(inboxes), outboxes)
}

fn start_engines(
    config: &Config,
    executors: &Executors,
    resolver: &Resolver,
    calls: &Calls,
) -> anyhow::Result<Vec<Engine>> {
    let mut rings = Rings::new(config.engine, |text: &str| tracing::warn!("{text}"));
    let start =
        |n| rings.with(|ring| engines::start(n, ring, executors.clone(), resolver.clone(), calls.door()));
    (0..config.engine_shards).map(start).collect()
}

/// The programs in the kernel, where they are wanted and run. What is missing is said here, once.
fn load_kernel(config: &Config) -> Result<Option<Kernel>, LoadError> {
    const WITHOUT: &str = "sensor: pidfds and the counters of memory cgroups";
    if config.sensor == SensorKind::Pidfd {
        tracing::info!("{WITHOUT}");
        return Ok(None);
    }
    match sensor::load(config.sensor_options) {
        Ok(programs) => {
            tracing::info!("sensor: eBPF programs, beside pidfds and the counters of memory cgroups");
            for lack in &programs.lacks {
                tracing::warn!("eBPF sensor: {lack}");
            }
            Ok(Some(programs.kernel))
        }
        Err(error) if config.sensor == SensorKind::Auto => {
            tracing::warn!(
                "no eBPF sensor: {error}; ends are seen a little later, and victims of the OOM killer are not named"
            );
            tracing::info!("{WITHOUT}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn start_runtime(
    config: &Config,
    spawner: Spawner,
    executors: &Executors,
    kernel: Option<Kernel>,
) -> anyhow::Result<ProcessRuntime> {
    let deliver = |executors: Executors| {
        Arc::new(move |event: RuntimeEvent| {
            // False only when the executors have ended, at the end of the agent: nobody is left to tell.
            let _ = executors.send(instance_of(&event).pod, Input::Runtime(event));
        })
    };
    let sensor = Arc::new(Sensor::start(deliver(executors.clone()), kernel)?);
    let about = RuntimeConfig::of_this_process(config.state_dir.clone(), config.node_name.as_str().into())
        .context("find the running binary")?;
    let runtime = ProcessRuntime::start(about, spawner, sensor, deliver(executors.clone()))?;
    for missing in runtime.missing() {
        tracing::warn!("{missing}");
    }
    if runtime.ended_leftovers() > 0 {
        tracing::warn!(instances = runtime.ended_leftovers(), "ended what an earlier agent had left running");
    }
    Ok(runtime)
}

fn instance_of(event: &RuntimeEvent) -> probe_core::model::id::InstanceId {
    match event {
        RuntimeEvent::Created { instance, .. }
        | RuntimeEvent::Started { instance, .. }
        | RuntimeEvent::StartFailed { instance, .. }
        | RuntimeEvent::Exited { instance, .. }
        | RuntimeEvent::ChildOomKilled { instance, .. }
        | RuntimeEvent::Gone { instance, .. }
        | RuntimeEvent::ExecDone { instance, .. } => *instance,
    }
}

fn start_executors(
    config: &Config,
    inboxes: Vec<Receiver<Input>>,
    engines: &[Engine],
    runtime: &Arc<ProcessRuntime>,
    agent: &Agent,
    publish: &mpsc::Sender<crate::store::StoreUpdate>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::with_capacity(inboxes.len());
    for (executor, inbox) in (0u16..).zip(inboxes) {
        let shard = Shard::new(ShardConfig {
            executor,
            pod_ip: POD_IP,
            backoff: config.backoff,
            id_seed: random_seed().context("read random numbers from the system")?,
        });
        // Not its owner: runtime and sensor send to the executors, so each would keep the other alive for ever.
        let (runtime, agent) = (Arc::downgrade(runtime), agent.clone());
        let routes = Routes {
            executor,
            engines: engines.iter().map(Engine::inbox).collect(),
            runtime: Box::new(move |cmd| match runtime.upgrade() {
                Some(runtime) => runtime.submit(cmd),
                // The agent ends.
                None => Err(cmd),
            }),
            store: publish.clone(),
            probe_now_done: Box::new(move |ticket, result| agent.probe_now_done(ticket, result)),
        };
        threads.push(executors::start(shard, inbox, routes).context("start an executor thread")?);
    }
    Ok(threads)
}

fn random_seed() -> Result<[u64; 4], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let mut seed = [0; 4];
    for (word, chunk) in seed.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    Ok(seed)
}

/// What the control thread works on.
struct About<'a> {
    config: &'a Config,
    agent: &'a Agent,
    store: Store,
    updates: mpsc::Receiver<crate::store::StoreUpdate>,
    version: VersionFile,
    runtime: &'a ProcessRuntime,
}

fn control(
    about: About<'_>,
    socket: &Socket,
    pods: Vec<PodSpec>,
    mut printer: Printer,
) -> anyhow::Result<Ended> {
    let About { config, agent, store, updates, version, runtime } = about;
    files::block_on(|io| async move {
        // Before the first container exists: a signal that nobody hears would leave it running.
        let signals = Signals::listen()?;
        let (logs, log_worker) = LogDoor::new(&config.state_dir, io);
        let log_worker = tokio::task::spawn_local(log_worker.run());
        let api = Api {
            store: store.clone(),
            backend: Arc::new(agent.clone()),
            logs,
            node_name: config.node_name.as_str().into(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (shown, all_shown) = oneshot::channel::<()>();
        let serving = async {
            match all_shown.await {
                Ok(()) => api::serve(socket, api, async { drop(stopped.await) }).await,
                Err(_) => Ok(()),
            }
        };
        let print = Box::new(move |event| printer.print(event));
        let mut control = Control::new(agent.clone(), store, updates, version, runtime, print);
        let living = async {
            let ended = control.run(signals, pods, shown).await;
            drop(stop);
            ended
        };
        let (ended, served) = tokio::join!(living, serving);
        log_worker.abort();
        served.context("serve the API")?;
        ended
    })
    .context("start the control thread")?
}
