//! CrashLoopBackOff and restart policies through the shard (kubelet-semantics 12, 14).

use super::world::{Begin, OnStop, Run, container, one, pod, probe};
use super::{Case, Step, check};
use crate::model::pod::{RestartPolicy, Role};
use crate::model::probe::{ProbeKind, Verdict};

#[test]
fn bo_01_the_waits_double_up_to_five_minutes() {
    // Moments of the starts: the exit comes 1 s after each, and the wait counts from it.
    let waits_s: [u64; 9] = [0, 10, 20, 40, 80, 160, 300, 300, 300];
    let mut at_s = 0;
    let mut steps = Vec::new();
    for (count, wait_s) in waits_s.into_iter().enumerate() {
        at_s += 1 + wait_s;
        let restarts = u32::try_from(count).unwrap();
        if wait_s > 0 {
            steps.push((at_s * 1_000 - 1, restarts));
        }
        steps.push((at_s * 1_000, restarts + 1));
    }
    let mut node = super::world::Node::new(
        "BO-01",
        one(RestartPolicy::Always, |_| {}),
        &[(0, vec![Run::exits(1_000, 1)])],
    );
    node.take(Step::Add(one(RestartPolicy::Always, |_| {})));
    for (at_ms, restarts) in steps {
        node.take(Step::Until(at_ms));
        assert_eq!(node.starts(0), restarts + 1, "starts until {at_ms} ms");
    }
}

// Reason for length: scripts as data.
#[test]
fn restarts_follow_policy_and_back_off() {
    check(vec![
        Case {
            id: "E2E-R-01",
            pod: one(RestartPolicy::Always, |_| {}),
            runs: vec![(0, vec![Run::exits(1_000, 1), Run::exits(1_000, 0), Run::FOREVER])],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "1.000 start c.1",
                    concat!(
                        "2.000 BackOff Back-off restarting failed container c in pod ",
                        "p_ns(00000000-0000-0000-0000-000000000007)"
                    ),
                    "12.000 start c.2",
                ]),
                Step::Shows(0, "running, ready, restarts 2, last Completed 0"),
                Step::Phase("Running"),
                Step::Delete(None),
                Step::Says(&[
                    "60.000 Killing Stopping container c",
                    "60.000 stop c.2 grace 30",
                    "60.000 forget",
                    "60.000 gone",
                ]),
                Step::Holds(0, 0, 0),
            ],
        },
        Case {
            id: "E2E-R-03",
            pod: one(RestartPolicy::Never, |_| {}),
            runs: vec![(0, vec![Run::exits(1_000, 1), Run::exits(1_000, 0), Run::FOREVER])],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&["0.000 start c.0"]),
                Step::Shows(0, "terminated Error 1, restarts 0"),
                Step::Phase("Failed"),
                Step::Delete(None),
                Step::Says(&["60.000 forget", "60.000 gone"]),
            ],
        },
        Case {
            id: "OnFailure restarts a failure and leaves a success",
            pod: one(RestartPolicy::OnFailure, |_| {}),
            runs: vec![(0, vec![Run::exits(1_000, 1), Run::exits(1_000, 0)])],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&["0.000 start c.0", "1.000 start c.1"]),
                Step::Shows(0, "terminated Completed 0, restarts 1, last Error 1"),
                Step::Phase("Succeeded"),
            ],
        },
        Case {
            id: "BO-11",
            pod: one(RestartPolicy::Always, |_| {}),
            runs: vec![(0, vec![Run::exits(1_000, 1)])],
            steps: vec![
                Step::Until(5_000),
                Step::Shows(
                    0,
                    "waiting CrashLoopBackOff: back-off 10s restarting failed container=c \
                     pod=p_ns(00000000-0000-0000-0000-000000000007), restarts 1, last Error 1",
                ),
                Step::Phase("Running"),
                // The refusal is said once, however often the pod is looked at.
                Step::Update(one(RestartPolicy::Always, |_| {})),
                Step::Until(12_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "1.000 start c.1",
                    concat!(
                        "2.000 BackOff Back-off restarting failed container c in pod ",
                        "p_ns(00000000-0000-0000-0000-000000000007)"
                    ),
                    "12.000 start c.2",
                ]),
                // A delete in the back-off has nothing to stop.
                Step::Until(14_000),
                Step::Delete(None),
                Step::Until(100_000),
                Step::Holds(0, 0, 0),
            ],
        },
    ]);
}

