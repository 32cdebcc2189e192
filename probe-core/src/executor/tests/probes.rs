//! Workers through the shard: gates, thresholds, exec runs, runs on request (kubelet-semantics 8, 10, 11).

use super::world::{Begin, Run, container, one, pod, probe, thresholds};
use super::{Case, Step, check};
use crate::model::pod::{ContainerSpec, RestartPolicy, Role};
use crate::model::probe::{ErroredRuns, ExecAction, Handler, ProbeKind, ProbeSpec, Verdict};
use crate::model::runtime::{Blame, ExecResult, ExitStatus};

const LIVENESS: ProbeKind = ProbeKind::Liveness;
const READINESS: ProbeKind = ProbeKind::Readiness;
const STARTUP: ProbeKind = ProbeKind::Startup;

fn all_three(spec: &mut ContainerSpec) {
    spec.startup = Some(probe());
    spec.readiness = Some(probe());
    spec.liveness = Some(probe());
}

fn exec() -> ProbeSpec {
    ProbeSpec { handler: Handler::Exec(ExecAction { command: vec!["test".into(), "it".into()] }), ..probe() }
}

fn exited(code: u8) -> Step {
    Step::ExecDone(ExecResult::Exited { status: ExitStatus::Code(code), output: "no".into() })
}

fn failed() -> Step {
    failed_by(Blame::Command)
}

fn failed_by(blame: Blame) -> Step {
    Step::ExecDone(ExecResult::Failed { error: "not found".into(), blame })
}

#[test]
fn the_counters_of_a_probe_end_with_its_worker() {
    let case = |id, policy, code, stays| Case {
        id,
        pod: one(policy, |c| c.liveness = Some(probe())),
        runs: vec![],
        steps: vec![
            Step::Counted(0, ProbeKind::Liveness, true),
            Step::Exit(0, code),
            Step::Counted(0, ProbeKind::Liveness, stays),
        ],
    };
    check(vec![
        case("started again", RestartPolicy::Always, 0, true),
        case("started again after a failure", RestartPolicy::OnFailure, 1, true),
        case("ended well", RestartPolicy::OnFailure, 0, false),
        case("never again", RestartPolicy::Never, 1, false),
    ]);
}

#[test]
fn workers_come_and_go_with_their_pod() {
    let mut probed = container("b", Role::Regular);
    all_three(&mut probed);
    let mut init = container("i", Role::Init);
    all_three(&mut init);
    check(vec![
        Case {
            id: "MGR-03",
            pod: one(RestartPolicy::Always, |_| {}),
            runs: vec![],
            steps: vec![Step::Holds(1, 0, 0), Step::Delete(None), Step::Holds(0, 0, 0)],
        },
        Case {
            id: "MGR-04 MGR-08",
            pod: pod(RestartPolicy::Always, vec![container("a", Role::Regular), probed]),
            runs: vec![],
            steps: vec![
                Step::Holds(1, 3, 0),
                Step::Delete(None),
                Step::Holds(0, 0, 0),
                Step::Stale(0),
                Step::Delete(None),
                Step::Stale(1),
                Step::Holds(0, 0, 0),
            ],
        },
        Case {
            id: "MGR-05",
            pod: pod(RestartPolicy::Always, vec![init, container("c", Role::Regular)]),
            runs: vec![(0, vec![Run::exits(0, 0)])],
            steps: vec![Step::Holds(1, 0, 0)],
        },
        Case {
            id: "MGR-07: the same pod added again changes nothing",
            pod: one(RestartPolicy::Always, all_three),
            runs: vec![],
            steps: vec![
                Step::Add(one(RestartPolicy::Always, all_three)),
                Step::Holds(1, 3, 0),
                Step::Says(&["0.000 start c.0"]),
            ],
        },
    ]);
}

