//! The control thread's loop: takes what the executors publish, serves the API, hears signals, and knows
//! when all is over.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use probe_core::model::id::{InstanceId, PodUid};
use probe_core::model::pod::PodSpec;
use probe_core::model::runtime::RuntimeCmd;
use probe_core::model::status::{ContainerState, Phase};
use probe_core::sys::clock;
use tokio::sync::{mpsc, oneshot};

use super::backend::Agent;
use super::ending;
use super::signals::{Asked, Signals};
use super::start::Ended;
use super::version::VersionFile;
use crate::api::Backend;
use crate::runtime::ProcessRuntime;
use crate::store::{Store, StoreUpdate};

/// How often old events are forgotten.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// Updates taken in before signals are looked at again.
const UPDATES_PER_ROUND: usize = 256;

/// What the loop works on.
pub struct Control<'a> {
    pub agent: Agent,
    pub store: Store,
    pub updates: mpsc::Receiver<StoreUpdate>,
    pub version: VersionFile,
    pub runtime: &'a ProcessRuntime,
    pub print: Box<dyn FnMut(probe_core::model::event::PodEvent)>,
    phases: HashMap<PodUid, Phase>,
    any_failed: bool,
}

/// How far a requested stop has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stop {
    NotAsked,
    /// Every pod gets its grace period.
    Graceful,
    /// Everything is killed.
    AtOnce,
}

impl<'a> Control<'a> {
    pub fn new(
        agent: Agent,
        store: Store,
        updates: mpsc::Receiver<StoreUpdate>,
        version: VersionFile,
        runtime: &'a ProcessRuntime,
        print: Box<dyn FnMut(probe_core::model::event::PodEvent)>,
    ) -> Control<'a> {
        Control { agent, store, updates, version, runtime, print, phases: HashMap::new(), any_failed: false }
    }

    /// Starts the pods, says when the store has all of them, and runs until every one is finished for good, or a signal has stopped them all.
    ///
    /// # Errors
    /// A pod is refused (then all that were started are stopped), or resource versions cannot be reserved.
    pub async fn run(
        &mut self,
        mut signals: Signals,
        pods: Vec<PodSpec>,
        shown: oneshot::Sender<()>,
    ) -> anyhow::Result<Ended> {
        let (started, mut shown) = (pods.len(), Some(shown));
        for pod in pods {
            let name = pod.full_name();
            if let Err(error) = self.agent.create(pod) {
                self.agent.refuse_new();
                self.delete_all(None);
                self.drain().await?;
                return Err(error).with_context(|| format!("pod {name}"));
            }
        }
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        let mut batch = Vec::with_capacity(UPDATES_PER_ROUND);
        let mut stop = Stop::NotAsked;
        loop {
            tokio::select! {
                biased;
                asked = signals.next() => stop = self.escalate(stop, asked),
                taken = self.updates.recv_many(&mut batch, UPDATES_PER_ROUND) => {
                    if taken == 0 {
                        return Ok(Ended::Stopped);
                    }
                    for update in batch.drain(..) {
                        self.take(update);
                    }
                    self.version.reserve(self.store.version())?;
                }
                _ = expire.tick() => self.store.expire_events(clock::now().mono),
            }
            // The first client sees every pod that this agent was started with.
            if (self.phases.len() >= started || stop != Stop::NotAsked)
                && let Some(shown) = shown.take()
            {
                let _nobody_waits = shown.send(());
            }
            if self.agent.pods().is_empty() {
                return Ok(self.ended(stop));
            }
            // What is finished by itself needs no stop, but its files and its name are given back.
            if stop == Stop::NotAsked && self.all_finished() {
                let ended = self.ended(stop);
                tracing::info!("every pod has ended: they are removed, with their status and logs");
                self.agent.refuse_new();
                self.delete_all(None);
                self.drain().await?;
                return Ok(ended);
            }
        }
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        while !self.agent.pods().is_empty() {
            let Some(update) = self.updates.recv().await else { return Ok(()) };
            self.take(update);
            self.version.reserve(self.store.version())?;
        }
        Ok(())
    }

    fn take(&mut self, update: StoreUpdate) {
        match &update {
            StoreUpdate::Event(event) => (self.print)(event.clone()),
            StoreUpdate::Status(snapshot) => {
                let (uid, phase) = (snapshot.spec.uid, snapshot.status.phase);
                if self.phases.insert(uid, phase) != Some(phase) && is_finished(phase) {
                    if phase == Phase::Failed && snapshot.status.deletion.is_none() {
                        self.any_failed = true;
                        ending::failures(snapshot).iter().for_each(|failure| tracing::error!("{failure}"));
                    }
                    self.agent.finished(uid);
                }
            }
            StoreUpdate::PodGone(uid) => {
                self.phases.remove(uid);
                self.agent.gone(*uid);
            }
        }
        self.store.apply(update);
    }

    fn all_finished(&self) -> bool {
        let pods = self.agent.pods();
        pods.iter().all(|uid| self.phases.get(uid).is_some_and(|phase| is_finished(*phase)))
    }

    fn ended(&self, stop: Stop) -> Ended {
        match stop {
            Stop::Graceful | Stop::AtOnce => Ended::Stopped,
            Stop::NotAsked if self.any_failed => Ended::SomeFailed,
            Stop::NotAsked => Ended::AllSucceeded,
        }
    }

    /// The first signal stops the pods with their grace periods, Ctrl-C after it at once, and once more gives up.
    fn escalate(&mut self, stop: Stop, asked: Asked) -> Stop {
        match stop {
            Stop::Graceful | Stop::AtOnce if asked == Asked::Terminate => stop,
            Stop::NotAsked => {
                tracing::info!("stopping all pods; Ctrl-C kills them at once");
                self.agent.refuse_new();
                self.delete_all(None);
                Stop::Graceful
            }
            Stop::Graceful => {
                tracing::info!("killing all containers");
                self.delete_all(Some(0));
                self.kill_all();
                Stop::AtOnce
            }
            Stop::AtOnce => {
                tracing::error!("some containers do not end; the next start will end them");
                std::process::exit(1);
            }
        }
    }

    fn delete_all(&self, grace_s: Option<u32>) {
        for pod in self.agent.pods() {
            if let Err(error) = self.agent.delete(pod, grace_s) {
                tracing::error!(%pod, %error, "pod was not asked to stop; send the signal again");
            }
        }
    }

    /// SIGKILL for every container that runs.
    fn kill_all(&self) {
        for pod in self.store.pods(None).items {
            let (spec, status) = (&pod.snapshot.spec, &pod.snapshot.status);
            for ((ix, _), container) in spec.indexed().zip(&status.containers) {
                if matches!(container.state, ContainerState::Running { .. }) {
                    self.kill(InstanceId {
                        pod: spec.uid,
                        container: ix,
                        restart_count: container.restart_count,
                    });
                }
            }
        }
    }

    fn kill(&self, instance: InstanceId) {
        if self.runtime.submit(RuntimeCmd::Stop { instance, grace: Duration::ZERO }).is_err() {
            tracing::error!(?instance, "the runtime is busy; send the signal again");
        }
    }
}

fn is_finished(phase: Phase) -> bool {
    match phase {
        Phase::Succeeded | Phase::Failed => true,
        Phase::Pending | Phase::Running => false,
    }
}
