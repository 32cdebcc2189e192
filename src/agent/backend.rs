//! What the API and the manifests may ask of the agent. Nothing here waits for an executor: a full queue is
//! an answer ("try again"), so that the control thread can never be part of a circle of waiting.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use probe_core::decide::messages;
use probe_core::engine::Tallies;
use probe_core::executor::{Input, PodCmd};
use probe_core::model::id::{ContainerIx, PodUid, Ticket};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::{ProbeKind, RunResult};
use probe_core::spec::{self, JsonContext, LoadOptions, Problem};
use tokio::sync::oneshot;

use super::directory::{Directory, NODE_PORTS, Ports};
use super::executors::{Executors, Handed};
use crate::api::{Backend, Cause, Manifest, Parts, ProbeNow, Refusal};
use crate::cli::manifests::random_uid;

/// Runs of probes that people wait for at the same time.
const PROBE_NOW_MAX: usize = 256;

/// A handle; clones act on the same agent.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    executors: Executors,
    engines: Vec<Tallies>,
    defaults: Defaults,
    directory: Mutex<Directory>,
    waiting: Mutex<HashMap<Ticket, oneshot::Sender<ProbeAnswer>>>,
    next_ticket: AtomicU64,
    /// The agent is on its way out: it takes no pod any more.
    is_stopping: AtomicBool,
}

type ProbeAnswer = Result<RunResult, Box<str>>;

/// How pods that come over the API are read: as those of the command line.
#[derive(Copy, Clone, Debug)]
pub struct Defaults {
    pub strict: bool,
    pub initial_delay: Duration,
    pub min_probe_period: Duration,
}

impl Agent {
    pub fn new(executors: Executors, engines: Vec<Tallies>, defaults: Defaults) -> Agent {
        Agent {
            shared: Arc::new(Shared {
                executors,
                engines,
                defaults,
                directory: Mutex::default(),
                waiting: Mutex::default(),
                next_ticket: AtomicU64::new(0),
                is_stopping: AtomicBool::new(false),
            }),
        }
    }

    /// The answer of an executor to [`Backend::probe_now`].
    pub(super) fn probe_now_done(&self, ticket: Ticket, result: ProbeAnswer) {
        if let Some(waiting) = self.waiting().remove(&ticket) {
            // Whoever asked may have gone away.
            let _ = waiting.send(result);
        }
    }

    /// From now on no pod is created or changed.
    pub(super) fn refuse_new(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
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

    fn send(&self, pod: PodUid, cmd: PodCmd) -> Result<(), Refusal> {
        match self.shared.executors.try_send(pod, Input::Pod(cmd)) {
            Handed::Over => Ok(()),
            Handed::Refused => Err(Refusal::Busy),
        }
    }

    fn check_living(&self) -> Result<(), Refusal> {
        if self.shared.is_stopping.load(Ordering::Relaxed) { Err(Refusal::Stopping) } else { Ok(()) }
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.shared.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Ticket, oneshot::Sender<ProbeAnswer>>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Agent {
    fn parse(&self, manifest: &Manifest<'_>) -> Result<PodSpec, Vec<Cause>> {
        let Defaults { strict, initial_delay, min_probe_period } = self.shared.defaults;
        let mut new_uid = || manifest.uid.unwrap_or_else(random_uid);
        let mut options = LoadOptions {
            strict,
            default_initial_delay: initial_delay,
            min_probe_period,
            new_uid: &mut new_uid,
        };
        let context = JsonContext { namespace: manifest.namespace, base_dir: manifest.base_dir };
        match spec::pod_from_json(manifest.body, &context, &mut options) {
            Ok(loaded) => Ok(loaded.spec),
            Err(errors) => Err(errors.problems.iter().map(cause).collect()),
        }
    }

    fn create(&self, spec: PodSpec) -> Result<(), Refusal> {
        self.check_living()?;
        let spec = Arc::new(spec);
        let mut directory = self.directory();
        let ports = directory.insert(&spec)?;
        let uid = spec.uid;
        let cmd = match ports {
            Ports::Free => PodCmd::Add(spec),
            // It exists from now on, as Failed (design 9.4).
            Ports::Taken => {
                PodCmd::Reject { spec, reason: NODE_PORTS, message: messages::NODE_PORTS_EVENT.into() }
            }
        };
        self.send(uid, cmd).inspect_err(|_| directory.remove(uid))
    }

    fn update(&self, old: &PodSpec, spec: PodSpec) -> Result<(), Refusal> {
        self.check_living()?;
        let spec = Arc::new(spec);
        let mut directory = self.directory();
        directory.check_replace(old, &spec)?;
        self.send(spec.uid, PodCmd::Update(Arc::clone(&spec)))?;
        directory.replace(&spec);
        Ok(())
    }

    fn delete(&self, pod: PodUid, grace_s: Option<u32>) -> Result<(), Refusal> {
        if self.directory().has(pod) {
            self.send(pod, PodCmd::Delete { pod, grace_s })
        } else {
            Err(Refusal::Gone)
        }
    }

    fn tallies(&self) -> Option<Vec<Parts>> {
        self.shared.engines.iter().map(Tallies::ask).collect()
    }

    fn probe_now(&self, pod: PodUid, container: ContainerIx, kind: ProbeKind) -> ProbeNow {
        let agent = self.clone();
        Box::pin(async move {
            let ticket = Ticket(agent.shared.next_ticket.fetch_add(1, Ordering::Relaxed));
            let (answer, answered) = oneshot::channel();
            {
                let mut waiting = agent.waiting();
                if waiting.len() >= PROBE_NOW_MAX {
                    return Err("too many probes are being run by hand: try again".into());
                }
                waiting.insert(ticket, answer);
            }
            let _forget = ForgetOnDrop { agent: &agent, pod, ticket };
            let cmd = PodCmd::ProbeNow { pod, container, kind, ticket };
            agent.send(pod, cmd).map_err(|refusal| Box::<str>::from(refusal.to_string()))?;
            answered.await.unwrap_or_else(|_| Err("the agent is stopping".into()))
        })
    }
}

/// `spec.x: Required value: y` as the API shows it: field and message apart, with the reason's name.
fn cause(problem: &Problem) -> Cause {
    const REASONS: [(&str, &str); 6] = [
        ("Required value", "FieldValueRequired"),
        ("Invalid value", "FieldValueInvalid"),
        ("Forbidden", "FieldValueForbidden"),
        ("Unsupported value", "FieldValueNotSupported"),
        ("Duplicate value", "FieldValueDuplicate"),
        ("Too many", "FieldValueTooMany"),
    ];
    let text = &problem.text;
    for (words, reason) in REASONS {
        if let Some((field, rest)) = text.split_once(&format!(": {words}")) {
            let message = format!("{words}{rest}").into();
            return Cause { reason: reason.into(), field: field.into(), message };
        }
    }
    Cause { reason: "FieldValueInvalid".into(), field: "".into(), message: text.as_str().into() }
}

/// A caller that goes away leaves neither an entry behind nor the run that it asked for, unless that is an exec run: its
/// command may be in the middle of something, and ends by itself or at the probe's timeout.
struct ForgetOnDrop<'a> {
    agent: &'a Agent,
    pod: PodUid,
    ticket: Ticket,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        let is_unanswered = self.agent.waiting().remove(&self.ticket).is_some();
        if is_unanswered {
            // An executor that is too busy to hear of it lets the run end by its timeout.
            let _ = self.agent.send(self.pod, PodCmd::ForgetNow { pod: self.pod, ticket: self.ticket });
        }
    }
}
