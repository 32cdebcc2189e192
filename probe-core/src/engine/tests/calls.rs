//! Runs that others make: the shard keeps their time, and an outcome counts for its own generation only.

use super::*;
use crate::model::limits::GRPC_POD_CALLS_MAX;
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

/// A call of probe 0 has ended that began at this moment.
fn began_at(call: CallId, due_ms: u64, submitted_ms: u64) -> ProbeCmd {
    let phases = Phases { due: at_ms(due_ms), submitted: Some(at_ms(submitted_ms)), ..Phases::default() };
    ProbeCmd::CallDone { call, result: RunResult { verdict: Verdict::Failure, detail: None, phases } }
}

fn probe_of(index: usize) -> CallId {
    CallId::Probe { probe: key(index as u32), generation: 1 }
}

#[test]
fn what_waits_for_a_place_is_seen_and_late_and_begins_when_there_is_one() {
    let mut sim = Sim::new(Faults::none(), 1);
    let armed = GRPC_POD_CALLS_MAX + 2;
    (0..armed).for_each(|index| sim.arm(index as u32, 1, grpc()));
    sim.run_until(at_ms(1_100));
    assert_eq!(said(&sim).len(), GRPC_POD_CALLS_MAX);
    let stats = sim.shard.stats();
    assert_eq!((stats.in_flight, stats.waiting), (GRPC_POD_CALLS_MAX, 2));
    // One has an outcome, one is held: each leaves its place to one that waits.
    sim.inputs.push(began_at(probe_of(0), 1_000, 1_001));
    sim.inputs.push(ProbeCmd::Hold { probe: key(1), generation: 1 });
    sim.run_until(at_ms(4_000));
    let begun: Vec<_> = said(&sim).into_iter().skip(GRPC_POD_CALLS_MAX).collect();
    let last = [probe_of(armed - 2), probe_of(armed - 1)];
    assert_eq!(begun, [("cut", probe_of(1)), ("due", last[0]), ("due", last[1])]);
    sim.inputs.push(began_at(last[0], 1_000, 4_000));
    sim.run_until(at_ms(4_100));
    let stats = sim.shard.stats();
    assert_eq!((stats.in_flight, stats.waiting), (GRPC_POD_CALLS_MAX - 1, 0));
    assert_eq!((stats.lateness_us.len(), stats.counters.late_starts), (2, 1));
    assert!(stats.lateness_us.max() >= 2_900_000, "{} µs", stats.lateness_us.max());
    sim.finish();
}

#[test]
fn a_call_that_is_held_while_it_waits_never_begins() {
    let mut sim = Sim::new(Faults::none(), 1);
    let armed = GRPC_POD_CALLS_MAX + 1;
    (0..armed).for_each(|index| sim.arm(index as u32, 1, grpc()));
    sim.run_until(at_ms(1_100));
    sim.inputs.push(ProbeCmd::Hold { probe: key(armed as u32 - 1), generation: 1 });
    sim.inputs.push(done(probe_of(0), Verdict::Success));
    sim.run_until(at_ms(1_200));
    let stats = sim.shard.stats();
    assert_eq!((stats.in_flight, stats.waiting), (GRPC_POD_CALLS_MAX - 1, 0));
    assert_eq!(said(&sim).len(), GRPC_POD_CALLS_MAX, "neither a call nor a cut of it");
    sim.finish();
}

#[test]
fn one_shot_probes_have_a_share_of_their_own_and_end_when_nobody_waits() {
    let mut sim = Sim::new(Faults::none(), 1);
    let target = Arc::new(grpc());
    let timeout = Duration::from_secs(1_000);
    for ticket in 0..=GRPC_POD_CALLS_MAX as u64 {
        sim.inputs.push(ProbeCmd::Once { ticket: Ticket(ticket), target: target.clone(), timeout });
    }
    sim.arm(0, 1, grpc());
    sim.run_until(at_ms(1_100));
    let stats = sim.shard.stats();
    assert_eq!((stats.in_flight, stats.waiting), (GRPC_POD_CALLS_MAX + 1, 1));
    let once = |ticket: usize| CallId::Once { ticket: Ticket(ticket as u64) };
    sim.inputs.push(ProbeCmd::CutOnce { ticket: Ticket(0) });
    sim.run_until(at_ms(1_200));
    let since: Vec<_> = said(&sim).into_iter().skip(GRPC_POD_CALLS_MAX + 1).collect();
    assert_eq!(since, [("cut", once(0)), ("due", once(GRPC_POD_CALLS_MAX))]);
    // Twice, or for an unknown one, it means nothing; nor does the outcome that came too late.
    sim.inputs.push(ProbeCmd::CutOnce { ticket: Ticket(0) });
    sim.inputs.push(done(once(0), Verdict::Success));
    sim.run_until(at_ms(1_300));
    assert_eq!(sim.shard.stats().in_flight, GRPC_POD_CALLS_MAX + 1);
    assert!(!sim.events.iter().any(|(_, event)| matches!(event, ProbeEvent::OnceDone { .. })));
    let mut out = Vec::new();
    sim.shard.stop(Twin::now(sim.time), &mut out);
    let cut = out.iter().filter(|event| matches!(event, ProbeEvent::CallCut { .. })).count();
    assert_eq!((cut, sim.shard.stats().in_flight), (GRPC_POD_CALLS_MAX + 1, 0));
    sim.finish();
}

#[test]
fn a_one_shot_probe_on_the_ring_ends_when_nobody_waits() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::hang());
    let timeout = Duration::from_secs(1_000);
    sim.inputs.push(ProbeCmd::Once { ticket: ONCE, target: Arc::new(http()), timeout });
    sim.run_until(at_ms(1_100));
    assert_eq!(sim.shard.stats().in_flight, 1);
    sim.inputs.push(ProbeCmd::CutOnce { ticket: ONCE });
    sim.run_until(at_ms(1_200));
    let stats = sim.shard.stats();
    assert_eq!((stats.in_flight, stats.counters.abandoned), (0, 1));
    assert!(sim.events.is_empty(), "{:?}", sim.events);
    sim.finish();
}
