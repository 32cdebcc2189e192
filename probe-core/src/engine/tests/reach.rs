//! Kept connections, orderly ends and Unix sockets, under faults that must not matter.

use super::*;
use crate::model::probe::HttpSpecial;
use crate::ring::Peer;

const PERIOD: Duration = Duration::from_millis(100);

fn keep_alive_http() -> Target {
    let Target::Http(mut target) = http() else { panic!("an HTTP target") };
    let keeping = String::from_utf8(target.request.to_vec()).unwrap().replace("Connection: close\r\n", "");
    target.special =
        Some(Box::new(HttpSpecial { keep_alive_request: Some(keeping.into()), ..HttpSpecial::default() }));
    Target::Http(target)
}

fn arm_every(sim: &mut Sim, index: u32, target: Target) {
    sim.arm(index, 1, target);
    let Some(ProbeCmd::Arm(arm)) = sim.inputs.last_mut() else { panic!("an arm") };
    arm.period = PERIOD;
}

/// Seeds and what goes wrong under them: nothing, then everything that must not matter.
fn seeds() -> impl Iterator<Item = (u64, Faults)> {
    (0..40).map(|seed| (seed, if seed == 0 { Faults::none() } else { Faults::harmless() }))
}

#[track_caller]
fn check_successes(sim: &Sim, at_least: usize, seed: u64) {
    let outcomes = sim.outcomes();
    assert!(outcomes.len() >= at_least, "seed {seed}: {} outcomes", outcomes.len());
    for (at, outcome) in outcomes {
        assert_eq!(outcome.result.verdict, Verdict::Success, "seed {seed} at {at:?}: {outcome:?}");
    }
}

#[test]
fn one_connection_serves_many_runs() {
    for (seed, faults) in seeds() {
        let mut sim = Sim::new(faults, seed);
        sim.world.listen(addr(), Behaviour::keep_alive(Duration::from_millis(2), OK));
        arm_every(&mut sim, 0, keep_alive_http());
        sim.run_until(sim.time.after(PERIOD * 20));
        check_successes(&sim, 18, seed);
        let stats = sim.shard.stats();
        assert_eq!((sim.world.accepted(addr()), stats.kept), (1, 1), "seed {seed}");
        assert_eq!(stats.counters.reconnected, 0, "seed {seed}");
        assert!(stats.counters.reused >= 17, "seed {seed}: {:?}", stats.counters);
        sim.finish();
    }
}

#[test]
fn a_held_probe_gives_its_connection_up() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::keep_alive(Duration::ZERO, OK));
    arm_every(&mut sim, 0, keep_alive_http());
    sim.run_until(sim.time.after(PERIOD / 2));
    assert_eq!((sim.shard.stats().kept, sim.shard.is_idle()), (1, false));
    assert!(!sim.shard.is_busy(), "a connection that waits needs nobody's attention");
    sim.inputs.push(ProbeCmd::Hold { probe: key(0), generation: 1 });
    sim.run_until(sim.time.after(PERIOD));
    let stats = sim.shard.stats();
    assert_eq!((stats.kept, sim.shard.is_idle(), stats.counters.abandoned), (0, true, 0));
    sim.finish();
}

#[test]
fn servers_that_close_after_each_answer() {
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let servers = [
        ("says close", Behaviour::answer(Duration::ZERO, closing)),
        ("until close", Behaviour::answer(Duration::ZERO, "HTTP/1.1 200 OK\r\n\r\nok")),
        ("closes without a word", Behaviour::answer(Duration::ZERO, OK)),
        (
            "closes while idle",
            Behaviour::script([(Duration::ZERO, Piece::Data(OK.into())), (PERIOD / 2, Piece::Fin)]),
        ),
        (
            "sends what nobody asked for",
            Behaviour::script([
                (Duration::ZERO, Piece::Data(OK.into())),
                (PERIOD / 2, Piece::Data(OK.into())),
            ]),
        ),
    ];
    for (id, server) in servers {
        for (seed, faults) in seeds() {
            let mut sim = Sim::new(faults, seed);
            sim.world.listen(addr(), server.clone());
            arm_every(&mut sim, 0, keep_alive_http());
            sim.run_until(sim.time.after(PERIOD * 10));
            check_successes(&sim, 8, seed);
            assert!(sim.world.accepted(addr()) >= 8, "{id}, seed {seed}: {}", sim.world.accepted(addr()));
            sim.finish();
        }
    }
}

