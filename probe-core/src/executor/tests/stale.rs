//! Messages that come twice, late, or after what they were about is gone. None may change anything.

use super::Step;
use super::world::{Node, POD, one, probe};
use crate::executor::Input;
use crate::model::id::{ContainerIx, InstanceId};
use crate::model::pod::RestartPolicy;
use crate::model::probe::{Outcome, Phases, ProbeEvent, ProbeKind, RunResult, Verdict};
use crate::model::runtime::{ExitStatus, RuntimeEvent, StartError};

fn instance(restart_count: u32) -> InstanceId {
    InstanceId { pod: POD, container: ContainerIx(0), restart_count }
}

/// A pod whose container was killed once and runs as instance 1.
fn restarted() -> Node {
    let spec = one(RestartPolicy::Always, |c| c.liveness = Some(probe()));
    let mut node = Node::new("stale", spec.clone(), &[]);
    node.take(Step::Add(spec));
    node.take(Step::Probe(0, ProbeKind::Liveness, Verdict::Failure, 3));
    node.take(Step::Shows(0, "running, ready, restarts 1, last Error 143"));
    node
}

#[test]
fn every_runtime_event_again_for_either_instance() {
    let mut node = restarted();
    let at = node.now();
    let mut stale = 0;
    for restart_count in [0, 1, 2] {
        let instance = instance(restart_count);
        let events = [
            RuntimeEvent::Created { instance, at },
            RuntimeEvent::Started { instance, pid: 5, at },
            RuntimeEvent::StartFailed { instance, error: StartError::Run, message: "late".into(), at },
            RuntimeEvent::Gone { instance, termination_message: Some("late".into()) },
        ];
        for event in events {
            node.input(Input::Runtime(event));
            stale += 1;
            node.take(Step::Stale(stale));
        }
        if restart_count != 1 {
            let exited =
                RuntimeEvent::Exited { instance, status: ExitStatus::Code(9), oom_killed: false, at };
            node.input(Input::Runtime(exited));
            stale += 1;
            node.take(Step::Stale(stale));
        }
    }
    node.take(Step::Shows(0, "running, ready, restarts 1, last Error 143"));
}

#[test]
fn outcomes_of_another_generation_or_instance() {
    let mut node = restarted();
    let arm = node.arm_of(0, ProbeKind::Liveness).clone();
    let result = RunResult { verdict: Verdict::Failure, detail: None, phases: Phases::default() };
    let outcome = |generation, index| {
        let probe = crate::model::id::ProbeKey { index, ..arm.probe };
        let instance = instance(0);
        let outcome = Outcome { probe, generation, instance, folded_successes: 0, result: result.clone() };
        Input::Probe(ProbeEvent::Outcome(outcome))
    };
    let index = arm.probe.index;
    for _ in 0..3 {
        node.input(outcome(arm.generation - 1, index));
        node.input(outcome(arm.generation + 1, index));
        node.input(outcome(arm.generation, index + 1));
    }
    node.take(Step::Stale(9));
    let generation = arm.generation - 1;
    let due = ProbeEvent::ExecDue { probe: arm.probe, generation, instance: instance(0) };
    node.input(Input::Probe(due));
    node.take(Step::Stale(10));
    node.take(Step::Shows(0, "running, ready, restarts 1, last Error 143"));
}

#[test]
fn the_exit_and_the_last_failure_of_one_turn() {
    for exit_first in [true, false] {
        let spec = one(RestartPolicy::Always, |c| c.liveness = Some(probe()));
        let mut node = Node::new("race", spec.clone(), &[]);
        node.take(Step::Add(spec));
        node.take(Step::Probe(0, ProbeKind::Liveness, Verdict::Failure, 2));
        let arm = node.arm_of(0, ProbeKind::Liveness);
        let result =
            RunResult { verdict: Verdict::Failure, detail: Some("x".into()), phases: Phases::default() };
        let (probe, generation) = (arm.probe, arm.generation);
        let outcome = Outcome { probe, generation, instance: instance(0), folded_successes: 0, result };
        let outcome = Input::Probe(ProbeEvent::Outcome(outcome));
        if exit_first {
            node.take(Step::Exit(0, 1));
            node.input(outcome);
            // Of the three failures two were counted; the new instance inherits them (10.5).
            node.take(Step::Stale(1));
        } else {
            node.input_with_exit(outcome, 0, 1);
        }
        // Either way one restart, and no kill of what has ended already.
        node.take(Step::Shows(0, "running, ready, restarts 1, last Error 1"));
        assert!(!node.said().iter().any(|line| line.contains("Killing")), "{:?}", node.said());
    }
}
