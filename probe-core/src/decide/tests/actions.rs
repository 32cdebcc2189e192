//! Groups ACT and ACTX. The sandbox cases (ACT-02, 07 to 09, 13 to 15, 25, 43, 44) and the
//! ephemeral ones (ACT-50, 54) have no counterpart in a runtime of local processes; of ACT-02 and ACT-15
//! the part that remains (everything is started) is checked.

use super::world::{World, container, exited, pod, probe, running};
use crate::decide::actions::{Kill, KillReason, PodActions, Steps, pod_actions};
use crate::decide::view::{RecordState, ResultState};
use crate::model::id::ContainerIx;
use crate::model::pod::RestartPolicy::{self, Always, Never, OnFailure};
use crate::model::pod::{ContainerSpec, Role};

/// Index of the first regular container in a pod with three init containers.
const MAIN: usize = 3;

enum Expect {
    KillPod,
    /// Indices of containers as the case names them: kills, init starts, starts.
    Steps(&'static [usize], &'static [usize], &'static [usize]),
}

use Expect::{KillPod, Steps as Do};

/// Makes the pod that a case changes.
type Base = fn(RestartPolicy) -> World;

struct Case {
    id: &'static str,
    base: Base,
    policy: RestartPolicy,
    change: fn(&mut World),
    expect: Expect,
}

/// Three regular containers, all running.
fn regular(policy: RestartPolicy) -> World {
    let containers = ["foo1", "foo2", "foo3"].map(|name| container(name, Role::Regular));
    let mut world = World::new(pod(policy, containers.to_vec()));
    (0..3).for_each(|at| world.set(at, running()));
    world
}

/// Three ordinary init containers, all done, and three regular ones without a record.
fn with_init(policy: RestartPolicy) -> World {
    let mut world = World::new(pod(policy, with_mains(["init1", "init2", "init3"], Role::Init)));
    (0..3).for_each(|at| world.set(at, exited(0)));
    world
}

/// Three sidecars, all running, the last two with startup and liveness probes that succeed; three regular
/// containers without a record.
fn with_sidecars(policy: RestartPolicy) -> World {
    let mut containers = with_mains(["side1", "side2", "side3"], Role::Sidecar);
    for sidecar in &mut containers[1..3] {
        sidecar.startup = Some(probe());
        sidecar.liveness = Some(probe());
    }
    let mut world = World::new(pod(policy, containers));
    for at in 0..3 {
        world.set(at, running());
        let result = (at > 0).then_some(ResultState::Success);
        (world.slots[at].startup, world.slots[at].liveness) = (result, result);
    }
    world
}

fn with_mains(names: [&str; 3], role: Role) -> Vec<ContainerSpec> {
    let mains = ["foo1", "foo2", "foo3"].map(|name| container(name, Role::Regular));
    names.map(|name| container(name, role)).into_iter().chain(mains).collect()
}

fn forget(world: &mut World, at: usize) {
    world.slots[at].newest = None;
    (world.slots[at].startup, world.slots[at].liveness) = (None, None);
}

fn ends(world: &mut World, at: usize, state: RecordState) {
    world.set(at, state);
    (world.slots[at].startup, world.slots[at].liveness) = (None, None);
}

fn indices(list: &[ContainerIx]) -> Vec<usize> {
    list.iter().map(|ix| ix.at()).collect()
}

fn check(case: &Case) {
    let mut world = (case.base)(case.policy);
    (case.change)(&mut world);
    let inits = world.spec.containers.iter().filter(|c| c.role != Role::Regular).count();
    match (world.ask(pod_actions), &case.expect) {
        (PodActions::KillPod, KillPod) => {}
        (PodActions::Steps(steps), Do(kills, init_starts, starts)) => {
            let killed: Vec<usize> = steps.kill.iter().map(|kill| kill.container.at()).collect();
            assert_eq!(killed, *kills, "{}: kills", case.id);
            assert_eq!(indices(&steps.start_init), *init_starts, "{}: init starts", case.id);
            let started: Vec<usize> = steps.start.iter().map(|ix| ix.at() - inits).collect();
            assert_eq!(started, *starts, "{}: starts", case.id);
        }
        (found, KillPod | Do(..)) => panic!("{}: {found:?}", case.id),
    }
}

#[test]
fn regular_containers() {
    let case = |id, policy, change, expect| Case { id, base: regular, policy, change, expect };
    let all: &[Case] = &[
        case("ACT-01", Always, |_| {}, Do(&[], &[], &[])),
        case("ACT-02", Always, |w| (0..3).for_each(|at| forget(w, at)), Do(&[], &[], &[0, 1, 2])),
        case("ACT-03", Always, two_exited, Do(&[], &[], &[0, 1])),
        case("ACT-04", OnFailure, two_exited, Do(&[], &[], &[1])),
        case(
            "ACT-05",
            OnFailure,
            |w| {
                w.set(0, exited(0));
                w.set(1, RecordState::Created);
            },
            Do(&[], &[], &[1]),
        ),
        case("ACT-06", Never, two_exited, Do(&[], &[], &[])),
        case("ACT-10", Always, |w| w.spec.containers[1].spec_hash = 2, Do(&[1], &[], &[1])),
        case("ACT-11", Always, |w| w.slots[1].liveness = Some(ResultState::Failure), Do(&[1], &[], &[1])),
        case("ACT-12", Always, |w| w.slots[1].startup = Some(ResultState::Failure), Do(&[1], &[], &[1])),
        case("ACT-15", Never, |w| (0..3).for_each(|at| forget(w, at)), Do(&[], &[], &[0, 1, 2])),
        case("ACT-16", Never, |w| w.set(1, RecordState::Unknown), Do(&[1], &[], &[1])),
        case("ACT-17", Never, |w| w.set(1, RecordState::Created), Do(&[], &[], &[1])),
        case("ACTX-02", Never, |w| w.slots[1].liveness = Some(ResultState::Failure), Do(&[1], &[], &[])),
        case("ACTX-04", OnFailure, |w| w.slots[1].liveness = Some(ResultState::Failure), Do(&[1], &[], &[1])),
        case(
            "ACTX-07",
            Always,
            |w| {
                w.deleting = true;
                w.slots[1].liveness = Some(ResultState::Failure);
            },
            Do(&[], &[], &[]),
        ),
        case("ACTX-08", Always, |w| w.slots[1].readiness = Some(ResultState::Failure), Do(&[], &[], &[])),
        // 12 C: the only container left fails liveness and must not come back.
        case(
            "12.1 Never",
            Never,
            |w| {
                two_exited(w);
                w.slots[2].liveness = Some(ResultState::Failure);
            },
            KillPod,
        ),
        case("12 C all done", OnFailure, |w| (0..3).for_each(|at| w.set(at, exited(0))), KillPod),
    ];
    all.iter().for_each(check);
}

fn two_exited(world: &mut World) {
    world.set(0, exited(0));
    world.set(1, exited(111));
}

#[test]
fn ordinary_init_containers() {
    let case = |id, policy, change, expect| Case { id, base: with_init, policy, change, expect };
    let all: &[Case] = &[
        case("ACT-18", Always, |_| {}, Do(&[], &[], &[0, 1, 2])),
        case("ACT-19", Always, |w| (0..3).for_each(|at| forget(w, at)), Do(&[], &[0], &[])),
        case("ACT-20", Always, |w| w.set(2, running()), Do(&[], &[], &[])),
        case("ACT-22 Always", Always, |w| w.set(2, RecordState::Unknown), Do(&[2], &[2], &[])),
        case("ACT-22 OnFailure", OnFailure, |w| w.set(2, RecordState::Unknown), Do(&[2], &[2], &[])),
        case("ACT-23", Never, |w| w.set(2, RecordState::Unknown), KillPod),
        case("ACT-28", Always, |w| w.set(2, RecordState::Created), Do(&[], &[2], &[])),
        case("12.2 the next one", Always, |w| forget(w, 2), Do(&[], &[2], &[])),
        case("12.2 failed, Always", Always, |w| w.set(2, exited(1)), Do(&[], &[2], &[])),
        case("12.2 failed, Never", Never, |w| w.set(2, exited(1)), KillPod),
        // Records of finished init containers may be gone once a regular container exists.
        case(
            "12.2 initialised",
            Always,
            |w| {
                (0..3).for_each(|at| forget(w, at));
                (MAIN..MAIN + 3).for_each(|at| w.set(at, running()));
            },
            Do(&[], &[], &[]),
        ),
    ];
    all.iter().for_each(check);
}

// Reason for length: one table.
#[test]
fn sidecars() {
    let case = |id, policy, change, expect| Case { id, base: with_sidecars, policy, change, expect };
    let all: &[Case] = &[
        case("ACT-29", Always, |_| {}, Do(&[], &[], &[0, 1, 2])),
        case("ACT-30", Always, |w| (0..3).for_each(|at| forget(w, at)), Do(&[], &[0], &[])),
        case("ACT-31", Always, |w| ends(w, 2, RecordState::Created), Do(&[], &[2], &[])),
        case("ACT-32", Always, |w| (1..3).for_each(|at| forget(w, at)), Do(&[], &[1], &[])),
        case(
            "ACT-33",
            Always,
            |w| {
                forget(w, 2);
                w.slots[1].liveness = None;
            },
            Do(&[], &[2], &[]),
        ),
        case("ACT-35", Always, |w| forget(w, 2), Do(&[], &[2], &[])),
        case(
            "ACT-36",
            Always,
            |w| w.slots[2].liveness = Some(ResultState::Failure),
            Do(&[2], &[2], &[0, 1, 2]),
        ),
        case(
            "ACT-37",
            Always,
            |w| {
                forget(w, 2);
                w.slots[1].startup = None;
            },
            Do(&[], &[], &[]),
        ),
        case("ACT-39", Always, |w| w.slots[2].startup = Some(ResultState::Failure), Do(&[2], &[2], &[])),
        case("ACT-40", Always, |w| w.spec.containers[2].spec_hash = 2, Do(&[2], &[2], &[0, 1, 2])),
        case(
            "ACT-41",
            Always,
            |w| {
                ends(w, 0, exited(0));
                ends(w, 2, exited(0));
            },
            Do(&[], &[0, 2], &[]),
        ),
        case("ACT-45", Never, |w| ends(w, 2, exited(137)), Do(&[], &[2], &[])),
        case("ACT-46", Never, |w| ends(w, 2, RecordState::Unknown), Do(&[2], &[2], &[])),
        case(
            "ACT-47",
            Never,
            |w| {
                ends(w, 2, exited(137));
                (MAIN..MAIN + 3).for_each(|at| w.set(at, running()));
            },
            Do(&[], &[2], &[]),
        ),
        case("ACT-48", Never, |w| (MAIN..MAIN + 3).for_each(|at| w.set(at, exited(0))), KillPod),
        case("ACT-49", Always, |w| (0..2).for_each(|at| forget(w, at)), Do(&[], &[0, 1], &[0, 1, 2])),
        case(
            "ACTX-09",
            Always,
            |w| {
                (MAIN..MAIN + 3).for_each(|at| w.set(at, running()));
                w.slots[1].liveness = Some(ResultState::Failure);
            },
            Do(&[1], &[1], &[]),
        ),
        // A sidecar whose definition changed is restarted; the next one need not wait for it.
        case(
            "12.2 order",
            Always,
            |w| {
                forget(w, 2);
                w.spec.containers[1].spec_hash = 2;
            },
            Do(&[1], &[1, 2], &[]),
        ),
    ];
    all.iter().for_each(check);
}

struct KillText {
    id: &'static str,
    base: Base,
    policy: RestartPolicy,
    change: fn(&mut World),
    reason: KillReason,
    message: &'static str,
}

#[test]
fn why_a_container_is_killed() {
    let fails_liveness: fn(&mut World) = |w| w.slots[1].liveness = Some(ResultState::Failure);
    let fails_startup: fn(&mut World) = |w| w.slots[1].startup = Some(ResultState::Failure);
    let unknown: fn(&mut World) = |w| w.set(1, RecordState::Unknown);
    let changes: fn(&mut World) = |w| w.spec.containers[1].spec_hash = 2;
    let changes_and_fails: fn(&mut World) = |w| {
        w.spec.containers[1].spec_hash = 2;
        w.slots[1].liveness = Some(ResultState::Failure);
    };
    let (r, s): (Base, Base) = (regular, with_sidecars);
    let (live, start, other) = (KillReason::LivenessProbe, KillReason::StartupProbe, KillReason::Other);
    let unknown_text = "Container is in \"unknown\" state, try killing it before restart";
    let unknown_init_text = "Init container is in \"unknown\" state, try killing it before restart";
    let changed_text = "Container foo2 definition changed, will be restarted";
    let cases = [
        ("ACTX-02", r, Never, fails_liveness, live, "Container foo2 failed liveness probe"),
        (
            "ACTX-03",
            r,
            Always,
            fails_liveness,
            live,
            "Container foo2 failed liveness probe, will be restarted",
        ),
        ("ACT-12", r, Always, fails_startup, start, "Container foo2 failed startup probe, will be restarted"),
        ("ACTX-06", r, Always, changes_and_fails, other, changed_text),
        ("12 B: changed restarts even Never", r, Never, changes, other, changed_text),
        ("ACT-16", r, Never, unknown, other, unknown_text),
        ("ACTX-09", s, Always, fails_liveness, live, "Init container side2 failed liveness probe"),
        ("ACT-39", s, Always, fails_startup, start, "Init container side2 failed startup probe"),
        ("ACT-40", s, Always, changes, other, "Init container side2 definition changed"),
        ("ACT-46", s, Never, unknown, other, unknown_init_text),
    ]
    .map(|(id, base, policy, change, reason, message)| KillText {
        id,
        base,
        policy,
        change,
        reason,
        message,
    });
    for case in cases {
        let mut world = (case.base)(case.policy);
        (case.change)(&mut world);
        let PodActions::Steps(Steps { kill, .. }) = world.ask(pod_actions) else {
            panic!("{}: the whole pod is killed", case.id)
        };
        let expected =
            Kill { container: ContainerIx(1), reason: case.reason, message: case.message.to_owned() };
        assert_eq!(kill, [expected], "{}", case.id);
    }
}
