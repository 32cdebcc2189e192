//! Lifecycle hooks through the shard (kubelet-semantics 13).

use super::world::{OnStop, Run, container, one, pod};
use super::{Case, Step, check};
use crate::model::pod::{ContainerSpec, Hook, RestartPolicy, Role};
use crate::model::probe::{ExecAction, HttpGetAction, PortRef, ProbeKind, Verdict};
use crate::model::runtime::{Blame, ExecResult, ExitStatus};

fn exec() -> Hook {
    Hook::Exec(ExecAction { command: vec!["hook".into(), "now".into()] })
}

fn http() -> Hook {
    Hook::HttpGet(HttpGetAction::plain(None, PortRef::Number(81), "/bye"))
}

fn exited(code: u8) -> Step {
    Step::ExecDone(ExecResult::Exited { status: ExitStatus::Code(code), output: "".into() })
}

fn pre_stop(hook: Hook) -> impl FnOnce(&mut ContainerSpec) {
    |spec| spec.pre_stop = Some(hook)
}

fn post_start(hook: Hook) -> impl FnOnce(&mut ContainerSpec) {
    |spec| spec.post_start = Some(hook)
}

// Reason for length: scripts as data.
#[test]
fn pre_stop_hooks() {
    let always = RestartPolicy::Always;
    check(vec![
        Case {
            id: "GRACE-13",
            pod: one(always, pre_stop(exec())),
            runs: vec![(0, vec![Run { on_stop: OnStop::Ignores, ..Run::FOREVER }])],
            steps: vec![
                Step::Delete(None),
                Step::Until(12_900),
                exited(0),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 exec c.0 [hook now] timeout 30",
                    "12.900 stop c.0 grace 18",
                    "30.900 forget",
                    "30.900 gone",
                ]),
                Step::Holds(0, 0, 0),
            ],
        },
        Case {
            id: "GRACE-14",
            pod: one(always, pre_stop(exec())),
            runs: vec![(0, vec![Run { on_stop: OnStop::Ignores, ..Run::FOREVER }])],
            steps: vec![
                Step::Delete(Some(5)),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 exec c.0 [hook now] timeout 5",
                    "5.000 stop c.0 grace 2",
                    "7.000 forget",
                    "7.000 gone",
                ]),
                // The runtime answers in the end, when nobody waits any more.
                Step::Holds(0, 0, 1),
                exited(0),
                Step::Holds(0, 0, 0),
            ],
        },
        Case {
            id: "GRACE-15",
            pod: one(always, pre_stop(exec())),
            runs: vec![],
            steps: vec![
                Step::Delete(Some(0)),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 2",
                    "0.000 forget",
                    "0.000 gone",
                ]),
            ],
        },
        Case {
            id: "a hook that fails is said and delays nothing",
            pod: one(always, pre_stop(http())),
            runs: vec![],
            steps: vec![
                Step::Delete(None),
                Step::Until(1_000),
                Step::OnceDone(Verdict::Failure, "connection refused"),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 once http://127.0.0.1:81/bye",
                    "1.000 FailedPreStopHook PreStopHook failed",
                    "1.000 stop c.0 grace 29",
                    "1.000 forget",
                    "1.000 gone",
                ]),
            ],
        },
        Case {
            id: "any answer of a server is a success of a hook",
            pod: one(always, pre_stop(http())),
            runs: vec![],
            steps: vec![
                Step::Delete(None),
                Step::OnceDone(Verdict::Failure, "HTTP probe failed with statuscode: 500"),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 once http://127.0.0.1:81/bye",
                    "0.000 stop c.0 grace 30",
                    "0.000 forget",
                    "0.000 gone",
                ]),
            ],
        },
        Case {
            id: "a sleep hook sleeps, and a second delete cannot make it longer",
            pod: one(always, pre_stop(Hook::Sleep { seconds: 4 })),
            runs: vec![],
            steps: vec![
                Step::Delete(None),
                Step::Until(1_000),
                Step::Delete(Some(20)),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "4.000 stop c.0 grace 17",
                    "4.000 forget",
                    "4.000 gone",
                ]),
            ],
        },
        Case {
            id: "it exits during the hook: nothing is left to stop",
            pod: one(always, pre_stop(exec())),
            runs: vec![],
            steps: vec![
                Step::Delete(None),
                Step::Until(1_000),
                Step::Exit(0, 0),
                Step::ExecDone(ExecResult::Failed {
                    error: "the container ended".into(),
                    blame: Blame::Elsewhere,
                }),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 exec c.0 [hook now] timeout 30",
                    "1.000 forget",
                    "1.000 gone",
                ]),
                Step::Holds(0, 0, 0),
                Step::Stale(1),
            ],
        },
        Case {
            id: "a second delete cuts the hook short",
            pod: one(always, pre_stop(exec())),
            runs: vec![(0, vec![Run { on_stop: OnStop::Ignores, ..Run::FOREVER }])],
            steps: vec![
                Step::Delete(None),
                Step::Until(2_000),
                Step::Delete(Some(3)),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 exec c.0 [hook now] timeout 30",
                    "5.000 stop c.0 grace 2",
                    "7.000 forget",
                    "7.000 gone",
                ]),
            ],
        },
    ]);
}

