//! A shard that was not there: what it may conclude of what it finds when it comes back.

use super::*;

/// What a target does, how the shard misses the middle of the run, and what may be said of it.
struct Case {
    id: &'static str,
    behaviour: Behaviour,
    verdict: Verdict,
    /// The whole run by its own phases, in milliseconds.
    took_ms: u64,
}

const ELSEWHERE: &str = "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n";
const ILL: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";

/// The run is due at 0 with a timeout of 1 s; the shard is away from `from_ms` to `to_ms` after that.
#[track_caller]
fn check_away(from_ms: u64, to_ms: u64, cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let mut sim = Sim::new(Faults::none(), 1);
        sim.world.listen(addr(), case.behaviour);
        // Two turns, so that receive times can be told.
        let start = sim.time.after(Duration::from_millis(1));
        sim.run_until(start);
        sim.arm(0, 1, http());
        sim.run_until(start.after(Duration::from_millis(from_ms)));
        sim.time = start.after(Duration::from_millis(to_ms));
        sim.run_until(start.after(Duration::from_secs(8)));
        let outcomes = sim.outcomes();
        assert_eq!(outcomes.len(), 1, "{}: {outcomes:?}", case.id);
        let result = &outcomes[0].1.result;
        assert_eq!(result.verdict, case.verdict, "{}: {result:?}", case.id);
        let took = result.phases.done.since(result.phases.submitted.unwrap());
        assert_eq!(took.as_millis() as u64, case.took_ms, "{}: {result:?}", case.id);
        sim.finish();
    }
}

fn after_ms(ms: u64, wire: &str) -> Behaviour {
    Behaviour::answer(Duration::from_millis(ms), wire.to_owned())
}

#[test]
fn what_the_kernel_received_in_time_counts_however_late_it_is_seen() {
    check_away(
        100,
        5_000,
        [
            Case { id: "healthy", behaviour: after_ms(400, OK), verdict: Verdict::Success, took_ms: 400 },
            Case { id: "ill", behaviour: after_ms(400, ILL), verdict: Verdict::Failure, took_ms: 400 },
            Case {
                id: "at the last moment",
                behaviour: after_ms(999, OK),
                verdict: Verdict::Success,
                took_ms: 999,
            },
        ],
    );
}

#[test]
fn silence_that_nobody_watched_is_no_verdict() {
    let partial = Behaviour::partial(Duration::ZERO, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    check_away(
        100,
        5_000,
        [
            Case { id: "hung", behaviour: Behaviour::hang(), verdict: Verdict::Inconclusive, took_ms: 5_000 },
            Case {
                id: "answered after the deadline",
                behaviour: after_ms(1_500, OK),
                verdict: Verdict::Inconclusive,
                took_ms: 1_500,
            },
            Case {
                id: "closed",
                behaviour: Behaviour::close(Duration::from_millis(400)),
                verdict: Verdict::Inconclusive,
                took_ms: 5_000,
            },
            Case {
                id: "reset",
                behaviour: Behaviour::reset(Duration::from_millis(400)),
                verdict: Verdict::Inconclusive,
                took_ms: 5_000,
            },
            Case { id: "body stalls", behaviour: partial, verdict: Verdict::Inconclusive, took_ms: 5_000 },
        ],
    );
}

#[test]
fn a_short_absence_excuses_nobody() {
    // Less than a tenth of its second: a target that needs less than nine tenths of its timeout is not hurt by that.
    check_away(
        200,
        300,
        [Case { id: "hung", behaviour: Behaviour::hang(), verdict: Verdict::Failure, took_ms: 1_000 }],
    );
}

#[test]
fn a_suspended_machine_is_an_absence() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::hang());
    sim.arm(0, 1, http());
    sim.run_until(at_ms(1_500));
    sim.shard.was_suspended(Duration::from_secs(3_600));
    sim.run_until(at_ms(10_500));
    assert_eq!(sim.outcomes()[0].1.result.verdict, Verdict::Inconclusive);
    sim.run_until(at_ms(12_500));
    assert_eq!(sim.outcomes()[1].1.result.verdict, Verdict::Failure, "the next run is judged again");
    assert_eq!(sim.shard.stats().counters.inconclusive, 1);
    sim.finish();
}

