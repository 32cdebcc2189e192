//! What goes into an executor shard and what comes out.

use std::sync::Arc;

use crate::model::event::PodEvent;
use crate::model::id::{ContainerIx, PodUid, Ticket};
use crate::model::pod::PodSpec;
use crate::model::probe::{ProbeCmd, ProbeEvent, ProbeKind, RunResult};
use crate::model::runtime::{RuntimeCmd, RuntimeEvent};
use crate::model::status::PodSnapshot;

/// Everything that can happen to a shard.
#[derive(Clone, Debug)]
pub enum Input {
    Pod(PodCmd),
    Probe(ProbeEvent),
    Runtime(RuntimeEvent),
}

/// What people and manifests ask for.
#[derive(Clone, Debug)]
pub enum PodCmd {
    /// A pod that is new on this node (the caller has checked the name).
    Add(Arc<PodSpec>),
    /// A changed manifest for the pod with the same uid (design 9.5): metadata applies, a container whose
    /// `spec_hash` changed is restarted. The caller has checked that nothing else differs.
    Update(Arc<PodSpec>),
    /// Stop the pod and forget it. `grace_s` overrides every grace period (`deletionGracePeriodSeconds`);
    /// a second delete with a shorter grace shortens the first.
    Delete { pod: PodUid, grace_s: Option<u32> },
    /// A pod that must not run (port conflict, …): it is shown as Failed with this reason and message.
    Reject { spec: Arc<PodSpec>, reason: &'static str, message: Box<str> },
    /// Run one probe now, outside its schedule and thresholds; answered by [`Output::ProbeNowDone`].
    ProbeNow { pod: PodUid, container: ContainerIx, kind: ProbeKind, ticket: Ticket },
    /// Nobody waits for the answer to this [`PodCmd::ProbeNow`] any more.
    ForgetNow { pod: PodUid, ticket: Ticket },
}

/// Everything a shard can ask for. A start or a stop is a proposal: whoever carries the outputs may hold
/// it back (restart budget, write-ahead intent), and the runtime's event says when it happened.
#[derive(Clone, Debug)]
pub enum Output {
    Probe(ProbeCmd),
    Runtime(RuntimeCmd),
    Event(PodEvent),
    /// The pod's visible state changed.
    Status(Box<PodSnapshot>),
    /// The deleted pod is gone: drop it from every table.
    PodGone(PodUid),
    /// Answer to [`PodCmd::ProbeNow`]; `Err` says why it could not run.
    ProbeNowDone {
        ticket: Ticket,
        result: Result<RunResult, Box<str>>,
    },
}
