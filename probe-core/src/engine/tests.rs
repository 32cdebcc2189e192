//! The shard on the twin: verdicts, tickers, redirects, cancellation, under faults that must not matter.

mod calls;
mod names;
mod onces;
mod reach;
mod redirects;
mod shortage;
mod starved;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Shard;
use crate::model::id::{ContainerIx, InstanceId, PodUid, ProbeKey, Ticket};
use crate::model::limits::PROBE_ATTEMPTS;
use crate::model::probe::{
    Arm, BrokenBody, Host, HttpSpecial, HttpTarget, Outcome, ProbeCmd, ProbeEvent, ProbeKind, RunResult,
    Target, TcpClose, TcpTarget, Verdict,
};
use crate::model::tally::TallyCursor;
use crate::model::time::Mono;
use crate::ring::twin::{Behaviour, Faults, Piece, Twin, World};
use crate::wire::{headers, http1, url};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SLOTS: u32 = 8;

/// A shard in a world, and the time.
struct Sim {
    shard: Shard<Twin>,
    world: World,
    time: Mono,
    inputs: Vec<ProbeCmd>,
    /// Every event with the time at which it came.
    events: Vec<(Mono, ProbeEvent)>,
}

impl Sim {
    fn new(faults: Faults, seed: u64) -> Sim {
        let world = World::new();
        let shard = Shard::new(Twin::new(SLOTS, world.clone(), faults, seed));
        Sim { shard, world, time: at_ms(1_000), inputs: Vec::new(), events: Vec::new() }
    }

    fn run_until(&mut self, end: Mono) {
        let mut out = Vec::new();
        loop {
            let now = Twin::now(self.time);
            let wake = self.shard.turn(now, &mut self.inputs, &mut out);
            self.events.extend(out.drain(..).map(|event| (self.time, event)));
            let next = wake.min(self.shard.ring().next_event());
            let next = next.max(self.time.after(Duration::from_nanos(1)));
            if next > end {
                self.time = end;
                return;
            }
            self.time = next;
        }
    }

    fn arm(&mut self, index: u32, generation: u32, target: Target) {
        self.inputs.push(ProbeCmd::Arm(Box::new(Arm {
            probe: key(index),
            kind: ProbeKind::Liveness,
            generation,
            instance: InstanceId { pod: PodUid(7), container: ContainerIx(0), restart_count: generation },
            target: Arc::new(target),
            first_due: self.time,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            report_successes: u32::MAX,
        })));
    }

    fn outcomes(&self) -> Vec<(Mono, &Outcome)> {
        let outcomes = self.events.iter().filter_map(|(at, event)| match event {
            ProbeEvent::Outcome(outcome) => Some((*at, outcome)),
            ProbeEvent::ExecDue { .. }
            | ProbeEvent::OnceDone { .. }
            | ProbeEvent::Resolve { .. }
            | ProbeEvent::CallDue { .. }
            | ProbeEvent::CallCut { .. } => None,
        });
        outcomes.collect()
    }

    /// Ends the shard; nothing may be left.
    fn finish(mut self) {
        self.shard.ring_mut().set_faults(Faults::none());
        let mut out = Vec::new();
        self.shard.stop(Twin::now(self.time), &mut out);
        self.run_until(self.time.after(Duration::from_secs(60)));
        assert!(self.shard.is_idle(), "runs are left");
        let stats = self.shard.stats();
        assert_eq!((stats.timers, stats.counters.stale_completions), (0, 0));
        assert_eq!(self.shard.ring().in_flight_total(), 0);
    }
}

fn at_ms(ms: u64) -> Mono {
    Mono::from_ns(ms * 1_000_000)
}

fn key(index: u32) -> ProbeKey {
    ProbeKey { executor: 0, index }
}

fn addr() -> SocketAddr {
    "10.0.0.1:80".parse().unwrap()
}