// Reason for length: scripts as data.
#[test]
fn kills_by_a_probe_look_at_the_instance_before() {
    let probed = |policy| one(policy, |c| c.liveness = Some(probe()));
    let kill = Step::Probe(0, ProbeKind::Liveness, Verdict::Failure, 3);
    check(vec![
        Case {
            id: "BO-08 BO-09",
            pod: probed(RestartPolicy::Always),
            runs: vec![],
            steps: vec![
                Step::Until(5_000),
                kill.clone(),
                Step::Says(&[
                    "0.000 start c.0",
                    "5.000 Unhealthy Liveness probe failed: x",
                    "5.000 Unhealthy Liveness probe failed: x",
                    "5.000 Unhealthy Liveness probe failed: x",
                    "5.000 Killing Container c failed liveness probe, will be restarted",
                    "5.000 stop c.0 grace 30",
                    "5.000 start c.1",
                ]),
                Step::Shows(0, "running, ready, restarts 1, last Error 143"),
                // The second kill makes the entry of 10 s and restarts at once.
                Step::Until(6_000),
                kill.clone(),
                Step::Shows(0, "running, ready, restarts 2, last Error 143"),
                // The third looks at the second killed instance, which ended 1 s ago.
                Step::Until(7_000),
                kill.clone(),
                Step::Shows(
                    0,
                    "waiting CrashLoopBackOff: back-off 10s restarting failed container=c \
                     pod=p_ns(00000000-0000-0000-0000-000000000007), restarts 2, last Error 143",
                ),
                // And once refused, at the instance that was killed now: 7 s + 10 s.
                Step::Until(16_999),
                Step::Holds(1, 1, 0),
                Step::Shows(
                    0,
                    "waiting CrashLoopBackOff: back-off 10s restarting failed container=c \
                     pod=p_ns(00000000-0000-0000-0000-000000000007), restarts 2, last Error 143",
                ),
                Step::Until(17_000),
                Step::Shows(0, "running, ready, restarts 3, last Error 143"),
            ],
        },
        Case {
            id: "ACTX-04",
            pod: probed(RestartPolicy::OnFailure),
            runs: vec![(0, vec![Run::stops(500, 0), Run::stops(0, 0)])],
            steps: vec![
                kill.clone(),
                Step::Until(500),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Container c failed liveness probe, will be restarted",
                    "0.000 stop c.0 grace 30",
                    "0.500 start c.1",
                ]),
                Step::Shows(0, "running, ready, restarts 1, last Completed 0"),
                // Refused by back-off, the exit code 0 decides after all.
                kill.clone(),
                kill,
                Step::Until(100_000),
                Step::Shows(0, "terminated Completed 0, restarts 2, last Completed 0"),
                Step::Phase("Succeeded"),
            ],
        },
    ]);
}

#[test]
fn starts_that_fail() {
    check(vec![
        Case {
            id: "not even created: again after 10 s, under the same restart count",
            pod: one(RestartPolicy::Always, |_| {}),
            runs: vec![(0, vec![Run { start: Begin::CreateFails, ..Run::FOREVER }, Run::FOREVER])],
            steps: vec![
                Step::Shows(0, "waiting CreateContainerError: no room, restarts 0"),
                Step::Until(10_000),
                Step::Says(&["0.000 start c.0", "0.000 Failed Error: no room", "10.000 start c.0"]),
                Step::Shows(0, "running, ready, restarts 0"),
            ],
        },
        Case {
            id: "created and not started: an end with StartError",
            pod: one(RestartPolicy::Always, |_| {}),
            runs: vec![(0, vec![Run { start: Begin::RunFails, ..Run::FOREVER }])],
            steps: vec![
                Step::Until(9_999),
                Step::Shows(
                    0,
                    "waiting CrashLoopBackOff: back-off 10s restarting failed container=c \
                     pod=p_ns(00000000-0000-0000-0000-000000000007), restarts 1, last StartError 128",
                ),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Failed Error: no such file",
                    "0.000 start c.1",
                    "0.000 Failed Error: no such file",
                    concat!(
                        "0.000 BackOff Back-off restarting failed container c in pod ",
                        "p_ns(00000000-0000-0000-0000-000000000007)"
                    ),
                ]),
            ],
        },
        Case {
            id: "Never: a start that fails is the end",
            pod: one(RestartPolicy::Never, |_| {}),
            runs: vec![(0, vec![Run { start: Begin::RunFails, ..Run::FOREVER }])],
            steps: vec![
                Step::Until(100_000),
                Step::Shows(0, "terminated StartError 128, restarts 0"),
                Step::Phase("Failed"),
            ],
        },
        Case {
            id: "deleted before it could be created",
            pod: one(RestartPolicy::Always, |_| {}),
            runs: vec![(0, vec![Run { start: Begin::CreateFails, cleanup_ms: 700, ..Run::FOREVER }])],
            steps: vec![
                Step::Delete(None),
                Step::Says(&["0.000 start c.0", "0.000 Failed Error: no room"]),
                Step::Until(700),
                Step::Says(&["0.700 forget", "0.700 gone"]),
                Step::Holds(0, 0, 0),
            ],
        },
    ]);
}

#[test]
fn a_slow_end_holds_up_only_its_own_container() {
    let spec = pod(RestartPolicy::Always, vec![container("a", Role::Regular), container("b", Role::Regular)]);
    check(vec![Case {
        id: "the next start waits until nothing is left; the neighbour restarts meanwhile",
        pod: spec,
        runs: vec![
            (0, vec![Run { cleanup_ms: 5_000, ..Run::exits(1_000, 1) }, Run::FOREVER]),
            (1, vec![Run { on_stop: OnStop::Ignores, ..Run::exits(2_000, 1) }, Run::FOREVER]),
        ],
        steps: vec![
            Step::Until(6_000),
            Step::Says(&["0.000 start a.0", "0.000 start b.0", "2.000 start b.1", "6.000 start a.1"]),
        ],
    }]);
}

/// BO-10: an agent that starts again ends what ran before and knows nothing of it, neither its back-off nor its count.
#[test]
fn a_new_agent_starts_everything_at_once() {
    let spec = || one(RestartPolicy::Always, |_| {});
    let runs = [(0, vec![Run::exits(1_000, 1)])];
    let started = |steps: Vec<Step>| {
        let mut node = super::world::Node::new("BO-10", spec(), &runs);
        node.take(Step::Add(spec()));
        steps.into_iter().for_each(|step| node.take(step));
        node.starts(0)
    };
    let waits = Step::Shows(
        0,
        "waiting CrashLoopBackOff: back-off 10s restarting failed container=c \
         pod=p_ns(00000000-0000-0000-0000-000000000007), restarts 1, last Error 1",
    );
    assert_eq!(started(vec![Step::Until(5_000), waits]), 2);
    let fresh = Step::Shows(0, "running, ready, restarts 0");
    assert_eq!(
        started(vec![fresh, Step::Until(1_000), Step::Shows(0, "running, ready, restarts 1, last Error 1")]),
        2
    );
}
