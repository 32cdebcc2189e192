//! Group ST and the started/ready cases of MGR; phases, conditions and restart counts.

use super::world::{
    Slot, World, at_s, container, container_id, exited, instance, now_s, pod, probe, running, wall_s,
};
use crate::decide::messages;
use crate::decide::ready::{pokes_readiness, ready, started};
use crate::decide::status::{
    StatusContext, next_restart_count, pod_status, rejected, start_failed, terminated,
};
use crate::decide::view::{Record, RecordState, ResultState, StartFailure};
use crate::model::pod::RestartPolicy::{self, Always, Never, OnFailure};
use crate::model::pod::{ContainerSpec, Role};
use crate::model::runtime::ExitStatus;
use crate::model::status::{ContainerState, Phase, PodStatus};

fn context(previous: Option<&PodStatus>, s: u64) -> StatusContext<'_> {
    StatusContext { previous, start_time: wall_s(1), deletion: None, now: wall_s(s) }
}

fn status(world: &World) -> PodStatus {
    world.ask(|pod| pod_status(pod, &context(None, 5)))
}

fn one(policy: RestartPolicy) -> World {
    World::new(pod(policy, vec![container("c", Role::Regular)]))
}

fn backing_off(code: i32) -> Slot {
    let mut world = one(Always);
    world.set(0, exited(code));
    let message = "back-off 10s restarting failed container=c pod=p".into();
    world.slots[0].start_failure = Some(StartFailure { reason: messages::CRASH_LOOP_BACK_OFF, message });
    world.slots.remove(0)
}

struct ReadyCase {
    id: &'static str,
    role: Role,
    state: RecordState,
    has: (bool, bool),
    startup: Option<ResultState>,
    readiness: Option<ResultState>,
    expect: (bool, bool),
}

#[test]
fn started_and_ready() {
    let (success, failure) = (Some(ResultState::Success), Some(ResultState::Failure));
    let base = |id, role, expect| ReadyCase {
        id,
        role,
        state: running(),
        has: (false, false),
        startup: None,
        readiness: None,
        expect,
    };
    let (regular, init, sidecar) = (Role::Regular, Role::Init, Role::Sidecar);
    let (startup_probe, readiness_probe) = ((true, false), (false, true));
    let cases = [
        base("MGR-10", regular, (true, true)),
        base("PRB-01", regular, (true, true)),
        base("PRB-01 sidecar", sidecar, (true, true)),
        ReadyCase { has: readiness_probe, readiness: success, ..base("MGR-11", regular, (true, true)) },
        ReadyCase { has: readiness_probe, ..base("MGR-12", regular, (true, false)) },
        ReadyCase { has: readiness_probe, readiness: failure, ..base("MGR-13", regular, (true, false)) },
        ReadyCase { has: startup_probe, ..base("MGR-14", regular, (false, false)) },
        ReadyCase { has: startup_probe, startup: success, ..base("MGR-15", regular, (true, true)) },
        ReadyCase { has: startup_probe, ..base("MGR-17", init, (false, false)) },
        ReadyCase { has: startup_probe, startup: success, ..base("MGR-18", init, (true, false)) },
        ReadyCase { has: startup_probe, ..base("MGR-20", sidecar, (false, false)) },
        ReadyCase { has: startup_probe, startup: success, ..base("MGR-21", sidecar, (true, true)) },
        ReadyCase { state: exited(0), ..base("MGR-22", sidecar, (false, false)) },
        ReadyCase { state: exited(0), ..base("11: init done", init, (false, true)) },
        ReadyCase { state: exited(1), ..base("11: init failed", init, (false, false)) },
        ReadyCase { state: RecordState::Created, ..base("11: created", regular, (false, false)) },
    ];
    for case in cases {
        let spec = ContainerSpec {
            startup: case.has.0.then(probe),
            readiness: case.has.1.then(probe),
            ..container("c", case.role)
        };
        let mut world = World::new(pod(Always, vec![spec.clone()]));
        world.set(0, case.state);
        (world.slots[0].startup, world.slots[0].readiness) = (case.startup, case.readiness);
        let view = world.slots[0].view();
        assert_eq!((started(&spec, &view), ready(&spec, &view)), case.expect, "{}", case.id);
        let pokes = case.has.1 && case.expect == (true, false);
        assert_eq!(pokes_readiness(&spec, &view), pokes, "{}", case.id);
    }
}

