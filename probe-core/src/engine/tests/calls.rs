//! Runs that others make: the shard keeps their time, and an outcome counts for its own generation only.

use super::*;
use crate::model::probe::{CallId, GrpcTarget, Phases};

const ONCE: Ticket = Ticket(3);

fn grpc() -> Target {
    Target::Grpc(GrpcTarget { addr: addr(), service: "s".into() })
}

fn of(generation: u32) -> CallId {
    CallId::Probe { probe: key(0), generation }
}

fn done(call: CallId, verdict: Verdict) -> ProbeCmd {
    ProbeCmd::CallDone { call, result: RunResult { verdict, detail: None, phases: Phases::default() } }
}

/// Asked for and cut so far, in order.
fn said(sim: &Sim) -> Vec<(&'static str, CallId)> {
    let said = sim.events.iter().filter_map(|(_, event)| match event {
        ProbeEvent::CallDue { call, .. } => Some(("due", *call)),
        ProbeEvent::CallCut { call } => Some(("cut", *call)),
        ProbeEvent::Outcome(_)
        | ProbeEvent::ExecDue { .. }
        | ProbeEvent::OnceDone { .. }
        | ProbeEvent::Resolve { .. } => None,
    });
    said.collect()
}

#[test]
fn one_call_at_a_time_and_its_outcome_is_the_probes() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.arm(0, 4, grpc());
    sim.run_until(at_ms(12_000));
    // The first has not ended: the tick that came meanwhile waits.
    assert_eq!(said(&sim), [("due", of(4))]);
    sim.inputs.push(done(of(4), Verdict::Failure));
    sim.run_until(at_ms(12_500));
    assert_eq!(said(&sim), [("due", of(4)), ("due", of(4))]);
    let verdicts: Vec<_> = sim.outcomes().iter().map(|(_, o)| (o.generation, o.result.verdict)).collect();
    assert_eq!(verdicts, [(4, Verdict::Failure)]);
    sim.finish();
}

#[test]
fn a_late_outcome_of_an_older_generation_changes_nothing() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.arm(0, 1, grpc());
    sim.run_until(at_ms(1_100));
    sim.arm(0, 2, grpc());
    sim.run_until(at_ms(1_200));
    assert_eq!(said(&sim), [("due", of(1)), ("cut", of(1)), ("due", of(2))]);
    // The cut came too late: the call had ended.
    sim.inputs.push(done(of(1), Verdict::Failure));
    sim.run_until(at_ms(1_300));
    assert!(sim.outcomes().is_empty());
    sim.inputs.push(done(of(2), Verdict::Success));
    sim.inputs.push(done(of(2), Verdict::Failure));
    sim.run_until(at_ms(1_400));
    let verdicts: Vec<_> = sim.outcomes().iter().map(|(_, o)| (o.generation, o.result.verdict)).collect();
    assert_eq!(verdicts, [(2, Verdict::Success)], "the second outcome belongs to no run");
    sim.finish();
}

#[test]
fn hold_and_drop_cut_the_call() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.arm(0, 1, grpc());
    sim.run_until(at_ms(1_100));
    sim.inputs.push(ProbeCmd::Hold { probe: key(0), generation: 1 });
    sim.inputs.push(ProbeCmd::Drop { probe: key(0) });
    sim.inputs.push(done(of(1), Verdict::Failure));
    sim.run_until(at_ms(61_000));
    assert_eq!(said(&sim), [("due", of(1)), ("cut", of(1))]);
    assert!(sim.outcomes().is_empty());
    sim.finish();
}

#[test]
fn a_call_outside_any_schedule_is_answered_once() {
    let mut sim = Sim::new(Faults::none(), 1);
    let once = CallId::Once { ticket: ONCE };
    let ask = || ProbeCmd::Once { ticket: ONCE, target: Arc::new(grpc()), timeout: Duration::from_secs(1) };
    sim.inputs.push(ask());
    sim.run_until(at_ms(1_010));
    sim.inputs.push(done(once, Verdict::Success));
    sim.inputs.push(done(once, Verdict::Failure));
    sim.run_until(at_ms(1_020));
    let answers: Vec<_> = sim
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            ProbeEvent::OnceDone { ticket, outcome } => Some((*ticket, outcome.verdict)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(ONCE, Verdict::Success)]);

    // The end of the shard answers for the call, and cuts it.
    sim.inputs.push(ask());
    sim.run_until(at_ms(1_030));
    let mut out = Vec::new();
    sim.shard.stop(Twin::now(sim.time), &mut out);
    let [ProbeEvent::OnceDone { ticket: ONCE, .. }, ProbeEvent::CallCut { call }] = out.as_slice() else {
        panic!("{out:?}")
    };
    assert_eq!(*call, once);
    sim.finish();
}
