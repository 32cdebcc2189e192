//! Deletes, stops and races at the end of an instance.

use super::world::{Begin, OnStop, Run, container, one, pod, probe};
use super::{Case, Step, check};
use crate::model::pod::{RestartPolicy, Role};
use crate::model::probe::{ProbeKind, Verdict};

const KILL: Step = Step::Probe(0, ProbeKind::Liveness, Verdict::Failure, 3);

// Reason for length: scripts as data.
#[test]
fn deletes_at_every_stage() {
    let plain = || one(RestartPolicy::Always, |_| {});
    let ignores = Run { on_stop: OnStop::Ignores, ..Run::FOREVER };
    check(vec![
        Case {
            id: "while it starts: it is stopped as soon as it runs",
            pod: plain(),
            runs: vec![(0, vec![Run { start: Begin::Starts { after_ms: 300 }, ..Run::FOREVER }])],
            steps: vec![
                Step::Until(100),
                Step::Delete(None),
                Step::Until(300),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.300 Killing Stopping container c",
                    "0.300 stop c.0 grace 30",
                    "0.300 forget",
                    "0.300 gone",
                ]),
                Step::Holds(0, 0, 0),
            ],
        },
        Case {
            id: "while it cleans up after an exit: it is not started again",
            pod: plain(),
            runs: vec![(0, vec![Run { cleanup_ms: 400, ..Run::exits(100, 1) }])],
            steps: vec![
                Step::Until(200),
                Step::Delete(None),
                Step::Until(10_000),
                Step::Says(&["0.000 start c.0", "0.500 forget", "0.500 gone"]),
            ],
        },
        Case {
            id: "during a kill by a probe: the delete's grace shortens it, nothing restarts",
            pod: one(RestartPolicy::Always, |c| c.liveness = Some(probe())),
            runs: vec![(0, vec![ignores])],
            steps: vec![
                KILL,
                Step::Until(1_000),
                Step::Delete(Some(5)),
                Step::Until(100_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Container c failed liveness probe, will be restarted",
                    "0.000 stop c.0 grace 30",
                    "1.000 stop c.0 grace 5",
                    "6.000 forget",
                    "6.000 gone",
                ]),
            ],
        },
        Case {
            id: "a second delete shortens, a third one that is longer changes nothing",
            pod: plain(),
            runs: vec![(0, vec![ignores])],
            steps: vec![
                Step::Until(1_000),
                Step::Delete(None),
                Step::Until(2_000),
                Step::Delete(Some(10)),
                Step::Until(3_000),
                Step::Delete(Some(25)),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "1.000 Killing Stopping container c",
                    "1.000 stop c.0 grace 30",
                    "2.000 stop c.0 grace 10",
                    "12.000 forget",
                    "12.000 gone",
                ]),
            ],
        },
        Case {
            id: "a delete that would end later than the stop under way leaves it alone",
            pod: plain(),
            runs: vec![(0, vec![ignores])],
            steps: vec![
                Step::Delete(Some(10)),
                Step::Until(8_000),
                Step::Delete(Some(9)),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 10",
                    "10.000 forget",
                    "10.000 gone",
                ]),
            ],
        },
        Case {
            id: "grace 0 still leaves two seconds",
            pod: plain(),
            runs: vec![(0, vec![ignores])],
            steps: vec![
                Step::Delete(Some(0)),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 2",
                    "2.000 forget",
                    "2.000 gone",
                ]),
            ],
        },
        Case {
            id: "a container that nothing kills keeps its pod, and only that",
            pod: plain(),
            runs: vec![(0, vec![Run { on_stop: OnStop::Unkillable, ..Run::FOREVER }])],
            steps: vec![
                Step::Delete(None),
                Step::Until(3_600_000),
                Step::Holds(1, 0, 0),
                Step::Exit(0, 0),
                Step::Holds(0, 0, 0),
            ],
        },
    ]);
}

#[test]
fn a_rejected_pod_is_shown_and_never_started() {
    let mut node = super::world::Node::new("reject", one(RestartPolicy::Always, |_| {}), &[]);
    for step in [
        Step::Reject,
        Step::Until(60_000),
        Step::Phase("Failed"),
        Step::Says(&["0.000 NodePorts no"]),
        Step::Delete(None),
        Step::Says(&["60.000 forget", "60.000 gone"]),
        Step::Holds(0, 0, 0),
    ] {
        node.take(step);
    }
}