// Reason for length: scripts as data.
#[test]
fn gates_and_thresholds() {
    check(vec![
        Case {
            id: "MGR-23",
            pod: one(RestartPolicy::Always, |c| c.readiness = Some(thresholds(1, 1))),
            runs: vec![],
            steps: vec![
                Step::Shows(0, "running, restarts 0"),
                Step::Probe(0, READINESS, Verdict::Success, 1),
                Step::Shows(0, "running, ready, restarts 0"),
                Step::Probe(0, READINESS, Verdict::Failure, 1),
                Step::Shows(0, "running, restarts 0"),
            ],
        },
        Case {
            id: "the startup probe opens the gate of the others and then waits for the next instance",
            pod: one(RestartPolicy::Always, all_three),
            runs: vec![],
            steps: vec![
                Step::Armed(0, STARTUP, true),
                Step::Armed(0, LIVENESS, false),
                Step::Armed(0, READINESS, false),
                Step::Probe(0, STARTUP, Verdict::Success, 1),
                Step::Armed(0, STARTUP, false),
                Step::Armed(0, LIVENESS, true),
                Step::Armed(0, READINESS, true),
                Step::Exit(0, 1),
                Step::Armed(0, STARTUP, true),
                Step::Armed(0, LIVENESS, false),
            ],
        },
        Case {
            id: "a startup probe that fails kills",
            pod: one(RestartPolicy::Always, all_three),
            runs: vec![],
            steps: vec![
                Step::Probe(0, STARTUP, Verdict::Failure, 3),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Unhealthy Startup probe failed: x",
                    "0.000 Unhealthy Startup probe failed: x",
                    "0.000 Unhealthy Startup probe failed: x",
                    "0.000 Killing Container c failed startup probe, will be restarted",
                    "0.000 stop c.0 grace 30",
                    "0.000 start c.1",
                ]),
            ],
        },
        Case {
            id: "ACTX-08: readiness never kills",
            pod: one(RestartPolicy::Always, |c| c.readiness = Some(probe())),
            runs: vec![],
            steps: vec![
                Step::Probe(0, READINESS, Verdict::Failure, 1_000),
                Step::Shows(0, "running, restarts 0"),
                Step::Armed(0, READINESS, true),
            ],
        },
        Case {
            id: "10.5: a run of failures outlives an exit that it did not cause",
            pod: one(RestartPolicy::Always, |c| c.liveness = Some(probe())),
            runs: vec![],
            steps: vec![
                Step::Probe(0, LIVENESS, Verdict::Failure, 2),
                Step::Exit(0, 1),
                Step::Probe(0, LIVENESS, Verdict::Failure, 1),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 start c.1",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Container c failed liveness probe, will be restarted",
                    "0.000 stop c.1 grace 30",
                    concat!(
                        "0.000 BackOff Back-off restarting failed container c in pod ",
                        "p_ns(00000000-0000-0000-0000-000000000007)"
                    ),
                ]),
            ],
        },
        Case {
            id: "10.5: errors move no counter, warnings count as success",
            pod: one(RestartPolicy::Always, |c| c.liveness = Some(probe())),
            runs: vec![],
            steps: vec![
                Step::Probe(0, LIVENESS, Verdict::Failure, 2),
                Step::Probe(0, LIVENESS, Verdict::Errored, 5),
                Step::Probe(0, LIVENESS, Verdict::Warning, 1),
                Step::Probe(0, LIVENESS, Verdict::Failure, 2),
                Step::Shows(0, "running, ready, restarts 0"),
            ],
        },
        Case {
            id: "slow from created to started: no probe thinks the worse of it",
            pod: one(RestartPolicy::Always, |c| c.liveness = Some(probe())),
            runs: vec![(0, vec![Run { start: Begin::Starts { after_ms: 900 }, ..Run::FOREVER }])],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&["0.000 start c.0"]),
                Step::Shows(0, "running, ready, restarts 0"),
            ],
        },
    ]);
}