fn http_at(host: &str, path: &str) -> Target {
    let url = url::Url::for_probe(url::Scheme::Http, host, 80, path).unwrap();
    let lines = headers::request_headers(&[], url.authority(), headers::AGENT_PROBE).unwrap();
    Target::Http(HttpTarget {
        host: url::host_of(host),
        port: 80,
        request: http1::request(&url.request_target(), &lines),
        url: url.text().into(),
        special: None,
    })
}

fn http() -> Target {
    http_at("10.0.0.1", "/")
}

fn tcp() -> Target {
    Target::Tcp(TcpTarget { host: Host::Ip(addr().ip()), port: addr().port(), close: TcpClose::Reset })
}

/// One run of `target` against `behaviour`: verdict, text, and when it came, under every harmless fault.
#[track_caller]
fn check(
    id: &str,
    target: Target,
    behaviour: Option<Behaviour>,
    verdict: Verdict,
    detail: Option<&str>,
    ms: u64,
) {
    for seed in 0..60 {
        let faults = if seed == 0 { Faults::none() } else { Faults::harmless() };
        let late_ms = faults.late_max.as_millis() as u64 * 12;
        let mut sim = Sim::new(faults, seed);
        if let Some(behaviour) = behaviour.clone() {
            sim.world.listen(addr(), behaviour);
        }
        sim.arm(0, 1, target.clone());
        let start = sim.time;
        sim.run_until(start.after(Duration::from_secs(9)));
        let outcomes = sim.outcomes();
        assert_eq!(outcomes.len(), 1, "{id}, seed {seed}: {outcomes:?}");
        let (at, outcome) = outcomes[0];
        let result = (outcome.result.verdict, outcome.result.detail.as_deref());
        assert_eq!(result, (verdict, detail), "{id}, seed {seed}");
        let took_ms = at.since(start).as_millis() as u64;
        assert!(
            (ms..=ms + 2 + late_ms).contains(&took_ms),
            "{id}, seed {seed}: after {took_ms} ms, not {ms}"
        );
        sim.finish();
    }
}

const URL: &str = "Get \"http://10.0.0.1:80/\": ";

#[test]
fn http_verdicts() {
    let answer = |wire: &str| Some(Behaviour::answer(Duration::from_millis(5), wire.to_owned()));
    check("200", http(), answer(OK), Verdict::Success, None, 5);
    check("until close", http(), answer("HTTP/1.1 200 OK\r\n\r\nxyz"), Verdict::Success, None, 5);
    check(
        "503",
        http(),
        answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
        Verdict::Failure,
        Some("HTTP probe failed with statuscode: 503"),
        5,
    );
    check(
        "302 elsewhere",
        http(),
        answer("HTTP/1.1 302 Found\r\nLocation: http://0.0.0.0/fail\r\nContent-Length: 4\r\n\r\nbody"),
        Verdict::Warning,
        Some("Probe terminated redirects, Response body: body"),
        5,
    );
    check(
        "304",
        http(),
        answer("HTTP/1.1 304 Not Modified\r\n\r\n"),
        Verdict::Warning,
        Some("Probe terminated redirects, Response body: "),
        5,
    );
}

