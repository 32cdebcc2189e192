//! What the API and the manifests may ask of the agent. Nothing here waits for an executor: a full queue is
//! an answer ("try again"), so that the control thread can never be part of a circle of waiting.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use probe_core::decide::messages;
use probe_core::executor::{Input, PodCmd};
use probe_core::model::id::{ContainerIx, PodUid, Ticket};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::{ProbeKind, RunResult};
use tokio::sync::oneshot;

use super::directory::{Directory, NODE_PORTS, Ports, Refusal};
use super::executors::Executors;

/// Runs of probes that people wait for at the same time.
const PROBE_NOW_MAX: usize = 256;

/// A handle; clones act on the same agent.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    executors: Executors,
    directory: Mutex<Directory>,
    waiting: Mutex<HashMap<Ticket, oneshot::Sender<ProbeAnswer>>>,
    next_ticket: AtomicU64,
}

type ProbeAnswer = Result<RunResult, Box<str>>;

/// Why a pod was not taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a pod of this name exists")]
    Exists,
    #[error("the node is full: no more than {} pods", probe_core::model::limits::PODS_MAX)]
    Full,
    #[error("the agent is busy: try again")]
    Busy,
}

impl Agent {
    pub fn new(executors: Executors) -> Agent {
        Agent {
            shared: Arc::new(Shared {
                executors,
                directory: Mutex::default(),
                waiting: Mutex::default(),
                next_ticket: AtomicU64::new(0),
            }),
        }
    }

    /// Takes a new pod. One whose ports are taken exists from now on, as Failed (design 9.4).
    ///
    /// # Errors
    /// [`CreateError`]; nothing was changed.
    pub fn create(&self, spec: PodSpec) -> Result<(), CreateError> {
        let spec = Arc::new(spec);
        let mut directory = self.directory();
        let ports = directory.insert(&spec).map_err(|refusal| match refusal {
            Refusal::Exists => CreateError::Exists,
            Refusal::Full => CreateError::Full,
        })?;
        let uid = spec.uid;
        let cmd = match ports {
            Ports::Free => PodCmd::Add(spec),
            Ports::Taken => {
                PodCmd::Reject { spec, reason: NODE_PORTS, message: messages::NODE_PORTS_EVENT.into() }
            }
        };
        self.send(uid, cmd).inspect_err(|_| directory.remove(uid))
    }

    /// Replaces the manifest of an existing pod (design 9.5). The caller has checked what may change.
    ///
    /// # Errors
    /// [`CreateError::Busy`]; nothing was changed.
    pub fn update(&self, spec: PodSpec) -> Result<(), CreateError> {
        let spec = Arc::new(spec);
        self.send(spec.uid, PodCmd::Update(Arc::clone(&spec)))?;
        self.directory().replace(&spec);
        Ok(())
    }

    /// Begins to stop and forget a pod; a second delete can only shorten the first.
    ///
    /// # Errors
    /// [`CreateError::Busy`]; nothing was changed.
    pub fn delete(&self, pod: PodUid, grace_s: Option<u32>) -> Result<(), CreateError> {
        self.send(pod, PodCmd::Delete { pod, grace_s })
    }

    /// Runs one probe now, outside its schedule and thresholds. `Err` of the answer says why it could not.
    pub async fn probe_now(&self, pod: PodUid, container: ContainerIx, kind: ProbeKind) -> ProbeAnswer {
        let ticket = Ticket(self.shared.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.len() >= PROBE_NOW_MAX {
                return Err("too many probes are being run by hand: try again".into());
            }
            waiting.insert(ticket, answer);
        }
        let forget = ForgetOnDrop { agent: self, ticket };
        self.send(pod, PodCmd::ProbeNow { pod, container, kind, ticket })
            .map_err(|error| Box::<str>::from(error.to_string()))?;
        let result = answered.await.unwrap_or_else(|_| Err("the agent is stopping".into()));
        drop(forget);
        result
    }

    /// The answer of an executor to [`Agent::probe_now`].
    pub(super) fn probe_now_done(&self, ticket: Ticket, result: ProbeAnswer) {
        if let Some(waiting) = self.waiting().remove(&ticket) {
            // Whoever asked may have gone away.
            let _ = waiting.send(result);
        }
    }

    /// The pod reached Succeeded or Failed: its ports are free.
    pub(super) fn finished(&self, pod: PodUid) {
        self.directory().finish(pod);
    }

    /// The pod is gone: its name is free.
    pub(super) fn gone(&self, pod: PodUid) {
        self.directory().remove(pod);
    }

    /// Every pod that is not gone.
    pub(super) fn pods(&self) -> Vec<PodUid> {
        self.directory().uids()
    }

    fn send(&self, pod: PodUid, cmd: PodCmd) -> Result<(), CreateError> {
        self.shared.executors.try_send(pod, Input::Pod(cmd)).map_err(|_| CreateError::Busy)
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.shared.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Ticket, oneshot::Sender<ProbeAnswer>>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller that goes away leaves no entry behind.
struct ForgetOnDrop<'a> {
    agent: &'a Agent,
    ticket: Ticket,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        self.agent.waiting().remove(&self.ticket);
    }
}