// Reason for length: scripts as data.
#[test]
fn post_start_hooks() {
    let with_liveness = |hook| {
        one(RestartPolicy::Always, |spec| {
            spec.post_start = Some(hook);
            spec.liveness = Some(super::world::probe());
        })
    };
    check(vec![
        Case {
            id: "not shown as running and not probed until the hook has ended",
            pod: with_liveness(exec()),
            runs: vec![],
            steps: vec![
                Step::Until(5_000),
                Step::Shows(0, "waiting , restarts 0"),
                Step::Armed(0, ProbeKind::Liveness, false),
                exited(0),
                Step::Shows(0, "running, ready, restarts 0"),
                Step::Armed(0, ProbeKind::Liveness, true),
                Step::Until(60_000),
                Step::Says(&["0.000 start c.0", "0.000 exec c.0 [hook now] timeout -"]),
            ],
        },
        Case {
            id: "a hook that fails kills the container, which is started again",
            pod: one(RestartPolicy::Always, post_start(exec())),
            runs: vec![],
            steps: vec![
                Step::Until(1_000),
                exited(1),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [hook now] timeout -",
                    "1.000 FailedPostStartHook PostStartHook failed",
                    "1.000 Killing FailedPostStartHook",
                    "1.000 stop c.0 grace 30",
                    "1.000 start c.1",
                    "1.000 exec c.1 [hook now] timeout -",
                ]),
            ],
        },
        Case {
            id: "HOOK-07: the event says less, the state says why",
            pod: one(
                RestartPolicy::Always,
                post_start(Hook::HttpGet(HttpGetAction::plain(None, PortRef::Number(81), "bar"))),
            ),
            runs: vec![(0, vec![Run { cleanup_ms: 1_000, ..Run::FOREVER }])],
            steps: vec![
                Step::OnceDone(Verdict::Failure, "connection refused"),
                Step::Shows(
                    0,
                    "waiting PostStartHookError: HTTP lifecycle hook (bar) for Container \"c\" in Pod \
                     \"p_ns(00000000-0000-0000-0000-000000000007)\" failed - error: connection refused, \
                     message: \"\", restarts 0, last Error 143",
                ),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 once http://127.0.0.1:81/bar",
                    "0.000 FailedPostStartHook PostStartHook failed",
                    "0.000 Killing FailedPostStartHook",
                    "0.000 stop c.0 grace 30",
                ]),
            ],
        },
        Case {
            id: "HOOK-01",
            pod: one(
                RestartPolicy::Always,
                post_start(Hook::Exec(ExecAction { command: vec!["ls".into(), "-a".into()] })),
            ),
            runs: vec![],
            steps: vec![Step::Says(&["0.000 start c.0", "0.000 exec c.0 [ls -a] timeout -"])],
        },
        Case {
            id: "a sleep",
            pod: with_liveness(Hook::Sleep { seconds: 3 }),
            runs: vec![],
            steps: vec![
                Step::Until(2_999),
                Step::Armed(0, ProbeKind::Liveness, false),
                Step::Until(3_000),
                Step::Armed(0, ProbeKind::Liveness, true),
                Step::Shows(0, "running, ready, restarts 0"),
            ],
        },
        Case {
            id: "it exits during the hook: an ordinary exit, and the late answer changes nothing",
            pod: one(RestartPolicy::Always, post_start(exec())),
            runs: vec![],
            steps: vec![
                Step::Until(1_000),
                Step::Exit(0, 3),
                Step::ExecDone(ExecResult::Failed {
                    error: "the container ended".into(),
                    blame: Blame::Elsewhere,
                }),
                Step::Stale(1),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [hook now] timeout -",
                    "1.000 start c.1",
                    "1.000 exec c.1 [hook now] timeout -",
                ]),
                Step::Shows(0, "waiting , restarts 1, last Error 3"),
            ],
        },
        Case {
            id: "deleted during the hook: stopped at once",
            pod: one(RestartPolicy::Always, post_start(exec())),
            runs: vec![],
            steps: vec![
                Step::Until(1_000),
                Step::Delete(None),
                Step::Says(&[
                    "0.000 start c.0",
                    "0.000 exec c.0 [hook now] timeout -",
                    "1.000 Killing Stopping container c",
                    "1.000 stop c.0 grace 30",
                    "1.000 forget",
                    "1.000 gone",
                ]),
                Step::ExecDone(ExecResult::Failed {
                    error: "the container ended".into(),
                    blame: Blame::Elsewhere,
                }),
                Step::Holds(0, 0, 0),
            ],
        },
    ]);
}

#[test]
fn hooks_of_one_container_do_not_hold_up_its_neighbour() {
    let mut a = container("a", Role::Regular);
    a.pre_stop = Some(exec());
    check(vec![Case {
        id: "stops go out together",
        pod: pod(RestartPolicy::Always, vec![a, container("b", Role::Regular)]),
        runs: vec![],
        steps: vec![
            Step::Delete(None),
            Step::Until(3_000),
            exited(0),
            Step::Says(&[
                "0.000 start a.0",
                "0.000 start b.0",
                "0.000 Killing Stopping container a",
                "0.000 exec a.0 [hook now] timeout 30",
                "0.000 Killing Stopping container b",
                "0.000 stop b.0 grace 30",
                "3.000 stop a.0 grace 27",
                "3.000 forget",
                "3.000 gone",
            ]),
        ],
    }]);
}
