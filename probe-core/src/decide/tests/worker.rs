//! Groups WRK and WRKX, the decisions of MGR, and thresholds against an independent model.

use super::world::{POD, at_s, container, instance, pod, probe, thresholds};
use crate::decide::view::ResultState::{self, Failure, Success, Unknown};
use crate::decide::worker::{Gate, GateView, Seen, SeenState, Worker, workers_of};
use crate::model::id::{ContainerIx, InstanceId};
use crate::model::pod::{ContainerSpec, RestartPolicy, Role};
use crate::model::probe::ProbeKind::{self, Liveness, Readiness, Startup};
use crate::model::probe::{ProbeSpec, Verdict};
use crate::model::status::Phase;

const NOW_S: u64 = 1_000;
const FIRST: InstanceId = InstanceId { pod: POD, container: ContainerIx(0), restart_count: 0 };

fn view(state: SeenState, started: bool) -> GateView {
    GateView {
        phase: Some(Phase::Running),
        deleting: false,
        restart_policy: RestartPolicy::Never,
        role: Role::Regular,
        container: Some(Seen { instance: FIRST, state, started }),
    }
}

const fn running_since(s: u64) -> SeenState {
    SeenState::Running { started_at: crate::model::time::Mono::from_ns(s * 1_000_000_000) }
}

/// Kubelet's doProbe: passes the gate, and runs if it may run now. False: the worker ends.
fn do_probe(worker: &mut Worker, view: &GateView, verdict: Verdict) -> bool {
    match worker.gate(view).gate {
        Gate::Stop => return false,
        Gate::Idle => {}
        Gate::RunFrom(at) if at <= at_s(NOW_S) => {
            worker.on_verdict(verdict);
        }
        Gate::RunFrom(_) => {}
    }
    true
}

struct DoProbe {
    id: &'static str,
    delay_s: u32,
    view: fn(ProbeKind) -> GateView,
    /// For liveness, readiness, startup.
    goes_on: [bool; 3],
    result: Option<ResultState>,
}

/// The state in which each kind is executed: started for liveness and readiness, not for startup.
fn runnable(kind: ProbeKind) -> GateView {
    view(running_since(NOW_S - 100), kind != Startup)
}

// Reason for length: one table.
#[test]
fn one_run_from_every_state() {
    let cases = [
        DoProbe {
            id: "WRK-01",
            delay_s: 0,
            view: |kind| GateView { phase: None, ..runnable(kind) },
            goes_on: [true; 3],
            result: None,
        },
        DoProbe {
            id: "WRK-03",
            delay_s: 0,
            view: |kind| GateView { deleting: true, ..runnable(kind) },
            goes_on: [false, true, false],
            result: Some(Success),
        },
        DoProbe {
            id: "WRK-04",
            delay_s: 0,
            view: |kind| GateView { container: None, ..runnable(kind) },
            goes_on: [true; 3],
            result: None,
        },
        DoProbe {
            id: "WRK-05",
            delay_s: 0,
            view: |_| view(SeenState::Waiting, false),
            goes_on: [true; 3],
            result: Some(Failure),
        },
        DoProbe {
            id: "WRK-06",
            delay_s: 0,
            view: |_| view(SeenState::Terminated, false),
            goes_on: [false; 3],
            result: Some(Failure),
        },
        DoProbe { id: "WRK-07", delay_s: 0, view: runnable, goes_on: [true; 3], result: Some(Success) },
        // A negative delay cannot be written in the model: validation refuses it; 0 is as passed.
        DoProbe { id: "WRK-08", delay_s: 0, view: runnable, goes_on: [true; 3], result: Some(Success) },
        DoProbe { id: "WRK-10", delay_s: 10, view: runnable, goes_on: [true; 3], result: Some(Success) },
        DoProbe {
            id: "WRKX-05",
            delay_s: 0,
            view: |_| GateView { role: Role::Sidecar, ..view(SeenState::Terminated, false) },
            goes_on: [true; 3],
            result: Some(Failure),
        },
        DoProbe {
            id: "10.3 step 2",
            delay_s: 0,
            view: |kind| GateView { phase: Some(Phase::Succeeded), ..runnable(kind) },
            goes_on: [false; 3],
            result: None,
        },
        DoProbe {
            id: "10.3 step 6, OnFailure",
            delay_s: 0,
            view: |_| GateView {
                restart_policy: RestartPolicy::OnFailure,
                ..view(SeenState::Terminated, false)
            },
            goes_on: [true; 3],
            result: Some(Failure),
        },
    ];
    for case in cases {
        for (kind, goes_on) in [Liveness, Readiness, Startup].into_iter().zip(case.goes_on) {
            let mut worker = Worker::new(kind, &ProbeSpec { initial_delay_s: case.delay_s, ..probe() });
            let went_on = do_probe(&mut worker, &(case.view)(kind), Verdict::Success);
            assert_eq!(went_on, goes_on, "{} {kind:?}", case.id);
            assert_eq!(worker.result(FIRST), case.result, "{} {kind:?}", case.id);
        }
    }
}