#[test]
fn http_servers_that_give_no_answer() {
    let answer = |wire: &str| Some(Behaviour::answer(Duration::from_millis(5), wire.to_owned()));
    check(
        "refused",
        http(),
        None,
        Verdict::Failure,
        Some(&format!("{URL}dial tcp 10.0.0.1:80: connect: connection refused")),
        0,
    );
    check(
        "unreachable",
        http(),
        Some(Behaviour::Unreachable),
        Verdict::Failure,
        Some(&format!("{URL}dial tcp 10.0.0.1:80: connect: no route to host")),
        0,
    );
    check(
        "black hole",
        http(),
        Some(Behaviour::BlackHole),
        Verdict::Failure,
        Some(&format!(
            "{URL}dial tcp 10.0.0.1:80: i/o timeout (Client.Timeout exceeded while awaiting headers)"
        )),
        1_000,
    );
    check(
        "hang",
        http(),
        Some(Behaviour::hang()),
        Verdict::Failure,
        Some(&format!("{URL}context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
        1_000,
    );
    check(
        "close",
        http(),
        Some(Behaviour::close(Duration::from_millis(3))),
        Verdict::Failure,
        Some(&format!("{URL}EOF")),
        3,
    );
    check(
        "malformed",
        http(),
        answer("HTTP/1.1 x OK\r\n\r\n"),
        Verdict::Failure,
        Some(&format!(
            "{URL}net/http: HTTP/1.x transport connection broken: malformed HTTP status code \"x\""
        )),
        5,
    );
    check("drip", http(), Some(Behaviour::drip(Duration::from_millis(10), OK)), Verdict::Success, None, 390);
}

#[test]
fn a_reset_names_both_ends() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::reset(Duration::from_millis(1)));
    sim.arm(0, 1, http());
    sim.run_until(at_ms(2_000));
    let detail = sim.outcomes()[0].1.result.detail.clone().unwrap();
    assert_eq!(
        &*detail,
        format!("{URL}read tcp 10.255.0.1:32768->10.0.0.1:80: read: connection reset by peer")
    );
    sim.finish();
}

#[test]
fn what_cannot_be_judged_is_tried_three_times() {
    let stalled = Behaviour::partial(Duration::ZERO, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    let text = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    check("body stalls", http(), Some(stalled), Verdict::Errored, Some(text), 3_000);
    let mut counted = http();
    if let Target::Http(http) = &mut counted {
        let special = HttpSpecial { broken_body: BrokenBody::Failure, ..HttpSpecial::default() };
        http.special = Some(Box::new(special));
    }
    let stalled = Behaviour::partial(Duration::ZERO, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    check("body stalls, annotated", counted.clone(), Some(stalled), Verdict::Failure, Some(text), 1_000);
    let cut = Behaviour::answer(Duration::ZERO, "HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhe");
    check("body is cut, annotated", counted, Some(cut.clone()), Verdict::Failure, Some("unexpected EOF"), 0);
    check("body is cut", http(), Some(cut.clone()), Verdict::Errored, Some("unexpected EOF"), 0);
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), cut);
    sim.arm(0, 1, http());
    sim.run_until(at_ms(2_000));
    assert_eq!(sim.world.accepted(addr()), u64::from(PROBE_ATTEMPTS));
    sim.finish();
}

#[test]
fn tcp_verdicts() {
    check("open", tcp(), Some(Behaviour::hang()), Verdict::Success, None, 0);
    check(
        "TCP-03",
        tcp(),
        None,
        Verdict::Failure,
        Some("dial tcp 10.0.0.1:80: connect: connection refused"),
        0,
    );
    check(
        "TCP-04",
        tcp(),
        Some(Behaviour::BlackHole),
        Verdict::Failure,
        Some("dial tcp 10.0.0.1:80: i/o timeout"),
        1_000,
    );
}

#[test]
fn a_reply_seen_late_is_a_success_and_a_reply_never_sent_a_failure() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(900), OK));
    sim.arm(0, 1, http());
    sim.run_until(at_ms(1_001));
    // The shard's thread gets no CPU for seven seconds.
    sim.time = at_ms(8_000);
    sim.run_until(at_ms(8_001));
    assert_eq!(sim.outcomes()[0].1.result.verdict, Verdict::Success);
    sim.finish();
}

#[test]
fn ticks_come_on_the_grid_and_a_slow_run_is_followed_at_once() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(250), OK));
    sim.inputs.push(arm_every(0, 1, Duration::from_millis(100)));
    sim.run_until(at_ms(1_990));
    // WRKX-08: 250 ms each, back to back, never in a burst.
    assert_eq!(sim.outcomes().len(), 3);
    sim.finish();
}

