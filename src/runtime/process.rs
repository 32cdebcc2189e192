//! The runtime's thread: commands in, one task for each, events out.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use probe_core::model::id::{InstanceId, PodUid, Ticket};
use probe_core::model::limits::{EXECS_MAX, SHARD_QUEUE_MAX};
use probe_core::model::runtime::{Blame, ExecResult, RuntimeCmd, RuntimeEvent, StartError, StartRequest};
use probe_core::sensor::Sensor;
use probe_core::sys::clock;
use probe_core::sys::session;
use probe_core::sys::spawn::Spawner;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use super::birth::Nursery;
use super::files::Files;
use super::host::{Host, Missing};
use super::instance::{self, Instance};
use super::launch::{Launch, LaunchError};
use super::leftovers::{self, LeftoverError};
use super::{Deliver, RuntimeConfig, cleanup, exec, logs, start, stop};

/// Threads for copying logs; more would only make the disk seek.
const BLOCKING_THREADS_MAX: usize = 2;
/// How often zombies are looked for that were orphaned to us, where there are no cgroups.
const ORPHAN_ROUND: Duration = Duration::from_secs(1);

#[derive(Error, Debug)]
pub enum RuntimeError {
    #[error("cannot start the process runtime: {operation}: {source}")]
    Start { operation: &'static str, source: io::Error },
    #[error(transparent)]
    Leftover(#[from] LeftoverError),
}

/// The running runtime. Dropping it ends the thread; containers that still run are left alone.
#[derive(Debug)]
pub struct ProcessRuntime {
    commands: Option<mpsc::Sender<RuntimeCmd>>,
    thread: Option<JoinHandle<()>>,
    missing: Vec<Missing>,
    ended_leftovers: usize,
}

/// What every task of the thread can reach.
pub struct Shared {
    pub config: RuntimeConfig,
    pub host: Rc<Host>,
    pub nursery: Nursery,
    pub sensor: Arc<Sensor>,
    pub deliver: Deliver,
    pub instances: RefCell<HashMap<InstanceId, Rc<Instance>>>,
    /// Folders of pods that were started here.
    pub pods: RefCell<HashMap<PodUid, PathBuf>>,
    /// Children that somebody waits for.
    pub children: RefCell<HashSet<u32>>,
    pub execs: Semaphore,
}

impl ProcessRuntime {
    /// Ends what a killed agent left in the state directory, then starts the thread. Blocks until both are done.
    ///
    /// # Errors
    /// When the state directory cannot be used, leftovers do not end, or the thread cannot be made.
    pub fn start(
        config: RuntimeConfig,
        spawner: Spawner,
        sensor: Arc<Sensor>,
        deliver: Deliver,
    ) -> Result<ProcessRuntime, RuntimeError> {
        let ended_leftovers = leftovers::end(&config.state_dir)?;
        let (host, missing) = Host::set_up(spawner.pid());
        let (commands, inbox) = mpsc::channel(SHARD_QUEUE_MAX);
        let (started, result) = std::sync::mpsc::sync_channel(1);
        let failed = |operation| move |source| RuntimeError::Start { operation, source };
        let body = move || {
            let made = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .max_blocking_threads(BLOCKING_THREADS_MAX)
                .build();
            let tokio = match made {
                Ok(tokio) => tokio,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _inside = tokio.enter();
            let nursery = match Nursery::new(spawner) {
                Ok(nursery) => nursery,
                Err(error) => return drop(started.send(Err(error))),
            };
            let host = Rc::new(host);
            let shared = Rc::new(Shared {
                config,
                host: Rc::clone(&host),
                nursery,
                sensor,
                deliver,
                instances: RefCell::default(),
                pods: RefCell::default(),
                children: RefCell::default(),
                execs: Semaphore::new(EXECS_MAX),
            });
            // The starter waits for this one message, so it is there to take it.
            let _received = started.send(Ok(()));
            let tasks = LocalSet::new();
            tasks.block_on(&tokio, run(shared, inbox));
            // The tasks hold the spawner, which sits in the cgroup that is left now.
            drop(tasks);
            host.leave();
        };
        let builder = std::thread::Builder::new().name("defib-runtime".to_owned());
        let thread = builder.spawn(body).map_err(failed("thread"))?;
        match result.recv() {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(failed("tokio")(source)),
            Err(_) => return Err(failed("thread")(io::ErrorKind::BrokenPipe.into())),
        }
        Ok(ProcessRuntime { commands: Some(commands), thread: Some(thread), missing, ended_leftovers })
    }

    /// Hands a command over. Never waits.
    ///
    /// # Errors
    /// Gives the command back when the queue is full.
    pub fn submit(&self, command: RuntimeCmd) -> Result<(), RuntimeCmd> {
        match &self.commands {
            Some(commands) => commands.try_send(command).map_err(mpsc::error::TrySendError::into_inner),
            None => Err(command),
        }
    }

    /// What containers may ask for and do not get here, to be said once at start.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Instances of a killed agent that were still alive and were ended at start.
    pub fn ended_leftovers(&self) -> usize {
        self.ended_leftovers
    }
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it happened; there is nothing to add at the end.
            let _panicked = thread.join();
        }
    }
}

/// Ends when every sender is gone.
async fn run(shared: Rc<Shared>, mut inbox: mpsc::Receiver<RuntimeCmd>) {
    tokio::task::spawn_local(logs::rounds(Rc::clone(&shared)));
    if shared.host.tree.is_none() {
        tokio::task::spawn_local(reap_orphans(Rc::clone(&shared)));
    }
    while let Some(command) = inbox.recv().await {
        dispatch(&shared, command);
    }
}

fn dispatch(shared: &Rc<Shared>, command: RuntimeCmd) {
    match command {
        RuntimeCmd::Start(request) => begin(shared, &request),
        RuntimeCmd::Stop { instance, grace } => {
            if let Some(instance) = shared.find(instance) {
                stop::request(shared, &instance, grace);
            }
        }
        RuntimeCmd::Cleanup { instance } => match shared.find(instance) {
            Some(instance) => {
                tokio::task::spawn_local(cleanup::run(Rc::clone(shared), instance));
            }
            // It failed to start, which cleaned it up, or it is gone already.
            None => shared.tell(RuntimeEvent::Gone { instance, termination_message: None }),
        },
        RuntimeCmd::Exec { instance: id, ticket, argv, timeout } => match shared.find(id) {
            Some(instance) => {
                tokio::task::spawn_local(exec::run(Rc::clone(shared), instance, ticket, argv, timeout));
            }
            None => shared.tell(not_running(id, ticket)),
        },
        RuntimeCmd::ForgetPod { pod } => {
            if let Some(dir) = shared.pods.borrow_mut().remove(&pod) {
                tokio::task::spawn_blocking(move || remove_pod(&dir));
            }
        }
    }
}

/// Enters the instance into the table before anything is awaited, so that later commands find it.
fn begin(shared: &Rc<Shared>, request: &StartRequest) {
    let id = request.instance;
    if shared.find(id).is_some() {
        tracing::error!(instance = ?id, "an instance is started twice; the second start is ignored");
        return;
    }
    match plan(shared, request) {
        Ok(instance) => {
            let instance = Rc::new(instance);
            shared.pods.borrow_mut().insert(id.pod, instance.files.pod_dir.clone());
            shared.instances.borrow_mut().insert(id, Rc::clone(&instance));
            tokio::task::spawn_local(start::run(Rc::clone(shared), instance));
        }
        Err(error) => shared.tell(RuntimeEvent::StartFailed {
            instance: id,
            error: StartError::Config,
            message: error.to_string().into(),
            at: clock::now(),
        }),
    }
}

fn plan(shared: &Shared, request: &StartRequest) -> Result<Instance, LaunchError> {
    let pod = &request.pod;
    let container = &pod.containers[request.container().at()];
    let restart_count = request.instance.restart_count;
    let launch = Launch::new(&shared.config, &shared.host, pod, container)?;
    let files = Files::new(&shared.config.state_dir, pod, &container.name, restart_count);
    let tree = shared.host.tree.as_ref();
    let name = instance::cgroup_name(container, request.instance);
    let group = tree.map(|tree| tree.plan(pod.uid, &name, instance::limits(container)));
    Ok(Instance::new(request.instance, Arc::clone(pod), files, launch, group))
}

impl Shared {
    pub fn tell(&self, event: RuntimeEvent) {
        (self.deliver)(event);
    }

    fn find(&self, id: InstanceId) -> Option<Rc<Instance>> {
        self.instances.borrow().get(&id).cloned()
    }
}

/// Answer to an exec in a container that does not run.
pub fn not_running(instance: InstanceId, ticket: Ticket) -> RuntimeEvent {
    let error = "failed to exec in container: the container is not running".into();
    let result = ExecResult::Failed { error, blame: Blame::Elsewhere };
    RuntimeEvent::ExecDone { instance, ticket, result }
}

fn remove_pod(dir: &std::path::Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove the folder of a deleted pod");
        }
        _ => {}
    }
}

async fn reap_orphans(shared: Rc<Shared>) {
    let mut round = tokio::time::interval(ORPHAN_ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let waited_for = shared.children.borrow().clone();
        if let Err(error) = session::reap_orphans(&waited_for, &[shared.nursery.pid()]) {
            tracing::warn!(%error, "cannot look for orphans of containers");
        }
    }
}
