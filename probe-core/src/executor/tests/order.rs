//! Init containers and sidecars: who starts after whom, and who stops first.

use super::world::{Begin, OnStop, Run, container, pod, probe};
use super::{Case, Step, check};
use crate::model::pod::{ContainerSpec, RestartPolicy, Role};
use crate::model::probe::{ProbeKind, Verdict};

fn sidecar(name: &str) -> ContainerSpec {
    container(name, Role::Sidecar)
}

#[test]
fn init_containers_run_one_after_the_other() {
    let spec = |policy| {
        let inits = ["i", "j"].map(|name| container(name, Role::Init));
        pod(policy, inits.into_iter().chain([container("c", Role::Regular)]).collect())
    };
    let good = || vec![Run::exits(1_000, 0)];
    check(vec![
        Case {
            id: "in order, then the regular containers",
            pod: spec(RestartPolicy::Never),
            runs: vec![(0, good()), (1, good())],
            steps: vec![
                Step::Until(500),
                Step::Shows(2, "waiting PodInitializing, restarts 0"),
                Step::Phase("Pending"),
                Step::Until(10_000),
                Step::Says(&["0.000 start i.0", "1.000 start j.0", "2.000 start c.0"]),
                Step::Phase("Running"),
            ],
        },
        Case {
            id: "one that fails is tried again, and those behind it wait",
            pod: spec(RestartPolicy::OnFailure),
            runs: vec![(0, vec![Run::exits(1_000, 1), Run::exits(1_000, 0)]), (1, good())],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&["0.000 start i.0", "1.000 start i.1", "2.000 start j.0", "3.000 start c.0"]),
            ],
        },
        Case {
            id: "Never: one that fails is the end of the pod",
            pod: spec(RestartPolicy::Never),
            runs: vec![(0, good()), (1, vec![Run::exits(1_000, 1)])],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&["0.000 start i.0", "1.000 start j.0"]),
                Step::Phase("Failed"),
                Step::Delete(None),
                Step::Holds(0, 0, 0),
            ],
        },
        Case {
            id: "a finished one is not started again when a regular container restarts",
            pod: spec(RestartPolicy::Always),
            runs: vec![(0, good()), (1, good()), (2, vec![Run::exits(1_000, 1), Run::FOREVER])],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&["0.000 start i.0", "1.000 start j.0", "2.000 start c.0", "3.000 start c.1"]),
            ],
        },
    ]);
}

// Reason for length: scripts as data.
#[test]
fn sidecars_start_before_and_stop_after_the_others() {
    let mut gated = sidecar("s");
    gated.startup = Some(probe());
    let mut live = sidecar("s");
    live.liveness = Some(probe());
    let regular = || container("c", Role::Regular);
    check(vec![
        Case {
            id: "the next one waits for the startup probe of a sidecar",
            pod: pod(RestartPolicy::Always, vec![gated, regular()]),
            runs: vec![],
            steps: vec![
                Step::Until(5_000),
                Step::Says(&["0.000 start s.0"]),
                Step::Probe(0, ProbeKind::Startup, Verdict::Success, 1),
                Step::Says(&["5.000 start c.0"]),
            ],
        },
        Case {
            id: "ACTX-09",
            pod: pod(RestartPolicy::Always, vec![live, regular()]),
            runs: vec![],
            steps: vec![
                Step::Probe(0, ProbeKind::Liveness, Verdict::Failure, 3),
                Step::Says(&[
                    "0.000 start s.0",
                    "0.000 start c.0",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Unhealthy Liveness probe failed: x",
                    "0.000 Killing Init container s failed liveness probe",
                    "0.000 stop s.0 grace 30",
                    "0.000 start s.1",
                ]),
            ],
        },
        Case {
            id: "Never restarts a sidecar all the same, and ends it with the last regular container",
            pod: pod(RestartPolicy::Never, vec![sidecar("s"), regular()]),
            runs: vec![(0, vec![Run::exits(1_000, 1), Run::FOREVER]), (1, vec![Run::exits(5_000, 0)])],
            steps: vec![
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start s.0",
                    "0.000 start c.0",
                    "1.000 start s.1",
                    "5.000 Killing Stopping container s",
                    "5.000 stop s.1 grace 30",
                ]),
                Step::Phase("Succeeded"),
            ],
        },
        Case {
            id: "the last sidecar stops first, each with what is left of the grace period",
            pod: pod(RestartPolicy::Always, vec![sidecar("s"), sidecar("t"), regular()]),
            runs: vec![(1, vec![Run::stops(4_000, 0)]), (2, vec![Run::stops(3_000, 0)])],
            steps: vec![
                Step::Delete(None),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start s.0",
                    "0.000 start t.0",
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 30",
                    "3.000 Killing Stopping container t",
                    "3.000 stop t.0 grace 27",
                    "7.000 Killing Stopping container s",
                    "7.000 stop s.0 grace 23",
                    "7.000 forget",
                    "7.000 gone",
                ]),
            ],
        },
        Case {
            id: "a container that nothing kills holds the sidecars up for one grace period",
            pod: pod(RestartPolicy::Always, vec![sidecar("s"), regular()]),
            runs: vec![(1, vec![Run { on_stop: OnStop::Unkillable, ..Run::FOREVER }])],
            steps: vec![
                Step::Delete(Some(6)),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start s.0",
                    "0.000 start c.0",
                    "0.000 Killing Stopping container c",
                    "0.000 stop c.0 grace 6",
                    "6.000 Killing Stopping container s",
                    "6.000 stop s.0 grace 2",
                ]),
                Step::Exit(1, 0),
                Step::Says(&["60.000 forget", "60.000 gone"]),
            ],
        },
        Case {
            id: "deleted while a sidecar starts: it is stopped when it runs, in its turn",
            pod: pod(RestartPolicy::Always, vec![sidecar("s"), regular()]),
            runs: vec![(0, vec![Run { start: Begin::Starts { after_ms: 2_000 }, ..Run::FOREVER }])],
            steps: vec![
                Step::Until(1_000),
                Step::Delete(None),
                Step::Until(60_000),
                Step::Says(&[
                    "0.000 start s.0",
                    "2.000 Killing Stopping container s",
                    "2.000 stop s.0 grace 29",
                    "2.000 forget",
                    "2.000 gone",
                ]),
            ],
        },
    ]);
}
