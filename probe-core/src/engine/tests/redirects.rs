//! Answers that lead elsewhere.

use super::*;
use crate::model::limits::{RESOLVING_ONE_IN, UNRESOLVED_ONE_IN};
use crate::model::probe::Redirects;

#[test]
fn redirects() {
    let to = |location: &str| {
        let wire = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        Some(Behaviour::answer(Duration::from_millis(1), wire))
    };
    check(
        "HTTP-29",
        http(),
        to("/loop"),
        Verdict::Failure,
        Some("Get \"/loop\": stopped after 10 redirects"),
        10,
    );
    check(
        "bad Location",
        http(),
        to("http://10.0.0.1:80/%zz"),
        Verdict::Failure,
        Some(
            "Get \"http://10.0.0.1:80/\": failed to parse Location header \"http://10.0.0.1:80/%zz\": parse \"http://10.0.0.1:80/%zz\": invalid URL escape \"%zz\"",
        ),
        1,
    );
    let other: SocketAddr = "10.0.0.1:81".parse().unwrap();
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), to("http://10.0.0.1:81/x").unwrap());
    sim.world.listen(other, Behaviour::answer(Duration::ZERO, OK));
    sim.arm(0, 1, http());
    sim.run_until(at_ms(2_000));
    assert_eq!(sim.outcomes()[0].1.result.verdict, Verdict::Success, "HTTP-26 with a healthy end");
    assert_eq!((sim.world.accepted(addr()), sim.world.accepted(other)), (1, 1));
    sim.finish();
}

#[test]
fn the_end_of_a_redirects_connection_takes_nothing_of_the_timeout() {
    let other = SocketAddr::new(addr().ip(), 81);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1:81/x\r\nContent-Length: 0\r\n\r\n";
    // (the second answer comes after so many milliseconds, verdict): the first one takes 990 of the 1,000.
    for (second_ms, verdict) in [(8, Verdict::Success), (12, Verdict::Failure)] {
        let mut sim = Sim::new(Faults::none(), 1);
        // It does not close, so the wait for its FIN takes five milliseconds.
        sim.world.listen(addr(), Behaviour::partial(Duration::from_millis(990), redirect));
        sim.world.listen(other, Behaviour::answer(Duration::from_millis(second_ms), OK));
        sim.arm(0, 1, http());
        sim.run_until(at_ms(3_000));
        assert_eq!(sim.outcomes()[0].1.result.verdict, verdict, "{second_ms} ms: {:?}", sim.outcomes());
        sim.finish();
    }
}

#[test]
fn an_absence_at_the_end_of_a_redirects_connection_excuses_no_later_hop() {
    let other = SocketAddr::new(addr().ip(), 81);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1:81/x\r\nContent-Length: 0\r\n\r\n";
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::partial(Duration::from_millis(100), redirect));
    sim.world.listen(other, Behaviour::hang());
    let start = sim.time;
    let after_ms = |ms| start.after(Duration::from_millis(ms));
    sim.arm(0, 1, http());
    sim.run_until(after_ms(102));
    // The wait for the FIN should have ended at 105 ms.
    sim.time = after_ms(502);
    sim.run_until(after_ms(3_000));
    let (at, outcome) = sim.outcomes()[0];
    assert!(sim.shard.counters().missed_us > 100_000, "a tenth of the timeout was missed");
    assert_eq!(outcome.result.verdict, Verdict::Failure, "{outcome:?}");
    assert!(at >= after_ms(1_400), "it had its whole timeout: {outcome:?}");
    sim.finish();
}

const ELSEWHERE: &str = "HTTP/1.1 302 Found\r\nLocation: http://other.local:81/\r\nContent-Length: 0\r\n\r\n";
const CROWDED: &str = "Get \"http://other.local:81/\": lookup other.local: too many look-ups at a time: give probes of \
                       names longer periods";

/// A probe that follows redirects anywhere.
fn anywhere() -> Target {
    let mut target = http();
    if let Target::Http(http) = &mut target {
        let special = HttpSpecial { redirects: Redirects::AnyHost, ..HttpSpecial::default() };
        http.special = Some(Box::new(special));
    }
    target
}

/// The names that were asked for, in their order.
fn asked(sim: &Sim) -> Vec<(Ticket, &str)> {
    let questions = sim.events.iter().filter_map(|(_, event)| match event {
        ProbeEvent::Resolve { ticket, host, .. } => Some((*ticket, &**host)),
        _ => None,
    });
    questions.collect()
}

/// The resolver's answer to the question of this place.
fn answer(sim: &mut Sim, at: usize) {
    let ticket = asked(sim)[at].0;
    sim.inputs.push(ProbeCmd::Resolved { ticket, addr: Ok(addr().ip()) });
    sim.run_until(sim.time.after(Duration::from_millis(20)));
}