// Reason for length: scripts as data.
#[test]
fn exec_probes() {
    let pod = || one(RestartPolicy::Always, |c| c.liveness = Some(exec()));
    let due = || Step::ExecDue(0, LIVENESS);
    check(vec![
        Case {
            id: "one run",
            pod: pod(),
            runs: vec![],
            steps: vec![
                due(),
                exited(1),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 exec probe ended",
                    "0.000 Unhealthy Liveness probe failed: no",
                ]),
                due(),
                Step::ExecDone(ExecResult::TimedOut),
                Step::Says(&[
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 exec probe ended",
                    "0.000 Unhealthy Liveness probe failed: command timed out: \"test it\" timed out after 1s",
                ]),
                Step::Holds(1, 1, 0),
            ],
        },
        Case {
            id: "EXEC-01 EXEC-02: whoever exits with 0 passes",
            pod: one(RestartPolicy::Always, |c| c.readiness = Some(exec())),
            runs: vec![],
            steps: vec![
                Step::Shows(0, "running, restarts 0"),
                Step::ExecDue(0, READINESS),
                exited(0),
                Step::Shows(0, "running, ready, restarts 0"),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 exec probe ended",
                ]),
            ],
        },
        Case {
            id: "EXEC-04: a run that errs is tried three times, then said, and counts nothing",
            pod: pod(),
            runs: vec![],
            steps: vec![
                due(),
                failed(),
                failed(),
                failed(),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 exec probe ended",
                    "0.000 Unhealthy Liveness probe errored and resulted in unknown state: not found",
                ]),
            ],
        },
        Case {
            id: "the container ends during the run: no event, nothing counted",
            pod: pod(),
            runs: vec![],
            steps: vec![
                due(),
                Step::Exit(0, 1),
                failed(),
                Step::Stale(1),
                Step::Says(&["0.000 start c.0", "0.000 exec c.0 [test it] timeout 1", "0.000 start c.1"]),
                Step::Holds(1, 1, 0),
            ],
        },
        Case {
            id: "the pod is deleted during the run",
            pod: pod(),
            runs: vec![],
            steps: vec![due(), Step::Delete(None), Step::Holds(0, 0, 1), failed(), Step::Holds(0, 0, 0)],
        },
    ]);
}

/// Annotation `errored-runs`: which runs move the threshold, here of one.
#[test]
fn errored_runs_that_count() {
    const FAILED: &str = "0.000 Unhealthy Liveness probe failed: not found";
    const KILLED: [&str; 3] = [
        "0.000 Killing Container c failed liveness probe, will be restarted",
        "0.000 stop c.0 grace 30",
        "0.000 start c.1",
    ];
    const ERRED: &str = "0.000 Unhealthy Liveness probe errored and resulted in unknown state: not found";
    let case = |errored_runs, id, ends: [Blame; 3], event, is_killed: bool| {
        let probe = ProbeSpec { errored_runs, failure_threshold: 1, ..exec() };
        let mut steps = vec![Step::ExecDue(0, LIVENESS)];
        steps.extend(ends.map(failed_by));
        let mut says = vec!["0.000 start c.0"];
        says.extend(["0.000 exec c.0 [test it] timeout 1"; 3]);
        says.extend(["0.000 exec probe ended", event]);
        if is_killed {
            says.extend(KILLED);
        }
        steps.push(Step::Says(says.leak()));
        let pod = one(RestartPolicy::Always, |c| c.liveness = Some(probe));
        Case { id, pod, runs: vec![], steps }
    };
    let (command, elsewhere) = (Blame::Command, Blame::Elsewhere);
    check(vec![
        case(ErroredRuns::Ignore, "kubelet's way", [command; 3], ERRED, false),
        case(ErroredRuns::Failure, "it counts", [command; 3], FAILED, true),
        case(ErroredRuns::Failure, "a shortage never does", [elsewhere; 3], ERRED, false),
        case(ErroredRuns::Failure, "not in the last attempt", [command, command, elsewhere], ERRED, false),
        case(ErroredRuns::Failure, "nor in an earlier one", [elsewhere, command, command], ERRED, false),
    ]);
}

