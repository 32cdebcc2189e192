//! Answers that lead elsewhere.

use super::*;
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

#[test]
fn hops_wait_for_a_place_among_those_that_look_names_up() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://other.local:81/\r\nContent-Length: 0\r\n\r\n";
    let other = SocketAddr::new(addr().ip(), 81);
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, redirect));
    sim.world.listen(other, Behaviour::answer(Duration::ZERO, OK));
    let asked = |sim: &Sim| -> Vec<Ticket> {
        let tickets = sim.events.iter().filter_map(|(_, event)| match event {
            ProbeEvent::Resolve { ticket, .. } => Some(*ticket),
            _ => None,
        });
        tickets.collect()
    };
    let places = SLOTS as usize / 2;
    for index in 0..SLOTS {
        let mut target = http();
        if let Target::Http(http) = &mut target {
            let special = HttpSpecial { redirects: Redirects::AnyHost, ..HttpSpecial::default() };
            http.special = Some(Box::new(special));
        }
        sim.arm(index, 1, target);
    }
    sim.run_until(at_ms(1_100));
    assert_eq!(asked(&sim).len(), places, "as many as there are places");
    sim.inputs.push(ProbeCmd::Resolved { ticket: asked(&sim)[0], addr: Ok(other.ip()) });
    sim.run_until(at_ms(1_200));
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
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://other.local:81/\r\nContent-Length: 0\r\n\r\n";
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, redirect));
    for ticket in 0..u64::from(SLOTS) {
        let mut target = http();
        if let Target::Http(http) = &mut target {
            let special = HttpSpecial { redirects: Redirects::AnyHost, ..HttpSpecial::default() };
            http.special = Some(Box::new(special));
        }
        // The first ones have more patience, so they keep their places.
        let timeout = Duration::from_secs(if ticket < u64::from(SLOTS) / 2 { 30 } else { 1 });
        sim.inputs.push(ProbeCmd::Once { ticket: Ticket(ticket), target: Arc::new(target), timeout });
        sim.run_until(sim.time.after(Duration::from_millis(20)));
    }
    sim.run_until(sim.time.after(Duration::from_secs(3)));
    let done: Vec<_> = sim
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            ProbeEvent::OnceDone { outcome, .. } => Some((outcome.verdict, outcome.detail.as_deref())),
            _ => None,
        })
        .collect();
    let text = "Get \"http://other.local:81/\": lookup other.local: too many look-ups at a time: give probes of \
                names longer periods";
    assert_eq!(done, vec![(Verdict::Errored, Some(text)); SLOTS as usize / 2]);
    sim.finish();
}