#[test]
fn the_initial_delay_counts_whole_seconds_since_the_start() {
    let mut worker = Worker::new(Liveness, &ProbeSpec { initial_delay_s: 10, ..probe() });
    let gate = worker.gate(&view(running_since(NOW_S - 9), true)).gate;
    assert_eq!(gate, Gate::RunFrom(at_s(NOW_S + 1)));
}

/// One thing that happens to a worker.
#[derive(Copy, Clone, Debug)]
enum Op {
    S,
    F,
    /// The handler errs.
    E,
    /// The container gets a new instance.
    New,
    /// `started` of the container changes to this.
    Started(bool),
}

struct Sequence {
    id: &'static str,
    kind: ProbeKind,
    success: u32,
    failure: u32,
    /// After each operation: cached result, run, hold.
    ops: &'static [(Op, ResultState, u32, bool)],
}

fn check(case: &Sequence) {
    let mut worker = Worker::new(case.kind, &thresholds(case.success, case.failure));
    let mut seen = Seen { instance: FIRST, state: running_since(NOW_S - 100), started: case.kind != Startup };
    worker.bind(FIRST);
    for (step, (op, result, run, on_hold)) in case.ops.iter().enumerate() {
        let verdict = match op {
            Op::S => Some(Verdict::Success),
            Op::F => Some(Verdict::Failure),
            Op::E => Some(Verdict::Errored),
            Op::New => {
                seen.instance.restart_count += 1;
                None
            }
            Op::Started(started) => {
                seen.started = *started;
                None
            }
        };
        let view = GateView { container: Some(seen), ..view(seen.state, seen.started) };
        match verdict {
            Some(verdict) => assert!(do_probe(&mut worker, &view, verdict), "{} goes on", case.id),
            None => {
                worker.gate(&view);
            }
        }
        let found = (worker.result(seen.instance), worker.result_run(), worker.on_hold());
        assert_eq!(found, (Some(*result), *run, *on_hold), "{} step {step} ({op:?})", case.id);
    }
}

// Reason for length: one table.
#[test]
fn sequences_of_runs() {
    use Op::{E, F, New, S, Started};
    let cases = [
        Sequence {
            id: "WRK-12",
            kind: Readiness,
            success: 3,
            failure: 1,
            ops: &[
                (S, Failure, 1, false),
                (S, Failure, 2, false),
                (S, Success, 3, false),
                (S, Success, 4, false),
                (S, Success, 5, false),
                (F, Failure, 1, false),
                (S, Failure, 1, false),
                (S, Failure, 2, false),
                (S, Success, 3, false),
                (S, Success, 4, false),
                (S, Success, 5, false),
                (F, Failure, 1, false),
            ],
        },
        Sequence { id: "WRK-13", kind: Startup, success: 1, failure: 3, ops: &[(S, Success, 0, true)] },
        Sequence {
            id: "WRK-14",
            kind: Startup,
            success: 1,
            failure: 3,
            ops: &[(F, Unknown, 1, false), (F, Unknown, 2, false), (F, Failure, 0, true)],
        },
        Sequence {
            id: "WRK-17 liveness",
            kind: Liveness,
            success: 1,
            failure: 1,
            ops: &[(F, Failure, 0, true), (S, Failure, 0, true)],
        },
        Sequence {
            id: "WRK-17 startup",
            kind: Startup,
            success: 1,
            failure: 1,
            ops: &[(F, Failure, 0, true), (S, Failure, 0, true)],
        },
        Sequence {
            id: "WRK-18 liveness",
            kind: Liveness,
            success: 1,
            failure: 1,
            ops: &[(F, Failure, 0, true), (New, Success, 0, false), (S, Success, 1, false)],
        },
        Sequence {
            id: "WRK-18 startup",
            kind: Startup,
            success: 1,
            failure: 1,
            ops: &[(F, Failure, 0, true), (New, Unknown, 0, false), (S, Success, 0, true)],
        },
        Sequence {
            id: "WRK-19",
            kind: Liveness,
            success: 1,
            failure: 3,
            ops: &[
                (S, Success, 1, false),
                (F, Success, 1, false),
                (F, Success, 2, false),
                (F, Failure, 0, true),
            ],
        },
        Sequence {
            id: "WRK-20",
            kind: Startup,
            success: 1,
            failure: 3,
            ops: &[(F, Unknown, 1, false), (F, Unknown, 2, false), (F, Failure, 0, true)],
        },
        Sequence {
            id: "WRK-21",
            kind: Liveness,
            success: 1,
            failure: 1,
            ops: &[
                (Started(false), Success, 0, false),
                (F, Success, 0, false),
                (Started(true), Success, 0, false),
                (F, Failure, 0, true),
            ],
        },
        Sequence {
            id: "WRK-22",
            kind: Startup,
            success: 1,
            failure: 2,
            ops: &[
                (F, Unknown, 1, false),
                (S, Success, 0, true),
                (Started(true), Success, 0, true),
                (F, Success, 0, true),
            ],
        },
        Sequence {
            id: "WRKX-01",
            kind: Liveness,
            success: 1,
            failure: 1,
            ops: &[(E, Success, 0, false), (E, Success, 0, false), (E, Success, 0, false)],
        },
        Sequence {
            id: "WRKX-02",
            kind: Liveness,
            success: 1,
            failure: 3,
            ops: &[
                (F, Success, 1, false),
                (F, Success, 2, false),
                (New, Success, 2, false),
                (F, Failure, 0, true),
            ],
        },
        Sequence {
            id: "WRKX-03",
            kind: Readiness,
            success: 3,
            failure: 3,
            ops: &[
                (S, Failure, 1, false),
                (S, Failure, 2, false),
                (S, Success, 3, false),
                (New, Failure, 3, false),
                (S, Success, 4, false),
            ],
        },
    ];
    cases.iter().for_each(check);
}

