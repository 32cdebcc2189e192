//! Host names: what a look-up says of the target, and what our own wait for it does not.

use super::*;
use crate::model::probe::LookupError;

const URL: &str = "Get \"http://kiada.local:80/\": ";
const CROWDED: &str = "lookup kiada.local: too many look-ups at a time: give probes of names longer periods";

/// So many probes of one name have asked at 1,000 ms, each with a timeout of a second.
fn asking(count: u32) -> (Sim, Vec<Ticket>) {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, OK));
    (0..count).for_each(|index| sim.arm(index, 1, http_at("kiada.local", "/")));
    sim.run_until(at_ms(1_000));
    let tickets = asked(&sim);
    assert_eq!(tickets.len(), count as usize);
    (sim, tickets)
}

fn asked(sim: &Sim) -> Vec<Ticket> {
    let questions = sim.events.iter().filter_map(|(_, event)| match event {
        ProbeEvent::Resolve { ticket, .. } => Some(*ticket),
        _ => None,
    });
    questions.collect()
}

fn found(ticket: Ticket) -> ProbeCmd {
    ProbeCmd::Resolved { ticket, addr: Ok(addr().ip()) }
}

fn not_found(ticket: Ticket, verdict: Verdict, text: &str) -> ProbeCmd {
    ProbeCmd::Resolved { ticket, addr: Err(LookupError { verdict, text: text.into() }) }
}

/// When the first outcome came, in milliseconds, and what it was.
#[track_caller]
fn first(sim: &Sim) -> (u64, Verdict, Option<&str>) {
    let (at, outcome) = sim.outcomes()[0];
    (at.as_ns() / 1_000_000, outcome.result.verdict, outcome.result.detail.as_deref())
}

#[test]
fn names_are_resolved_at_every_run_within_the_timeout() {
    let (mut sim, tickets) = asking(3);
    sim.inputs.extend(tickets.iter().map(|ticket| ProbeCmd::Resolving { ticket: *ticket }));
    sim.run_until(at_ms(1_100));
    sim.inputs.push(found(tickets[0]));
    let error = "lookup kiada.local on 10.0.0.53:53: no such host";
    sim.inputs.push(not_found(tickets[1], Verdict::Failure, error));
    sim.run_until(at_ms(2_100));
    sim.inputs.push(found(tickets[2]));
    sim.run_until(at_ms(3_000));
    let mut results: Vec<(u32, Option<Box<str>>)> =
        sim.outcomes().iter().map(|(_, o)| (o.probe.index, o.result.detail.clone())).collect();
    results.sort();
    let url = "Get \"http://kiada.local:80/\": dial tcp: lookup kiada.local";
    assert_eq!(results[0], (0, None));
    assert_eq!(results[1].1.as_deref(), Some(format!("{url} on 10.0.0.53:53: no such host").as_str()));
    assert_eq!(
        results[2].1.as_deref(),
        Some(format!("{url}: i/o timeout (Client.Timeout exceeded while awaiting headers)").as_str())
    );
    sim.finish();
}

#[test]
fn a_question_says_whose_it_is_and_until_when() {
    let (mut sim, _) = asking(1);
    let target = Arc::new(http_at("kiada.local", "/"));
    sim.inputs.push(ProbeCmd::Once { ticket: Ticket(5), target, timeout: Duration::from_secs(3) });
    sim.run_until(at_ms(1_001));
    let questions: Vec<_> = sim
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            ProbeEvent::Resolve { until, pod, .. } => Some((until.as_ns() / 1_000_000, *pod)),
            _ => None,
        })
        .collect();
    assert_eq!(questions, [(2_000, Some(PodUid(7))), (4_000, None)]);
    sim.finish();
}

#[test]
fn a_question_that_nobody_takes_in_time_says_nothing_of_the_target() {
    let (mut sim, tickets) = asking(1);
    sim.run_until(at_ms(2_500));
    assert_eq!(first(&sim), (2_000, Verdict::Errored, Some(format!("{URL}{CROWDED}").as_str())));
    // What comes of it later is nobody's.
    sim.inputs.push(ProbeCmd::Resolving { ticket: tickets[0] });
    sim.inputs.push(found(tickets[0]));
    sim.run_until(at_ms(9_000));
    assert_eq!((sim.outcomes().len(), asked(&sim).len()), (1, 1), "it is not repeated");
    assert_eq!((sim.shard.counters().repeated, sim.shard.stats().in_flight), (0, 0));
    sim.finish();
}

#[test]
fn a_name_that_is_taken_late_has_the_whole_timeout() {
    for (answered_ms, expected) in [(2_850, Verdict::Success), (9_000, Verdict::Failure)] {
        let (mut sim, tickets) = asking(1);
        sim.run_until(at_ms(1_900));
        sim.inputs.push(ProbeCmd::Resolving { ticket: tickets[0] });
        sim.run_until(at_ms(answered_ms));
        sim.inputs.push(found(tickets[0]));
        sim.run_until(at_ms(9_100));
        let (at, verdict, text) = first(&sim);
        assert_eq!(verdict, expected, "{text:?}");
        if verdict == Verdict::Failure {
            let timeout =
                "dial tcp: lookup kiada.local: i/o timeout (Client.Timeout exceeded while awaiting headers)";
            assert_eq!((at, text), (2_900, Some(format!("{URL}{timeout}").as_str())));
        }
        assert_eq!(sim.outcomes().len(), 1);
        sim.finish();
    }
}

#[test]
fn an_answer_without_a_word_before_it_counts() {
    let (mut sim, tickets) = asking(1);
    sim.run_until(at_ms(1_999));
    sim.inputs.push(found(tickets[0]));
    sim.run_until(at_ms(3_000));
    assert_eq!(first(&sim).1, Verdict::Success);
    sim.finish();
}

#[test]
fn what_our_own_host_lacks_for_a_look_up_is_errored() {
    // (taken, questions in all): a full queue is not asked once more, a lack of descriptors is.
    for (is_taken, questions) in [(false, 1), (true, PROBE_ATTEMPTS)] {
        let (mut sim, _) = asking(1);
        for at in 0..questions as usize {
            let ticket = asked(&sim)[at];
            sim.inputs.extend(is_taken.then_some(ProbeCmd::Resolving { ticket }));
            sim.inputs.push(not_found(ticket, Verdict::Errored, "lookup kiada.local: why"));
            sim.run_until(sim.time.after(Duration::from_millis(20)));
        }
        let text = format!("{URL}dial tcp: lookup kiada.local: why");
        let (_, verdict, detail) = first(&sim);
        assert_eq!((verdict, detail), (Verdict::Errored, Some(text.as_str())));
        assert_eq!(asked(&sim).len(), questions as usize);
        assert_eq!(sim.shard.counters().shortages, if is_taken { u64::from(questions) } else { 0 });
        sim.finish();
    }
}