// Reason for length: scripts as data.
#[test]
fn runs_on_request() {
    let tcp = || one(RestartPolicy::Always, |c| c.liveness = Some(probe()));
    let exec = || one(RestartPolicy::Always, |c| c.liveness = Some(exec()));
    let now = || Step::ProbeNow(0, LIVENESS);
    check(vec![
        Case {
            id: "over the network",
            pod: tcp(),
            runs: vec![],
            steps: vec![
                now(),
                Step::OnceDone(Verdict::Failure, "refused"),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 once tcp port 80",
                    "0.000 probe now: Failure refused",
                ]),
                Step::Shows(0, "running, ready, restarts 0"),
            ],
        },
        Case {
            id: "exec: thresholds and events stay out of it",
            pod: exec(),
            runs: vec![],
            steps: vec![
                now(),
                exited(1),
                now(),
                exited(1),
                now(),
                exited(1),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 probe now: Failure no",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 probe now: Failure no",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 probe now: Failure no",
                ]),
                Step::Shows(0, "running, ready, restarts 0"),
            ],
        },
        Case {
            id: "whoever asked goes away, and comes again",
            pod: tcp(),
            runs: vec![],
            steps: vec![
                now(),
                Step::ForgetNow,
                Step::Holds(1, 1, 0),
                // The answer was on its way: nobody reads it.
                Step::OnceDone(Verdict::Failure, "late"),
                now(),
                Step::OnceDone(Verdict::Success, ""),
                Step::ForgetNow,
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 once tcp port 80",
                    "0.000 once cut",
                    "0.000 once tcp port 80",
                    "0.000 probe now: Success ",
                ]),
                Step::Holds(1, 1, 0),
            ],
        },
        Case {
            id: "whoever asked for an exec run goes away: it ends by itself",
            pod: exec(),
            runs: vec![],
            steps: vec![
                now(),
                Step::ForgetNow,
                exited(1),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [test it] timeout 1",
                    "0.000 probe now: Failure no",
                ]),
                Step::Holds(1, 1, 0),
            ],
        },
        Case {
            id: "what cannot run says why",
            pod: tcp(),
            runs: vec![(0, vec![Run::exits(1_000, 0), Run::exits(1_000, 0)])],
            steps: vec![
                Step::ProbeNow(0, READINESS),
                Step::ProbeNow(9, LIVENESS),
                Step::Until(5_000),
                now(),
                Step::Delete(None),
                now(),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 probe now: refused: container c has no readiness probe",
                    "0.000 probe now: refused: container ? has no liveness probe",
                    "1.000 start c.1",
                    concat!(
                        "2.000 BackOff Back-off restarting failed container c in pod ",
                        "p_ns(00000000-0000-0000-0000-000000000007)"
                    ),
                    "5.000 probe now: refused: container c is not running",
                    "5.000 forget",
                    "5.000 gone",
                    "5.000 probe now: refused: the pod is gone",
                ]),
            ],
        },
        Case {
            id: "the pod goes while the run is under way",
            pod: tcp(),
            runs: vec![],
            steps: vec![
                now(),
                Step::Delete(None),
                Step::OnceDone(Verdict::Success, ""),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 once tcp port 80",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 30",
                    "0.000 forget",
                    "0.000 gone",
                    "0.000 probe now: refused: the pod is gone",
                ]),
                Step::Holds(0, 0, 0),
            ],
        },
    ]);
}

/// MGR-09: a hundred pods with three workers each, removed again and again.
#[test]
fn a_hundred_pods_go_without_a_trace() {
    let mut shard = crate::executor::Shard::new(super::world::config());
    let mut out = Vec::new();
    for round in 0..10u128 {
        let mut inputs = Vec::new();
        for pod in 0..100u128 {
            let mut spec = one(RestartPolicy::Always, all_three);
            spec.uid = crate::model::id::PodUid(round * 1_000 + pod);
            // Rejected, so that no runtime is needed for them to go.
            let spec = std::sync::Arc::new(spec);
            let reject = crate::executor::PodCmd::Reject { spec, reason: "NodePorts", message: "no".into() };
            inputs.push(crate::executor::Input::Pod(reject));
        }
        shard.turn(crate::model::time::Now::default(), &mut inputs, &mut out);
        assert_eq!((shard.counters().pods, shard.counters().probes), (100, 300));
        for _ in 0..2 {
            for pod in 0..100u128 {
                let pod = crate::model::id::PodUid(round * 1_000 + pod);
                let delete = crate::executor::PodCmd::Delete { pod, grace_s: None };
                inputs.push(crate::executor::Input::Pod(delete));
            }
            shard.turn(crate::model::time::Now::default(), &mut inputs, &mut out);
        }
        assert_eq!((shard.counters().pods, shard.counters().probes), (0, 0));
    }
}