#[test]
fn what_a_run_counts_as() {
    for kind in ProbeKind::ALL {
        let fresh = {
            let mut worker = Worker::new(kind, &thresholds(1, 1));
            worker.bind(FIRST);
            worker
        };
        for (id, verdict, expected) in [
            ("PRB-03, PRB-06", Verdict::Failure, Some(Failure)),
            ("PRB-04", Verdict::Success, Some(Success)),
            ("PRB-05", Verdict::Warning, Some(Success)),
            ("PRB-07", Verdict::Errored, fresh.result(FIRST)),
            ("nobody can judge it", Verdict::Inconclusive, fresh.result(FIRST)),
        ] {
            let mut worker = fresh.clone();
            worker.on_verdict(verdict);
            assert_eq!(worker.result(FIRST), expected, "{id} {kind:?}");
        }
    }
}

#[test]
fn stopping_removes_the_result() {
    // WRK-15; that stop may be called any number of times is so by construction.
    for kind in ProbeKind::ALL {
        let mut worker = Worker::new(kind, &probe());
        worker.bind(FIRST);
        for _ in 0..10 {
            worker.end();
        }
        assert_eq!(worker.result(FIRST), None, "WRK-15 {kind:?}");
        assert_eq!(worker.on_verdict(Verdict::Failure), None, "WRK-15 {kind:?}: a late verdict");
    }
}

#[test]
fn an_equal_result_is_no_update() {
    // MGR-28.
    let mut worker = Worker::new(Readiness, &thresholds(1, 1));
    assert_eq!(worker.bind(FIRST), Some(Failure));
    assert_eq!(worker.on_verdict(Verdict::Success), Some(Success));
    assert_eq!(worker.on_verdict(Verdict::Success), None);
    assert_eq!(worker.on_verdict(Verdict::Warning), None);
    assert_eq!(worker.on_verdict(Verdict::Failure), Some(Failure));
}

#[test]
fn which_containers_get_workers() {
    let probed = |name: &str, role| ContainerSpec {
        startup: Some(probe()),
        readiness: Some(probe()),
        liveness: Some(probe()),
        ..container(name, role)
    };
    let plain = || container("plain", Role::Regular);
    let three = |at: u16| ProbeKind::ALL.map(|kind| (ContainerIx(at), kind)).to_vec();
    let one_each = vec![
        ContainerSpec { readiness: Some(probe()), ..plain() },
        ContainerSpec { liveness: Some(probe()), ..plain() },
        ContainerSpec { startup: Some(probe()), ..plain() },
    ];
    let cases = [
        ("MGR-01", vec![plain()], vec![]),
        (
            "MGR-02",
            one_each,
            vec![(ContainerIx(0), Readiness), (ContainerIx(1), Liveness), (ContainerIx(2), Startup)],
        ),
        ("MGR-05", vec![probed("init", Role::Init), plain()], vec![]),
        ("MGR-06", vec![probed("side", Role::Sidecar), plain()], three(0)),
        (
            "10.1: regular containers before sidecars",
            vec![probed("side", Role::Sidecar), probed("main", Role::Regular)],
            [three(1), three(0)].concat(),
        ),
    ];
    for (id, containers, expected) in cases {
        assert_eq!(workers_of(&pod(RestartPolicy::Always, containers)), expected, "{id}");
    }
}