#[test]
fn how_an_instance_ended() {
    let ended = |status| terminated(status, false, wall_s(1), wall_s(2), container_id(1));
    let for_memory = |status| terminated(status, true, wall_s(1), wall_s(2), container_id(1));
    let signal = |number| ExitStatus::Signal { number, core_dumped: false };
    let cases = [
        ("ST-01", ended(ExitStatus::Code(0)), "Completed", 0, None),
        ("ST-02", ended(ExitStatus::Code(3)), "Error", 3, None),
        ("ST-04", for_memory(signal(9)), "OOMKilled", 137, Some(9)),
        ("ST-04 and an end of its own", for_memory(ExitStatus::Code(1)), "OOMKilled", 1, None),
        ("ST-08", start_failed("no such file", wall_s(2), container_id(1)), "StartError", 128, None),
        ("15: SIGTERM", ended(signal(15)), "Error", 143, Some(15)),
        ("15: SIGKILL", ended(signal(9)), "Error", 137, Some(9)),
    ];
    for (id, found, reason, code, signal) in cases {
        assert_eq!((&*found.reason, found.exit_code, found.signal), (reason, code, signal), "{id}");
    }
    assert_eq!(messages::failed("no such file"), "Error: no such file", "ST-08: event");
}

#[test]
fn crash_looping() {
    let mut world = one(Always);
    world.slots[0] = backing_off(1);
    let status = status(&world);
    let container = &status.containers[0];
    assert!(
        matches!(&container.state, ContainerState::Waiting { reason, .. } if reason == "CrashLoopBackOff"),
        "ST-05"
    );
    assert_eq!(container.last_state.as_ref().unwrap().exit_code, 1, "ST-05");
    assert_eq!((status.phase, container.ready), (Phase::Running, false), "ST-05");
}

#[test]
fn newest_and_second_newest_record() {
    let mut world = one(Always);
    world.set(0, exited(1));
    world.set(0, exited(2));
    world.set(0, exited(3));
    let status = status(&world);
    let ContainerState::Terminated(newest) = &status.containers[0].state else { panic!("ST-06") };
    let second = status.containers[0].last_state.as_ref().unwrap();
    assert_eq!((newest.exit_code, second.exit_code), (3, 2), "ST-06");
    assert_eq!(status.containers[0].restart_count, 2, "ST-06");
}

#[test]
fn a_record_that_vanished() {
    let mut world = one(Always);
    world.set(0, running());
    let before = status(&world);
    world.slots[0] = Slot::default();
    let after = world.ask(|pod| pod_status(pod, &context(Some(&before), 9)));
    let last = after.containers[0].last_state.as_ref().unwrap();
    assert_eq!((&*last.reason, last.exit_code), ("ContainerStatusUnknown", 137), "ST-07");
    assert_eq!(after.containers[0].restart_count, 1, "ST-07");
    let again = world.ask(|pod| pod_status(pod, &context(Some(&after), 10)));
    assert_eq!(again.containers, after.containers, "ST-07: noticed once");
    world.deleting = true;
    let deleted = world.ask(|pod| pod_status(pod, &context(Some(&before), 9)));
    assert_eq!(deleted.containers[0].restart_count, 0, "15: not counted while the pod is deleted");
}

#[test]
fn a_record_in_an_unknown_state() {
    let mut world = one(Always);
    world.set(0, running());
    let before = status(&world);
    world.slots[0].newest.as_mut().unwrap().state = RecordState::Unknown;
    let after = world.ask(|pod| pod_status(pod, &context(Some(&before), 9)));
    let ContainerState::Terminated(ended) = &after.containers[0].state else { panic!("{after:?}") };
    assert_eq!((&*ended.reason, ended.exit_code), ("ContainerStatusUnknown", 137));
    assert_eq!(after.containers[0].restart_count, 1);
}

