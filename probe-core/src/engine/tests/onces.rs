//! Probes by hand.

use super::*;
use crate::model::limits::EXACT_STEPS;

#[test]
fn a_one_shot_probe_is_stepped() {
    for seed in 0..40 {
        let mut sim = Sim::new(if seed == 0 { Faults::none() } else { Faults::harmless() }, seed);
        sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(7), OK));
        let target = Arc::new(http());
        sim.inputs.push(ProbeCmd::Once { ticket: Ticket(5), target, timeout: Duration::from_secs(2) });
        sim.run_until(at_ms(3_500));
        let [(_, ProbeEvent::OnceDone { ticket: Ticket(5), outcome })] = sim.events.as_slice() else {
            panic!("{:?}", sim.events)
        };
        let RunResult { verdict: Verdict::Success, detail: None, phases } = outcome else {
            panic!("{outcome:?}")
        };
        let steps = [
            Some(phases.due),
            phases.submitted,
            phases.connected,
            phases.sent,
            phases.first_byte,
            Some(phases.done),
        ];
        let steps: Vec<Mono> = steps.into_iter().flatten().collect();
        assert!(steps.len() == 6 && steps.is_sorted(), "{phases:?}");
        sim.finish();
    }
}

#[test]
fn stopping_answers_whoever_waits() {
    let mut sim = Sim::new(Faults::harmless(), 2);
    sim.world.listen(addr(), Behaviour::hang());
    for ticket in 0..3 * u64::from(SLOTS) {
        let timeout = Duration::from_secs(30);
        sim.inputs.push(ProbeCmd::Once { ticket: Ticket(ticket), target: Arc::new(http()), timeout });
    }
    sim.run_until(at_ms(1_500));
    let mut out = Vec::new();
    sim.shard.stop(Twin::now(sim.time), &mut out);
    assert_eq!(out.len(), 3 * SLOTS as usize);
    sim.finish();
}

/// Asks for `count` probes by hand of a server that never answers.
fn ask_mute(sim: &mut Sim, tickets: std::ops::Range<u64>, timeout: Duration) {
    for ticket in tickets {
        let target = Arc::new(http_at("10.9.9.9", "/"));
        sim.inputs.push(ProbeCmd::Once { ticket: Ticket(ticket), target, timeout });
    }
}

#[test]
fn scheduled_probes_do_not_wait_for_those_by_hand() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(SocketAddr::from(([10, 9, 9, 9], 80)), Behaviour::hang());
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, OK));
    ask_mute(&mut sim, 0..3 * u64::from(SLOTS), Duration::from_secs(600));
    sim.arm(0, 1, http());
    sim.run_until(at_ms(60_000));
    let outcomes = sim.outcomes();
    assert!(outcomes.len() >= 5, "{}", outcomes.len());
    assert!(outcomes.iter().all(|(_, outcome)| outcome.result.verdict == Verdict::Success));
    let stats = sim.shard.stats();
    assert_eq!((stats.in_flight, stats.waiting), (2, 3 * SLOTS as usize - 2), "a quarter of the slots");
    sim.finish();
}

#[test]
fn what_nobody_wants_any_more_waits_for_no_slot() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(SocketAddr::from(([10, 9, 9, 9], 80)), Behaviour::hang());
    sim.world.listen(addr(), Behaviour::hang());
    ask_mute(&mut sim, 0..u64::from(SLOTS), Duration::from_secs(600));
    for index in 0..SLOTS {
        sim.arm(index, 1, http());
    }
    sim.run_until(at_ms(1_100));
    for ticket in 100..2_100 {
        ask_mute(&mut sim, ticket..ticket + 1, Duration::from_secs(1));
        sim.inputs.push(ProbeCmd::CutOnce { ticket: Ticket(ticket) });
    }
    for generation in 2..1_000 {
        sim.arm(7, generation, http());
        sim.run_until(sim.time.after(Duration::from_micros(50)));
    }
    let armed = SLOTS as usize;
    let stats = sim.shard.stats();
    assert!(stats.waiting <= 2 * armed, "{}", stats.waiting);
    sim.finish();
}

#[test]
fn a_busy_shard_looks_at_once_while_somebody_wants_to_see_each_step() {
    let mut sim = Sim::new(Faults::none(), 3);
    sim.world.listen(addr(), Behaviour::hang());
    sim.arm(0, 1, http());
    sim.run_until(sim.time.after(Duration::from_millis(500)));
    assert!(sim.shard.may_gather(sim.time), "a scheduled run waits for its answer");
    let timeout = Duration::from_millis(300);
    sim.inputs.push(ProbeCmd::Once { ticket: Ticket(1), target: Arc::new(http()), timeout });
    let begun = sim.time;
    sim.run_until(begun.after(Duration::from_millis(1)));
    assert!(!sim.shard.may_gather(begun.after(EXACT_STEPS - Duration::from_nanos(1))));
    assert!(sim.shard.may_gather(sim.time.after(EXACT_STEPS)), "for no longer than that, whatever hangs");
}