fn arm_every(index: u32, generation: u32, period: Duration) -> ProbeCmd {
    ProbeCmd::Arm(Box::new(Arm {
        probe: key(index),
        kind: ProbeKind::Liveness,
        generation,
        instance: InstanceId { pod: PodUid(7), container: ContainerIx(0), restart_count: generation },
        target: Arc::new(http()),
        first_due: at_ms(1_000),
        period,
        timeout: Duration::from_secs(1),
        report_successes: u32::MAX,
    }))
}

#[test]
fn wrkx_07_a_trigger_runs_now_and_restarts_the_ticker() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, OK));
    sim.arm(0, 1, http());
    sim.run_until(at_ms(5_000));
    sim.inputs.push(ProbeCmd::Trigger { probe: key(0), generation: 1 });
    sim.inputs.push(ProbeCmd::Trigger { probe: key(0), generation: 9 });
    sim.run_until(at_ms(25_500));
    let due: Vec<u64> = sim.outcomes().iter().map(|(_, o)| o.result.phases.due.as_ns() / 1_000_000).collect();
    assert_eq!(due, [1_000, 5_000, 15_000, 25_000], "WRKX-07");
    sim.finish();
}

#[test]
fn an_older_generation_is_never_heard_of_again() {
    for seed in 0..200 {
        let mut sim = Sim::new(Faults::harmless(), seed);
        sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(20), OK));
        sim.arm(0, 1, http());
        sim.run_until(at_ms(1_000 + seed % 40));
        sim.arm(0, 2, http());
        sim.inputs.push(ProbeCmd::Hold { probe: key(0), generation: 1 });
        sim.run_until(sim.time);
        let seen = sim.events.len();
        sim.run_until(at_ms(5_000));
        let later = sim.events.split_off(seen);
        assert_eq!(later.len(), 1, "seed {seed}: {later:?}");
        let ProbeEvent::Outcome(outcome) = &later[0].1 else { panic!("{later:?}") };
        assert_eq!((outcome.generation, outcome.instance.restart_count), (2, 2), "seed {seed}");
        sim.finish();
    }
}

#[test]
fn holding_and_dropping_stop_a_probe() {
    for seed in 0..100 {
        for command in [ProbeCmd::Hold { probe: key(0), generation: 1 }, ProbeCmd::Drop { probe: key(0) }] {
            let mut sim = Sim::new(Faults::harmless(), seed);
            sim.world.listen(addr(), Behaviour::hang());
            sim.arm(0, 1, http());
            sim.run_until(at_ms(1_000 + seed % 50));
            sim.inputs.push(command);
            sim.run_until(at_ms(60_000));
            assert!(sim.events.is_empty(), "{:?}", sim.events);
            assert!(sim.shard.is_idle());
            sim.finish();
        }
    }
}

#[test]
fn more_probes_than_slots_are_late_not_failed() {
    let mut sim = Sim::new(Faults::harmless(), 3);
    sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(400), OK));
    (0..5 * SLOTS).for_each(|index| sim.arm(index, 1, http()));
    sim.run_until(at_ms(10_500));
    let verdicts: Vec<Verdict> = sim.outcomes().iter().map(|(_, o)| o.result.verdict).collect();
    assert_eq!(verdicts, vec![Verdict::Success; 5 * SLOTS as usize]);
    assert!(sim.shard.stats().counters.late_starts >= u64::from(4 * SLOTS));
    sim.finish();
}