#[test]
fn hops_wait_for_a_place_among_those_that_look_names_up() {
    let other = SocketAddr::new(addr().ip(), 81);
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, ELSEWHERE));
    sim.world.listen(other, Behaviour::answer(Duration::ZERO, OK));
    let places = (SLOTS / RESOLVING_ONE_IN) as usize;
    let (resolving, unresolved) = (SLOTS / RESOLVING_ONE_IN, SLOTS / UNRESOLVED_ONE_IN);
    (0..resolving + unresolved).for_each(|index| sim.arm(index, 1, anywhere()));
    sim.run_until(at_ms(1_100));
    assert_eq!(asked(&sim).len(), places, "as many as there are places");
    answer(&mut sim, 0);
    assert_eq!((asked(&sim).len(), sim.outcomes().len()), (places + 1, 1), "one is done, the next one asks");
    // Whoever is not wanted any more leaves the queue, or its place.
    for index in 0..SLOTS {
        sim.inputs.push(ProbeCmd::Hold { probe: key(index), generation: 1 });
    }
    sim.run_until(at_ms(1_300));
    assert_eq!(asked(&sim).len(), places + 1);
    assert_eq!(sim.shard.stats().in_flight, 0);
    sim.finish();
}

#[test]
fn a_hop_that_gets_no_place_in_time_says_nothing_of_the_target() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, ELSEWHERE));
    for index in 0..SLOTS {
        sim.arm(index, 1, anywhere());
        // The first ones have more patience, so they keep their places.
        if let Some(ProbeCmd::Arm(arm)) = sim.inputs.last_mut().filter(|_| index < SLOTS / 2) {
            (arm.period, arm.timeout) = (Duration::from_secs(60), Duration::from_secs(30));
        }
        sim.run_until(sim.time.after(Duration::from_millis(20)));
    }
    sim.run_until(sim.time.after(Duration::from_secs(3)));
    let outcomes = sim.outcomes();
    let done: Vec<_> = outcomes
        .iter()
        .map(|(_, outcome)| (outcome.result.verdict, outcome.result.detail.as_deref()))
        .collect();
    assert_eq!(done, vec![(Verdict::Errored, Some(CROWDED)); SLOTS as usize / 2]);
    sim.finish();
}

#[test]
fn hops_to_a_dead_name_leave_slots_to_probes_of_addresses() {
    let plain = SocketAddr::new(addr().ip(), 82);
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, ELSEWHERE));
    sim.world.listen(plain, Behaviour::answer(Duration::ZERO, OK));
    (0..SLOTS).for_each(|index| sim.arm(index, 1, anywhere()));
    sim.run_until(at_ms(1_100));
    let crowded = |sim: &Sim| {
        let outcomes = sim.outcomes();
        let texts = outcomes.iter().map(|(_, outcome)| outcome.result.detail.as_deref());
        texts.filter(|text| *text == Some(CROWDED)).count()
    };
    let (resolving, unresolved) = (SLOTS / RESOLVING_ONE_IN, SLOTS / UNRESOLVED_ONE_IN);
    let beyond = (SLOTS - resolving - unresolved) as usize;
    assert_eq!((crowded(&sim), sim.outcomes().len()), (beyond, beyond), "those beyond err at once");
    // One is called by its address while the dead name holds what it may hold.
    let tickets: Vec<Ticket> = asked(&sim).into_iter().map(|(ticket, _)| ticket).collect();
    sim.inputs.extend(tickets.into_iter().map(|ticket| ProbeCmd::Resolving { ticket }));
    let mut target = http();
    if let Target::Http(http) = &mut target {
        http.port = plain.port();
    }
    sim.arm(SLOTS, 1, target);
    sim.run_until(at_ms(1_200));
    assert_eq!(sim.outcomes().len(), beyond + 1);
    assert_eq!(sim.outcomes()[beyond].1.result.verdict, Verdict::Success);
    sim.run_until(at_ms(2_200));
    assert_eq!(sim.outcomes().len(), SLOTS as usize + 1, "each was held for one timeout");
    assert_eq!(crowded(&sim), beyond + unresolved as usize);
    assert_eq!((sim.shard.counters().repeated, sim.shard.stats().in_flight), (0, 0));
    sim.finish();
}

#[test]
fn hops_and_first_runs_take_turns_at_the_resolver() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, ELSEWHERE));
    let (resolving, unresolved) = (SLOTS / RESOLVING_ONE_IN, SLOTS / UNRESOLVED_ONE_IN);
    (0..resolving + unresolved).for_each(|index| sim.arm(index, 1, anywhere()));
    sim.run_until(at_ms(1_050));
    let mut named = http();
    if let Target::Http(http) = &mut named {
        http.host = Host::Name("first.local".into());
    }
    (SLOTS..SLOTS + 2).for_each(|index| sim.arm(index, 1, named.clone()));
    sim.run_until(at_ms(1_100));
    let before = resolving as usize;
    assert_eq!(asked(&sim).len(), before);
    // Each answer makes one place free.
    (0..4).for_each(|at| answer(&mut sim, at));
    let names: Vec<_> = asked(&sim)[before..].iter().map(|(_, name)| *name).collect();
    assert_eq!(names, ["other.local", "first.local", "other.local", "first.local"]);
    sim.finish();
}

#[test]
fn a_refused_hop_ends_when_it_is_refused() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1:81/x\r\nContent-Length: 0\r\n\r\n";
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::partial(Duration::from_millis(100), redirect));
    sim.arm(0, 1, http());
    sim.run_until(at_ms(3_000));
    let (at, outcome) = sim.outcomes()[0];
    assert_eq!((outcome.result.verdict, outcome.result.phases.done), (Verdict::Failure, at));
}