#[test]
fn a_kept_connection_that_died_is_no_failure() {
    let mut reconnected = 0;
    for (seed, faults) in seeds() {
        let mut sim = Sim::new(Faults { late: 900, ..faults }, seed);
        sim.world.listen(addr(), Behaviour::keep_alive(Duration::ZERO, OK));
        arm_every(&mut sim, 0, keep_alive_http());
        // The server restarts a moment before a run: its reset may be seen only when the request is out.
        for _ in 0..8 {
            sim.run_until(sim.time.after(PERIOD));
            sim.world.kill(addr(), sim.time);
            sim.world.listen(addr(), Behaviour::keep_alive(Duration::ZERO, OK));
        }
        sim.run_until(sim.time.after(PERIOD));
        check_successes(&sim, 8, seed);
        reconnected += sim.shard.stats().counters.reconnected;
        sim.finish();
    }
    assert!(reconnected >= 10, "{reconnected} reconnected");
}

/// A server that answers once and then says `wire` on the idle connection, `before` the probe's next run.
fn says_to_idle(wire: &str, before: Duration) -> Behaviour {
    let wire = Piece::Data(wire.to_owned().into());
    Behaviour::script([(Duration::ZERO, Piece::Data(OK.into())), (PERIOD - before, wire)])
}

#[test]
fn what_had_come_before_a_request_is_no_answer_to_it() {
    let mut reconnected = 0;
    for seed in 0..60 {
        // It is often seen only when the next request is out.
        let faults = Faults { late: 900, late_max: Duration::from_millis(20), ..Faults::none() };
        let mut sim = Sim::new(faults, seed);
        let leaves = says_to_idle(
            "HTTP/1.1 503 Leaving\r\nContent-Length: 0\r\n\r\n",
            Duration::from_millis(1 + seed % 8),
        );
        sim.world.listen(addr(), leaves);
        arm_every(&mut sim, 0, keep_alive_http());
        sim.run_until(sim.time.after(PERIOD + PERIOD / 2));
        check_successes(&sim, 1, seed);
        reconnected += sim.shard.stats().counters.reconnected;
        sim.finish();
    }
    assert!(reconnected >= 20, "{reconnected} reconnected");
}

#[test]
fn a_timeout_that_was_said_to_an_idle_connection_is_no_answer() {
    let wire = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    for (seed, faults) in seeds() {
        let mut sim = Sim::new(Faults { late: 900, ..faults }, seed);
        sim.world.listen(addr(), says_to_idle(wire, Duration::from_millis(seed % 8)));
        arm_every(&mut sim, 0, keep_alive_http());
        sim.run_until(sim.time.after(PERIOD * 20));
        // Everything is late, so that a run with two connections can take a period.
        check_successes(&sim, 8, seed);
        assert!(sim.shard.stats().counters.reconnected > 0, "seed {seed}");
        sim.finish();
    }
}

#[test]
fn a_timeout_that_a_new_connection_answers_is_a_failure() {
    let wire = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::keep_alive(Duration::ZERO, wire));
    arm_every(&mut sim, 0, keep_alive_http());
    sim.run_until(sim.time.after(PERIOD * 4));
    for (_, outcome) in sim.outcomes() {
        let detail = outcome.result.detail.as_deref();
        assert_eq!(detail, Some("HTTP probe failed with statuscode: 408"));
    }
    assert!(sim.outcomes().len() >= 4);
    sim.finish();
}

#[test]
fn a_new_connection_that_fails_is_a_failure() {
    let mut failures = 0;
    for (seed, faults) in seeds() {
        let mut sim = Sim::new(Faults { late: 900, ..faults }, seed);
        sim.world.listen(addr(), Behaviour::keep_alive(Duration::ZERO, OK));
        arm_every(&mut sim, 0, keep_alive_http());
        sim.run_until(sim.time.after(PERIOD));
        sim.world.kill(addr(), sim.time);
        sim.run_until(sim.time.after(PERIOD * 3));
        let refused = format!("{URL}dial tcp 10.0.0.1:80: connect: connection refused");
        for (_, outcome) in sim.outcomes().into_iter().skip(2) {
            assert_eq!(outcome.result.verdict, Verdict::Failure, "seed {seed}");
            assert_eq!(outcome.result.detail.as_deref(), Some(&*refused), "seed {seed}");
            failures += 1;
        }
        sim.finish();
    }
    assert!(failures > 40, "{failures}");
}

#[test]
fn a_reused_connection_that_hangs_is_a_failure_after_the_timeout() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::partial(Duration::ZERO, OK));
    arm_every(&mut sim, 0, keep_alive_http());
    sim.run_until(sim.time.after(Duration::from_millis(1_250)));
    let silent = format!("{URL}context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    let outcomes = sim.outcomes();
    let seen: Vec<_> = outcomes.iter().map(|(_, o)| (o.result.verdict, o.result.detail.as_deref())).collect();
    // What follows the failure is a new connection.
    let success = (Verdict::Success, None);
    assert_eq!(seen, [success, (Verdict::Failure, Some(&*silent)), success]);
    sim.finish();
}

