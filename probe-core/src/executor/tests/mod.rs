//! Scripts for the shard: what happens at which time, and the lines that it must say.
//!
//! Time is virtual, the runtime follows a script per container, and probe outcomes come from the case. A
//! case is data: its id (of `conformance-cases.md` where it has one), a pod, steps, and the whole transcript.

mod backoff;
mod ends;
mod hooks;
mod oom;
mod order;
mod probes;
mod stale;
mod world;

use crate::model::pod::PodSpec;
use crate::model::probe::{ProbeKind, Verdict};
use crate::model::runtime::ExecResult;
use world::{Node, Run};

/// One thing that happens to the node.
#[derive(Clone)]
enum Step {
    /// Time goes on to this many milliseconds after the start.
    Until(u64),
    /// A run of the probe of container `0` ends so often with this verdict.
    Probe(usize, ProbeKind, Verdict, u32),
    /// An exec probe is due.
    ExecDue(usize, ProbeKind),
    /// The oldest exec run that waits is answered.
    ExecDone(ExecResult),
    /// The oldest one-shot request is answered: the verdict and its text.
    OnceDone(Verdict, &'static str),
    Add(PodSpec),
    Update(PodSpec),
    Delete(Option<u32>),
    Reject,
    ProbeNow(usize, ProbeKind),
    /// Whoever asked for that goes away.
    ForgetNow,
    /// The running instance of the container ends by itself.
    Exit(usize, u8),
    /// The whole transcript since the last one of these.
    Says(&'static [&'static str]),
    /// How the status shows a container.
    Shows(usize, &'static str),
    Phase(&'static str),
    /// Pods, probes and open questions that the shard still holds.
    Holds(usize, usize, usize),
    /// Inputs that were about something that is not current.
    Stale(u64),
    /// Whether the container's probe of this kind ticks.
    Armed(usize, ProbeKind, bool),
    /// Whether an engine has the counters of a probe's runs.
    Counted(usize, ProbeKind, bool),
}

/// A pod that is added at time zero, what the runtime does with the containers, and what happens.
struct Case {
    id: &'static str,
    pod: PodSpec,
    runs: Vec<(usize, Vec<Run>)>,
    steps: Vec<Step>,
}

fn check(cases: Vec<Case>) {
    for case in cases {
        let id = case.id;
        let mut node = Node::new(id, case.pod.clone(), &case.runs);
        node.take(Step::Add(case.pod));
        for step in case.steps {
            node.take(step);
        }
    }
}