/// A run with a timeout of 1 s on a shard whose turns, one in 100 ms, each come 60 ms late.
#[track_caller]
fn check_interrupted(id: &str, target: Target, behaviour: Behaviour, verdict: Verdict) {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), behaviour);
    sim.arm(0, 1, target);
    for _ in 0..9 {
        sim.run_until(sim.time.after(Duration::from_millis(99)));
        sim.time = sim.time.after(Duration::from_millis(61));
    }
    sim.run_until(sim.time.after(Duration::from_secs(1)));
    let outcomes = sim.outcomes();
    assert_eq!(outcomes.len(), 1, "{id}: {outcomes:?}");
    assert_eq!(outcomes[0].1.result.verdict, verdict, "{id}: {:?}", outcomes[0].1.result);
    assert!(sim.shard.counters().missed_us > 100_000, "{id}: not interrupted");
    sim.finish();
}

#[test]
fn a_shard_that_is_often_late_still_finds_what_hangs() {
    // A crowded core, or a CPU quota. Each turn comes late, but the request is out, and the kernel takes what comes.
    let check = |id, behaviour, verdict| check_interrupted(id, http(), behaviour, verdict);
    check("hung", Behaviour::hang(), Verdict::Failure);
    check("resets", Behaviour::reset(Duration::from_millis(700)), Verdict::Failure);
    check("answered too late", after_ms(1_200, OK), Verdict::Failure);
    check("healthy and slow", after_ms(900, OK), Verdict::Success);
    check("vanished", Behaviour::BlackHole, Verdict::Failure);
    // Until the handshake is over the next step is the shard's: each time it was late it may have been late with that.
    let handshake = Duration::from_millis(400);
    check("asked late", Behaviour::Accept { handshake, script: Arc::new([]) }, Verdict::Inconclusive);
    check_interrupted("vanished, TCP", tcp(), Behaviour::BlackHole, Verdict::Failure);
}

#[test]
fn an_absence_after_the_deadline_excuses_nobody() {
    check_away(
        1_000,
        5_000,
        [
            Case { id: "hung", behaviour: Behaviour::hang(), verdict: Verdict::Failure, took_ms: 5_000 },
            Case { id: "late", behaviour: after_ms(1_500, OK), verdict: Verdict::Failure, took_ms: 1_500 },
            Case {
                id: "a late redirect",
                behaviour: after_ms(1_500, ELSEWHERE),
                verdict: Verdict::Failure,
                took_ms: 1_500,
            },
        ],
    );
}

/// Lets time pass until `end`; of each `cycle_ms` the shard runs the first `runs_ms`.
fn run_throttled(sim: &mut Sim, end: Mono, runs_ms: u64, cycle_ms: u64) {
    let mut out = Vec::new();
    while sim.time < end {
        let wake = sim.shard.turn(Twin::now(sim.time), &mut sim.inputs, &mut out);
        sim.events.extend(out.drain(..).map(|event| (sim.time, event)));
        let next = wake.min(sim.shard.ring().next_event()).max(sim.time.after(Duration::from_nanos(1)));
        let (cycle, within) = (next.as_ns() / (cycle_ms * 1_000_000), next.as_ns() % (cycle_ms * 1_000_000));
        sim.time = if within < runs_ms * 1_000_000 { next } else { at_ms((cycle + 1) * cycle_ms) };
    }
}

#[test]
fn a_shard_that_is_throttled_for_ever_still_judges() {
    let slow = || after_ms(700, OK);
    let cases = [
        // (runs, of each so many milliseconds, what the target does, verdict of every run)
        (70, 100, Behaviour::hang(), Verdict::Failure),
        (31, 47, Behaviour::hang(), Verdict::Failure),
        (50, 100, Behaviour::hang(), Verdict::Failure),
        (13, 29, Behaviour::hang(), Verdict::Failure),
        (70, 100, slow(), Verdict::Success),
        (13, 29, slow(), Verdict::Success),
        (100, 1_000, slow(), Verdict::Success),
        (100, 1_000, Behaviour::hang(), Verdict::Inconclusive),
    ];
    for (runs_ms, cycle_ms, behaviour, verdict) in cases {
        let mut sim = Sim::new(Faults::none(), 1);
        sim.world.listen(addr(), behaviour.clone());
        sim.arm(0, 1, http());
        run_throttled(&mut sim, at_ms(100_000), runs_ms, cycle_ms);
        let outcomes = sim.outcomes();
        assert!(outcomes.len() >= 9, "{runs_ms} of {cycle_ms} ms, {behaviour:?}: {outcomes:?}");
        for (_, outcome) in outcomes {
            let result = &outcome.result;
            assert_eq!(result.verdict, verdict, "{runs_ms} of {cycle_ms} ms, {behaviour:?}: {result:?}");
        }
        sim.finish();
    }
}