#[test]
fn a_count_may_begin_anew_with_each_instance() {
    for (resets_on_restart, expected) in [(false, Some(Failure)), (true, None)] {
        let mut worker = Worker::new(Liveness, &ProbeSpec { resets_on_restart, ..thresholds(1, 3) });
        worker.bind(FIRST);
        worker.on_verdict(Verdict::Failure);
        worker.on_verdict(Verdict::Failure);
        // It ended for a reason of its own.
        worker.bind(instance(0, 1));
        assert_eq!(worker.on_verdict(Verdict::Failure), expected, "{resets_on_restart}");
    }
}

#[test]
fn folded_successes_count_like_reported_ones() {
    for (success, folded) in (1..=4).flat_map(|success| (0..=5).map(move |folded| (success, folded))) {
        let mut one_by_one = Worker::new(Readiness, &thresholds(success, 2));
        one_by_one.bind(FIRST);
        let mut at_once = one_by_one.clone();
        for _ in 0..at_once.report_successes() {
            one_by_one.on_verdict(Verdict::Success);
            at_once.on_verdict(Verdict::Success);
        }
        for _ in 0..folded {
            one_by_one.on_verdict(Verdict::Success);
        }
        assert_eq!(at_once.on_folded(folded), None, "they change no result");
        assert_eq!(at_once, one_by_one, "{success} needed, {folded} folded");
    }
}

/// Thresholds told without counters: the judged results since the last hold are a list, and the length of
/// its tail of equal ones decides.
struct Model {
    kind: ProbeKind,
    success: usize,
    failure: usize,
    judged: Vec<bool>,
    result: ResultState,
    on_hold: bool,
}

impl Model {
    fn step(&mut self, op: Op) {
        let is_success = match op {
            Op::New => {
                self.on_hold = false;
                self.result = match self.kind {
                    Liveness => Success,
                    Readiness => Failure,
                    Startup => Unknown,
                };
                return;
            }
            Op::S => true,
            Op::F => false,
            Op::E | Op::Started(_) => return,
        };
        if self.on_hold {
            return;
        }
        self.judged.push(is_success);
        let tail = self.judged.iter().rev().take_while(|judged| **judged == is_success).count();
        let needed = if is_success { self.success } else { self.failure };
        if tail >= needed {
            self.result = if is_success { Success } else { Failure };
            self.on_hold = self.kind == Startup || self.kind == Liveness && !is_success;
            if self.on_hold {
                self.judged.clear();
            }
        }
    }
}

/// Every string over success, failure, error and new instance up to this length.
const LENGTH_MAX: u32 = 8;

#[test]
fn every_string_of_results_matches_the_model() {
    const OPS: [Op; 4] = [Op::S, Op::F, Op::E, Op::New];
    for kind in ProbeKind::ALL {
        for (success, failure) in (1..=4).flat_map(|s| (1..=4).map(move |f| (s, f))) {
            for code in 0..OPS.len().pow(LENGTH_MAX) {
                let mut worker = Worker::new(kind, &thresholds(success, failure));
                let (s, f) = (success as usize, failure as usize);
                let mut model =
                    Model { kind, success: s, failure: f, judged: vec![], result: Unknown, on_hold: false };
                let mut instance = instance(0, 0);
                worker.bind(instance);
                model.step(Op::New);
                let ops = (0..LENGTH_MAX).map(|place| OPS[code / OPS.len().pow(place) % OPS.len()]);
                for op in ops {
                    let verdict = match op {
                        Op::S => Some(Verdict::Success),
                        Op::F => Some(Verdict::Failure),
                        Op::E | Op::Started(_) => Some(Verdict::Errored),
                        Op::New => None,
                    };
                    if let Some(verdict) = verdict {
                        worker.on_verdict(verdict);
                    } else {
                        instance.restart_count += 1;
                        worker.bind(instance);
                    }
                    model.step(op);
                    let found = (worker.result(instance), worker.on_hold());
                    assert_eq!(
                        found,
                        (Some(model.result), model.on_hold),
                        "{kind:?} {success}/{failure}, string {code} in base 4"
                    );
                }
            }
        }
    }
}