#[test]
fn at_most_half_of_the_slots_are_kept() {
    for (seed, faults) in seeds() {
        let mut sim = Sim::new(faults, seed);
        let target = |port: u16| {
            let Target::Http(mut target) = keep_alive_http() else { panic!("an HTTP target") };
            target.port = port;
            (SocketAddr::new(addr().ip(), port), Target::Http(target))
        };
        for n in 0..7 {
            let (at, target) = target(8_000 + n);
            sim.world.listen(at, Behaviour::keep_alive(Duration::ZERO, OK));
            arm_every(&mut sim, u32::from(n), target);
        }
        sim.run_until(sim.time.after(PERIOD * 6));
        check_successes(&sim, 28, seed);
        let kept = sim.shard.stats().kept;
        assert!(kept <= SLOTS as usize / 2, "seed {seed}: {kept} kept");
        sim.finish();
    }
}

#[test]
fn a_redirect_ends_a_kept_connection() {
    let other = SocketAddr::new(addr().ip(), 81);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1:81/x\r\nContent-Length: 0\r\n\r\n";
    for (seed, faults) in seeds() {
        let mut sim = Sim::new(faults, seed);
        sim.world.listen(addr(), Behaviour::keep_alive(Duration::ZERO, redirect));
        sim.world.listen(other, Behaviour::answer(Duration::ZERO, OK));
        arm_every(&mut sim, 0, keep_alive_http());
        sim.run_until(sim.time.after(PERIOD * 5));
        check_successes(&sim, 4, seed);
        assert_eq!(sim.shard.stats().kept, 0, "seed {seed}");
        sim.finish();
    }
}

#[test]
fn a_bare_connection_ends_in_order_when_asked() {
    let target = || {
        Target::Tcp(TcpTarget { host: Host::Ip(addr().ip()), port: addr().port(), close: TcpClose::Graceful })
    };
    for behaviour in [Behaviour::close(Duration::ZERO), Behaviour::hang(), Behaviour::reset(Duration::ZERO)] {
        check("graceful", target(), Some(behaviour), Verdict::Success, None, 0);
    }
    let refused = Some("dial tcp 10.0.0.1:80: connect: connection refused");
    check("refused", target(), None, Verdict::Failure, refused, 0);
}

#[test]
fn unix_sockets() {
    let path: Arc<std::path::Path> = std::path::Path::new("/run/x.sock").into();
    for (seed, faults) in seeds() {
        for target in [http(), keep_alive_http(), tcp()] {
            let mut target = target;
            match &mut target {
                Target::Http(http) => http.host = Host::Unix(path.clone()),
                Target::Tcp(tcp) => tcp.host = Host::Unix(path.clone()),
                Target::Grpc(_) | Target::Exec | Target::Broken { .. } => panic!("no network target"),
            }
            let mut sim = Sim::new(faults.clone(), seed);
            arm_every(&mut sim, 0, target);
            sim.run_until(sim.time.after(PERIOD / 2));
            let detail = sim.outcomes()[0].1.result.detail.clone().unwrap();
            assert!(detail.ends_with("dial unix /run/x.sock: connect: connection refused"), "{detail}");
            sim.events.clear();
            sim.world.listen(Peer::Unix(path.clone()), Behaviour::keep_alive(Duration::ZERO, OK));
            sim.run_until(sim.time.after(PERIOD * 4));
            check_successes(&sim, 3, seed);
            assert_eq!(sim.shard.stats().counters.replaced_sockets, 0, "nothing out of the ordinary");
            sim.finish();
        }
    }
}

#[test]
fn a_run_on_a_kept_connection_has_all_its_attempts() {
    let cut = || Behaviour::answer(Duration::ZERO, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    let mut sim = Sim::new(Faults::none(), 1);
    let accepted_of_cut = |sim: &mut Sim| {
        sim.world.listen(addr(), cut());
        let before = sim.world.accepted(addr());
        sim.run_until(sim.time.after(PERIOD));
        sim.world.accepted(addr()) - before
    };
    arm_every(&mut sim, 0, keep_alive_http());
    sim.run_until(at_ms(1_050));
    assert_eq!(accepted_of_cut(&mut sim), u64::from(PROBE_ATTEMPTS), "a first run");
    sim.world.listen(addr(), Behaviour::keep_alive(Duration::ZERO, OK));
    sim.run_until(sim.time.after(2 * PERIOD));
    assert_eq!((sim.shard.stats().kept, sim.shard.stats().counters.reused), (1, 1));
    sim.world.kill(addr(), sim.time);
    assert_eq!(accepted_of_cut(&mut sim), u64::from(PROBE_ATTEMPTS), "one that found its connection dead");
    sim.finish();
}