#[test]
fn restart_counts() {
    let record = |restart_count| Record {
        instance: instance(0, restart_count),
        container_id: container_id(0),
        spec_hash: 1,
        state: running(),
    };
    assert_eq!(next_restart_count(None, None), 0);
    assert_eq!(next_restart_count(None, Some(4)), 5, "15: the log folder outlives the records");
    assert_eq!(next_restart_count(Some(&record(2)), Some(9)), 3);
}

struct PhaseCase {
    id: &'static str,
    policy: RestartPolicy,
    roles: &'static [Role],
    /// None: no record.
    states: Vec<Option<RecordState>>,
    phase: Phase,
}

#[test]
fn phases() {
    use Phase::{Failed, Pending, Running, Succeeded};
    const ONE: &[Role] = &[Role::Regular];
    const TWO: &[Role] = &[Role::Regular, Role::Regular];
    const INIT: &[Role] = &[Role::Init, Role::Regular];
    const SIDE: &[Role] = &[Role::Sidecar, Role::Regular];
    let (ok, bad) = (|| Some(exited(0)), || Some(exited(1)));
    let run = || Some(running());
    let cases = [
        ("nothing started", Always, ONE, vec![None], Pending),
        ("running", Always, ONE, vec![run()], Running),
        ("one of two started", Always, TWO, vec![run(), None], Pending),
        ("one of two ended", Never, TWO, vec![run(), bad()], Running),
        ("E2E-R-01: ended, Always", Always, ONE, vec![bad()], Running),
        ("E2E-R-03: failed, Never", Never, ONE, vec![bad()], Failed),
        ("E2E-R-04: done, Never", Never, ONE, vec![ok()], Succeeded),
        ("done, OnFailure", OnFailure, ONE, vec![ok()], Succeeded),
        ("failed, OnFailure", OnFailure, ONE, vec![bad()], Running),
        ("one failed, Never", Never, TWO, vec![ok(), bad()], Failed),
        ("init runs", Always, INIT, vec![run(), None], Pending),
        ("init failed, Never", Never, INIT, vec![bad(), None], Failed),
        ("init failed, Always", Always, INIT, vec![bad(), None], Pending),
        ("init done", Always, INIT, vec![ok(), run()], Running),
        ("sidecar runs, main done", Never, SIDE, vec![run(), ok()], Running),
        ("sidecar ended, main done", Never, SIDE, vec![bad(), ok()], Succeeded),
        ("sidecar ended, main runs", Always, SIDE, vec![bad(), run()], Running),
    ]
    .map(|(id, policy, roles, states, phase)| PhaseCase { id, policy, roles, states, phase });
    for case in cases {
        let containers = case.roles.iter().map(|role| container("c", *role)).collect();
        let mut world = World::new(pod(case.policy, containers));
        for (at, state) in case.states.into_iter().enumerate() {
            if let Some(state) = state {
                world.set(at, state);
            }
        }
        assert_eq!(status(&world).phase, case.phase, "{}", case.id);
    }
}

#[test]
fn a_sidecar_that_starts_again_leaves_the_pod_running() {
    let side = ContainerSpec { startup: Some(probe()), ..container("side", Role::Sidecar) };
    let mut world = World::new(pod(Always, vec![side, container("main", Role::Regular)]));
    world.set(0, running());
    world.slots[0].startup = Some(ResultState::Unknown);
    assert_eq!(status(&world).phase, Phase::Pending, "it gates the first start");
    world.slots[1] = backing_off(1);
    assert_eq!(status(&world).phase, Phase::Running, "the main container has run");
}

#[test]
fn a_finished_phase_stays() {
    let mut world = one(Never);
    world.set(0, exited(1));
    let failed = status(&world);
    world.set(0, running());
    assert_eq!(world.ask(|pod| pod_status(pod, &context(Some(&failed), 9))).phase, Phase::Failed);
}

/// Kind, truth, reason and message of every condition.
fn told(status: &PodStatus) -> Vec<(&str, bool, Option<&str>, Option<&str>)> {
    let tell = |c: &'_ crate::model::status::Condition| (c.kind, c.is_true, c.reason);
    status
        .conditions
        .iter()
        .map(|c| {
            let (kind, is_true, reason) = tell(c);
            (kind, is_true, reason, c.message.as_deref())
        })
        .collect()
}

