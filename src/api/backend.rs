//! The port behind the API: what it asks of the agent.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use probe_core::model::id::{ContainerIx, PodUid};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::{ProbeKind, RunResult};
use probe_core::model::tally::Tallied;
use thiserror::Error;

use super::error::Cause;

/// What the agent does for the API. No method waits: what was asked for shows in the store, where the API
/// looks for it.
pub trait Backend: Send + Sync + 'static {
    /// Parses, defaults and validates one pod as this agent would at load, under its own defaults.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    fn parse(&self, manifest: &Manifest<'_>) -> Result<PodSpec, Vec<Cause>>;

    /// Accepts a new pod.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    fn create(&self, spec: PodSpec) -> Result<(), Refusal>;

    /// Changes the pod with the same uid, which must still be as in `old`. The caller has checked that only
    /// metadata and container specs differ (design 9.5).
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    fn update(&self, old: &PodSpec, spec: PodSpec) -> Result<(), Refusal>;

    /// Stops and forgets the pod; `grace_s` overrides every grace period of it.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    fn delete(&self, pod: PodUid, grace_s: Option<u32>) -> Result<(), Refusal>;

    /// What the runs of every probe came to, as each engine tells it; None while too many ask for it.
    fn tallies(&self) -> Option<Vec<Parts>>;

    /// Runs one probe now, outside its schedule and thresholds.
    fn probe_now(&self, pod: PodUid, container: ContainerIx, kind: ProbeKind) -> ProbeNow;
}

/// What one engine tells, part by part, until it has told all.
pub type Parts = crossbeam::channel::Receiver<Vec<Tallied>>;

/// The outcome of a probe that was asked for, or why it could not run.
pub type ProbeNow = Pin<Box<dyn Future<Output = Result<RunResult, Box<str>>> + Send>>;

/// A pod as a client sent it.
#[derive(Copy, Clone, Debug)]
pub struct Manifest<'a> {
    /// JSON.
    pub body: &'a [u8],
    /// Of the request's path; the manifest may leave it out.
    pub namespace: &'a str,
    /// The pod keeps this uid (a change), or gets a new one.
    pub uid: Option<PodUid>,
    /// What relative commands and working directories resolve against; None when the client has not said.
    pub base_dir: Option<&'a Path>,
}

/// Why the agent did not do it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    #[error("a pod of this namespace and name exists")]
    Exists,
    #[error("the pod is gone")]
    Gone,
    /// Somebody else changed it meanwhile.
    #[error("the pod was changed meanwhile")]
    Modified,
    #[error("the node holds as many pods as it can")]
    Full,
    #[error("too much is waiting to be done; try again")]
    Busy,
    #[error("the agent is stopping")]
    Stopping,
}