// Reason for length: scripts as data.
#[test]
fn probes_and_policies_meet() {
    let two = |policy| {
        let mut a = container("a", Role::Regular);
        a.liveness = Some(crate::model::probe::ProbeSpec { termination_grace_s: Some(7), ..probe() });
        pod(policy, vec![a, container("b", Role::Regular)])
    };
    check(vec![
        Case {
            id: "ACTX-02",
            pod: two(RestartPolicy::Never),
            runs: vec![],
            steps: vec![
                KILL,
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start a.0",
                    "0.000 start b.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Container a failed liveness probe",
                    "0.000 stop a.0 grace 7",
                ]),
                Step::Shows(0, "terminated Error 143, restarts 0"),
                Step::Shows(1, "running, ready, restarts 0"),
                Step::Phase("Running"),
            ],
        },
        Case {
            id: "Never, alone: a kill of the whole pod, with its words and its grace",
            pod: one(RestartPolicy::Never, |c| {
                c.liveness = Some(crate::model::probe::ProbeSpec { termination_grace_s: Some(7), ..probe() });
            }),
            runs: vec![],
            steps: vec![
                KILL,
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 30",
                ]),
                Step::Phase("Failed"),
            ],
        },
        Case {
            id: "ACTX-03",
            pod: two(RestartPolicy::Always),
            runs: vec![],
            steps: vec![
                KILL,
                Step::Says(&[
                    "0.000 start a.0",
                    "0.000 start b.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Container a failed liveness probe, will be restarted",
                    "0.000 stop a.0 grace 7",
                    "0.000 start a.1",
                ]),
                Step::Shows(0, "running, ready, restarts 1, last Error 143"),
            ],
        },
        Case {
            id: "ACTX-07",
            pod: one(RestartPolicy::Always, |c| c.liveness = Some(probe())),
            runs: vec![(0, vec![Run::stops(20_000, 0)])],
            steps: vec![
                Step::Probe(0, ProbeKind::Liveness, Verdict::Failure, 2),
                Step::Delete(None),
                Step::Armed(0, ProbeKind::Liveness, false),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 30",
                    "20.000 forget",
                    "20.000 gone",
                ]),
            ],
        },
    ]);
}

// Reason for length: scripts as data.
#[test]
fn a_changed_container_is_restarted() {
    let before = || one(RestartPolicy::Always, |c| c.liveness = Some(probe()));
    let after = || {
        one(RestartPolicy::Always, |c| {
            c.spec_hash = 2;
            c.liveness = Some(crate::model::probe::ProbeSpec { termination_grace_s: Some(7), ..probe() });
        })
    };
    check(vec![
        Case {
            id: "design 9.5, MGR-25: only the workers of the changed container are new",
            pod: before(),
            runs: vec![],
            steps: vec![
                Step::Until(1_000),
                Step::Update(after()),
                Step::Says(&[
                    "0.000 start c.0",
                    "1.000 Killing Container c definition changed, will be restarted",
                    "1.000 stop c.0 grace 30",
                    "1.000 start c.1",
                ]),
                Step::Armed(0, ProbeKind::Liveness, true),
                Step::Holds(1, 1, 0),
            ],
        },
        Case {
            id: "changed while the old definition starts",
            pod: before(),
            runs: vec![(
                0,
                vec![Run { start: Begin::Starts { after_ms: 500 }, ..Run::FOREVER }, Run::FOREVER],
            )],
            steps: vec![
                Step::Until(100),
                Step::Update(after()),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.500 Killing Container c definition changed, will be restarted",
                    "0.500 stop c.0 grace 30",
                    "0.500 start c.1",
                ]),
            ],
        },
        Case {
            id: "a change ends the back-off of the old definition",
            pod: before(),
            runs: vec![(0, vec![Run::exits(1_000, 1), Run::exits(1_000, 1), Run::FOREVER])],
            steps: vec![
                Step::Until(5_000),
                Step::Update(after()),
                Step::Says(&[
                    "0.000 start c.0",
                    "1.000 start c.1",
                    concat!(
                        "2.000 BackOff Back-off restarting failed container c in pod ",
                        "p_ns(00000000-0000-0000-0000-000000000007)"
                    ),
                    "5.000 start c.2",
                ]),
                Step::Shows(0, "running, ready, restarts 2, last Error 1"),
            ],
        },
        Case {
            id: "ACTX-06",
            pod: before(),
            runs: vec![(0, vec![Run { on_stop: OnStop::Ignores, ..Run::FOREVER }, Run::FOREVER])],
            steps: vec![
                Step::Probe(0, ProbeKind::Liveness, Verdict::Failure, 2),
                Step::Update(after()),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Container c definition changed, will be restarted",
                    "0.000 stop c.0 grace 30",
                    "30.000 start c.1",
                ]),
            ],
        },
    ]);
}
