//! Answers that lead elsewhere.

use super::*;

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