#[test]
fn a_fin_that_is_joined_to_an_answer_does_not_date_it() {
    // (answer and FIN after so many milliseconds, verdict): the shard is away when the deadline passes.
    let cases =
        [(980, 1_030, Verdict::Success), (1_005, 1_030, Verdict::Failure), (980, 980, Verdict::Success)];
    for (answer_ms, fin_ms, verdict) in cases {
        let mut sim = Sim::new(Faults { reads_late: 1_000, ..Faults::none() }, 1);
        let after = Duration::from_millis;
        let script = [(after(answer_ms), Piece::Data(OK.into())), (after(fin_ms), Piece::Fin)];
        sim.world.listen(addr(), Behaviour::script(script));
        let start = sim.time.after(after(1));
        sim.run_until(start);
        sim.arm(0, 1, http());
        sim.run_until(start.after(after(960)));
        sim.time = start.after(after(1_050));
        sim.run_until(start.after(after(8_000)));
        let result = &sim.outcomes()[0].1.result;
        assert_eq!(result.verdict, verdict, "{answer_ms}, {fin_ms} ms: {result:?}");
        let took = result.phases.done.since(result.phases.submitted.unwrap());
        assert_eq!(took.as_millis() as u64, answer_ms, "{result:?}");
        sim.finish();
    }
}

#[test]
fn short_timeouts_count_short_absences() {
    // (timeout, away from 5 ms on for so long, verdict): the server ends the connection meanwhile.
    let cases = [(20, 7, Verdict::Inconclusive), (20, 2, Verdict::Failure), (200, 7, Verdict::Failure)];
    for (timeout_ms, away_ms, verdict) in cases {
        let mut sim = Sim::new(Faults::none(), 1);
        let after = Duration::from_millis;
        sim.world.listen(addr(), Behaviour::close(after(6)));
        sim.arm(0, 1, http());
        let Some(ProbeCmd::Arm(arm)) = sim.inputs.last_mut() else { panic!("an arm") };
        arm.timeout = after(timeout_ms);
        let start = sim.time;
        sim.run_until(start.after(after(5)));
        sim.time = start.after(after(5 + away_ms));
        sim.run_until(start.after(after(1_000)));
        let result = &sim.outcomes()[0].1.result;
        assert_eq!(result.verdict, verdict, "{timeout_ms} ms, away for {away_ms}: {result:?}");
        sim.finish();
    }
}

#[test]
fn an_absence_between_two_looks_is_seen_where_it_matters() {
    // (timeout, verdict): away from 10 to 99 ms, while the handshake ends; then nothing comes.
    let cases = [(700, Verdict::Inconclusive), (1_000, Verdict::Failure)];
    for (timeout_ms, verdict) in cases {
        let mut sim = Sim::new(Faults::none(), 1);
        let after = Duration::from_millis;
        sim.world.listen(addr(), Behaviour::Accept { handshake: after(20), script: Arc::new([]) });
        sim.arm(0, 1, http());
        let Some(ProbeCmd::Arm(arm)) = sim.inputs.last_mut() else { panic!("an arm") };
        arm.timeout = after(timeout_ms);
        let start = sim.time;
        sim.run_until(start.after(after(10)));
        sim.time = start.after(after(99));
        sim.run_until(start.after(after(2_000)));
        let result = &sim.outcomes()[0].1.result;
        assert_eq!(result.verdict, verdict, "{timeout_ms} ms: {result:?}");
        sim.finish();
    }
}