#[test]
fn conditions() {
    let mut world = World::new(pod(
        Always,
        vec![container("i", Role::Init), container("a", Role::Regular), container("b", Role::Regular)],
    ));
    let unready = Some("containers with unready status: [a b]");
    let scheduled = ("PodScheduled", true, None, None);
    assert_eq!(
        told(&status(&world)),
        [
            (
                "Initialized",
                false,
                Some("ContainersNotInitialized"),
                Some("containers with incomplete status: [i]")
            ),
            ("Ready", false, Some("ContainersNotReady"), unready),
            ("ContainersReady", false, Some("ContainersNotReady"), unready),
            scheduled,
        ]
    );
    world.set(0, exited(0));
    world.set(1, running());
    world.set(2, running());
    let all_ready = [
        ("Initialized", true, None, None),
        ("Ready", true, None, None),
        ("ContainersReady", true, None, None),
        scheduled,
    ];
    assert_eq!(told(&status(&world)), all_ready);
    world.spec.readiness_gates = vec!["example.com/gate".into()];
    let gated = "corresponding condition of pod readiness gate \"example.com/gate\" does not exist.";
    let ready = ("Ready", false, Some("ReadinessGatesNotReady"), Some(gated));
    assert_eq!(told(&status(&world))[1], ready);
}

#[test]
fn conditions_of_a_finished_pod() {
    for (code, reason) in [(0, "PodCompleted"), (1, "PodFailed")] {
        let mut world = one(Never);
        world.set(0, exited(code));
        let status = status(&world);
        let ready = told(&status)[1];
        assert_eq!(ready, ("Ready", false, Some(reason), None));
        assert_eq!(told(&status)[2], ("ContainersReady", false, Some(reason), None));
    }
}

#[test]
fn a_transition_time_moves_with_the_truth_only() {
    let mut world = one(Always);
    let pending = status(&world);
    world.set(0, running());
    let ready = world.ask(|pod| pod_status(pod, &context(Some(&pending), 20)));
    let still = world.ask(|pod| pod_status(pod, &context(Some(&ready), 30)));
    let at = |status: &PodStatus| status.conditions[1].last_transition;
    assert_eq!((at(&ready), at(&still)), (wall_s(20), wall_s(20)));
}

#[test]
fn waiting_reasons() {
    let plain = status(&one(Always));
    let creating = ContainerState::Waiting { reason: "ContainerCreating".into(), message: None };
    assert_eq!(plain.containers[0].state, creating);
    let containers = vec![container("i", Role::Init), container("c", Role::Regular)];
    let with_init = status(&World::new(pod(Always, containers)));
    let initializing = ContainerState::Waiting { reason: "PodInitializing".into(), message: None };
    assert_eq!(with_init.containers[1].state, initializing);
    let mut created = one(Always);
    created.set(0, RecordState::Created);
    let waiting = ContainerState::Waiting { reason: "".into(), message: None };
    assert_eq!(status(&created).containers[0].state, waiting);
}

#[test]
fn a_start_failure_shows_only_while_a_start_is_due() {
    let mut world = one(Never);
    world.slots[0] = backing_off(1);
    assert!(matches!(status(&world).containers[0].state, ContainerState::Terminated(_)));
    world.set(0, RecordState::Running { pid: 1, started_at: now_s(3) });
    assert_eq!(status(&world).containers[0].state, ContainerState::Running { started_at: wall_s(3) });
    assert_eq!(world.slots[0].previous.as_ref().unwrap().finished_at(), Some(at_s(2)));
}

#[test]
fn a_pod_that_must_not_run() {
    let world = one(Always);
    let status = rejected(&world.spec, "NodePorts", "no free port", &context(None, 5));
    assert_eq!(status.phase, Phase::Failed);
    assert_eq!(status.reason.as_deref(), Some("NodePorts"));
    assert_eq!(told(&status)[1], ("Ready", false, Some("PodFailed"), None));
    let again = world.ask(|pod| pod_status(pod, &context(Some(&status), 6)));
    assert_eq!((again.phase, again.message.as_deref()), (Phase::Failed, Some("no free port")));
}