#[test]
fn exec_and_broken_targets_keep_time_only() {
    let mut sim = Sim::new(Faults::none(), 1);
    sim.arm(0, 4, Target::Exec);
    sim.arm(1, 5, Target::Broken { error: "strconv.Atoi: parsing \"x\": invalid syntax".into() });
    sim.run_until(at_ms(12_000));
    // The exec run has not ended, so it was asked for once; the broken target errs at each tick.
    assert_eq!(sim.outcomes().len(), 2);
    assert_eq!(sim.outcomes()[0].1.result.verdict, Verdict::Errored);
    let asked = |sim: &Sim| {
        sim.events
            .iter()
            .filter(|(_, event)| matches!(event, ProbeEvent::ExecDue { generation: 4, .. }))
            .count()
    };
    assert_eq!(asked(&sim), 1);
    sim.inputs.push(ProbeCmd::ExecDone {
        probe: key(0),
        generation: 4,
        verdict: Verdict::Success,
        took: Duration::from_millis(7),
    });
    sim.run_until(at_ms(12_500));
    // A tick came meanwhile.
    assert_eq!(asked(&sim), 2);
    let mut told = Vec::new();
    assert_eq!(sim.shard.tallies(TallyCursor::default(), 9, &mut told), None);
    let runs = |at: usize| (told[at].tally.succeeded(), told[at].tally.took(), told[at].tally.failed());
    assert_eq!((runs(0), runs(1)), ((1, Duration::from_millis(7), 0), (0, Duration::ZERO, 0)));
    sim.finish();
}

#[test]
fn hostile_answers_end_in_time_whatever_the_faults() {
    let endless_head = Bytes::from(b"X-A: b\r\n".repeat(10_000));
    let endless = Behaviour::script((0..100).map(|n| {
        let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n");
        (Duration::from_millis(n), Piece::Data(if n == 0 { head } else { Bytes::from(vec![b'x'; 50_000]) }))
    }));
    check("endless body", http(), Some(endless), Verdict::Success, None, 1);
    let head = Behaviour::script([
        (Duration::ZERO, Piece::Data(Bytes::from_static(b"HTTP/1.1 200 OK\r\n"))),
        (Duration::ZERO, Piece::Data(endless_head)),
    ]);
    check(
        "endless head",
        http(),
        Some(head),
        Verdict::Failure,
        Some(&format!(
            "{URL}net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 16384 bytes; aborted"
        )),
        0,
    );
}

#[test]
fn the_faults_of_the_other_tests_strike() {
    let mut sim = Sim::new(Faults::harmless(), 7);
    sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(20), OK));
    (0..SLOTS).for_each(|index| sim.arm(index, 1, http()));
    sim.run_until(at_ms(600_000));
    let counters = sim.shard.stats().counters;
    assert!(counters.queue_full > 0 && counters.replaced_sockets > 0, "{counters:?}");
    assert_eq!(counters.runs(), counters.successes, "{counters:?}");
    sim.finish();
}

#[test]
fn lost_packets_fail_a_run_within_its_timeout_and_leave_nothing() {
    for seed in 0..50 {
        let mut sim = Sim::new(Faults { lost: 100, ..Faults::harmless() }, seed);
        sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(5), OK));
        (0..SLOTS).for_each(|index| sim.arm(index, 1, http()));
        sim.run_until(at_ms(100_500));
        let (lost, outcomes) = (sim.shard.ring().lost(), sim.outcomes());
        let failures = outcomes.iter().filter(|(_, o)| o.result.verdict == Verdict::Failure).count() as u64;
        assert_eq!(outcomes.len(), 10 * SLOTS as usize, "seed {seed}");
        // The wait for the FIN may be lost too, which fails nobody.
        assert!(failures > 0 && failures <= lost, "seed {seed}: {failures} of {lost}");
        sim.finish();
    }
}

#[test]
fn a_target_that_dies_and_comes_back_is_seen_to() {
    let mut sim = Sim::new(Faults::harmless(), 5);
    sim.world.listen(addr(), Behaviour::answer(Duration::from_millis(100), OK));
    sim.arm(0, 1, http());
    // Dies with a request in hand, is away for one period, then serves again.
    sim.run_until(at_ms(11_050));
    sim.world.kill(addr(), sim.time);
    sim.run_until(at_ms(25_000));
    sim.world.listen(addr(), Behaviour::answer(Duration::ZERO, OK));
    sim.run_until(at_ms(40_000));
    let verdicts: Vec<Verdict> = sim.outcomes().iter().map(|(_, o)| o.result.verdict).collect();
    assert_eq!(verdicts, [Verdict::Success, Verdict::Failure, Verdict::Failure, Verdict::Success]);
    sim.finish();
}
