//! Whatever happens in whatever order: nothing panics, nothing starts before its back-off, a `Never` is not
//! restarted, and a worker on hold does not ask for a run.

use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};
use proptest::test_runner::TestCaseResult;

use super::world::{World, container, instance, pod, probe, running, thresholds, wall_s};
use crate::decide::actions::{PodActions, pod_actions};
use crate::decide::backoff::{Backoff, BackoffParams, Start};
use crate::decide::status::{StatusContext, pod_status};
use crate::decide::view::{RecordState, ResultState};
use crate::decide::worker::{Gate, GateView, Seen, SeenState, Worker};
use crate::model::id::ContainerIx;
use crate::model::pod::{ContainerSpec, RestartPolicy, Role};
use crate::model::probe::{ProbeKind, Redirects, Verdict};
use crate::model::status::Phase;
use crate::model::time::Mono;

fn policies() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![Just(RestartPolicy::Always), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Never)]
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Success),
        Just(Verdict::Warning),
        Just(Verdict::Failure),
        Just(Verdict::Errored)
    ]
}

fn results() -> impl Strategy<Value = Option<ResultState>> {
    prop_oneof![
        Just(None),
        Just(Some(ResultState::Unknown)),
        Just(Some(ResultState::Success)),
        Just(Some(ResultState::Failure))
    ]
}

fn states() -> impl Strategy<Value = Option<RecordState>> {
    prop_oneof![
        Just(None),
        Just(Some(RecordState::Created)),
        Just(Some(running())),
        (0i32..3).prop_map(|code| Some(super::world::exited(code))),
        Just(Some(RecordState::Unknown)),
    ]
}

/// Everything that can be known of one container.
#[derive(Clone, Debug)]
struct Known {
    role: Role,
    state: Option<RecordState>,
    results: [Option<ResultState>; 3],
    changed: bool,
    probed: bool,
}

fn knowns() -> impl Strategy<Value = Known> {
    let role = prop_oneof![Just(Role::Init), Just(Role::Sidecar), Just(Role::Regular)];
    (role, states(), [results(), results(), results()], any::<bool>(), any::<bool>())
        .prop_map(|(role, state, results, changed, probed)| Known { role, state, results, changed, probed })
}

/// A pod of these containers; there is always a regular one, and init containers come first.
fn world(policy: RestartPolicy, deleting: bool, mut known: Vec<Known>) -> World {
    known.push(Known { role: Role::Regular, state: None, results: [None; 3], changed: false, probed: false });
    known.sort_by_key(|known| known.role == Role::Regular);
    let specs = known.iter().map(|known| ContainerSpec {
        startup: known.probed.then(probe),
        liveness: known.probed.then(probe),
        ..container("c", known.role)
    });
    let mut world = World::new(pod(policy, specs.collect()));
    for (at, known) in known.into_iter().enumerate() {
        if let Some(state) = known.state {
            world.set(at, state);
        }
        let slot = &mut world.slots[at];
        [slot.startup, slot.readiness, slot.liveness] = known.results;
        world.spec.containers[at].spec_hash += u64::from(known.changed);
    }
    world.deleting = deleting;
    world
}

fn check_actions(world: &World) -> TestCaseResult {
    let PodActions::Steps(steps) = world.ask(pod_actions) else { return Ok(()) };
    let newest = |ix: ContainerIx| world.slots[ix.at()].newest.as_ref();
    let killed = |ix: ContainerIx| steps.kill.iter().any(|kill| kill.container == ix);
    let starts: Vec<ContainerIx> = steps.start_init.iter().chain(&steps.start).copied().collect();
    for (place, ix) in starts.iter().enumerate() {
        prop_assert!(!starts[..place].contains(ix), "started twice: {ix:?}");
        let spec = &world.spec.containers[ix.at()];
        let is_regular = spec.role == Role::Regular;
        prop_assert!(steps.start.contains(ix) == is_regular);
        let Some(record) = newest(*ix) else { continue };
        prop_assert!(!record.is_running() || killed(*ix), "started beside a running one: {ix:?}");
        let ended_or_ran = record.exit_code().is_some() || record.is_running();
        let changed = record.spec_hash != spec.spec_hash;
        if world.spec.restart_policy == RestartPolicy::Never && spec.role != Role::Sidecar && !changed {
            prop_assert!(!ended_or_ran, "restarted under Never: {ix:?}");
        }
    }
    for kill in &steps.kill {
        let may = newest(kill.container)
            .is_some_and(|record| record.is_running() || record.state == RecordState::Unknown);
        prop_assert!(may, "killed what does not run: {kill:?}");
    }
    prop_assert!(!world.deleting || starts.is_empty() && steps.kill.is_empty());
    Ok(())
}

proptest! {
    #[test]
    fn actions_never_double_start_or_restart_a_never(
        policy in policies(),
        deleting in any::<bool>(),
        known in prop::collection::vec(knowns(), 0..6),
    ) {
        check_actions(&world(policy, deleting, known))?;
    }

    #[test]
    fn a_status_is_always_whole(
        policy in policies(),
        deleting in any::<bool>(),
        before in prop::collection::vec(knowns(), 3),
        after in prop::collection::vec(knowns(), 3),
    ) {
        let context = |previous, s| {
            StatusContext { previous, start_time: wall_s(1), deletion: None, now: wall_s(s) }
        };
        let first = world(policy, deleting, before).ask(|pod| pod_status(pod, &context(None, 5)));
        let world = world(policy, deleting, after);
        let second = world.ask(|pod| pod_status(pod, &context(Some(&first), 6)));
        prop_assert!(second.containers.len() == world.spec.containers.len());
        prop_assert!(second.conditions.len() == 4);
        let is_final = |phase| matches!(phase, Phase::Succeeded | Phase::Failed);
        prop_assert!(!is_final(first.phase) || second.phase == first.phase);
        let is_true = |kind: &str| second.conditions.iter().any(|c| c.kind == kind && c.is_true);
        prop_assert!(!is_true("Ready") || is_true("ContainersReady"));
    }

    #[test]
    fn a_start_is_never_early(
        max_s in 1u64..400,
        lives in prop::collection::vec((0u64..1_000_000_000_000, 0u64..400_000_000_000), 1..40),
    ) {
        let params = BackoffParams::STANDARD.with_max(Duration::from_secs(max_s));
        let mut backoff = Backoff::NEW;
        let mut now = Mono::from_ns(1);
        for (run_ns, late_ns) in lives {
            let finished_at = now.after(Duration::from_nanos(run_ns));
            let held_before = backoff.wait();
            now = finished_at.after(Duration::from_nanos(late_ns));
            if let Start::Refused { retry_at, wait } = backoff.should_start(params, now, Some(finished_at)) {
                prop_assert!(held_before == Some(wait) && wait <= params.max());
                prop_assert!(retry_at > now && retry_at == finished_at.after(wait));
                let early = Mono::from_ns(retry_at.as_ns() - 1);
                let again = backoff.should_start(params, early, Some(finished_at));
                prop_assert!(again == Start::Refused { retry_at, wait }, "a question changes nothing");
                now = retry_at;
                prop_assert!(backoff.should_start(params, now, Some(finished_at)) == Start::Now);
            }
            let step = backoff.wait().unwrap_or_default();
            prop_assert!(step >= params.initial() && step <= params.max());
        }
    }

    #[test]
    fn a_held_worker_asks_for_nothing(
        kind in 0usize..3,
        success in 1u32..4,
        failure in 1u32..4,
        policy in policies(),
        ops in prop::collection::vec((0u8..8, verdicts(), 0u32..5, any::<bool>()), 1..60),
    ) {
        let kind = ProbeKind::ALL[kind];
        let success = if kind == ProbeKind::Readiness { success } else { 1 };
        let mut worker = Worker::new(kind, &thresholds(success, failure));
        let mut restart_count = 0;
        for (op, verdict, folded, flag) in ops {
            let held = worker.on_hold();
            let result = worker.result(instance(0, restart_count));
            match op {
                0..=2 => {
                    let update = worker.on_verdict(verdict);
                    prop_assert!(!held || update.is_none());
                }
                3 => {
                    let update = worker.on_folded(folded);
                    prop_assert!(!held || update.is_none());
                }
                4 => {
                    restart_count += 1;
                    worker.bind(instance(0, restart_count));
                    prop_assert!(!worker.on_hold());
                    continue;
                }
                _ => {
                    let started_at = Mono::from_ns(5);
                    let states =
                        [SeenState::Waiting, SeenState::Running { started_at }, SeenState::Terminated];
                    let seen = Seen {
                        instance: instance(0, restart_count),
                        state: states[usize::from(op) - 5],
                        started: flag,
                    };
                    let view = GateView {
                        phase: Some(Phase::Running),
                        deleting: false,
                        restart_policy: policy,
                        role: Role::Regular,
                        container: Some(seen),
                    };
                    let gate = worker.gate(&view).gate;
                    prop_assert!(!held || gate == Gate::Idle, "{gate:?}");
                }
            }
            prop_assert!(!held || worker.result(instance(0, restart_count)) == result, "a hold keeps its result");
        }
    }

    #[test]
    fn texts_of_people_never_panic(text in any::<String>(), other in any::<String>()) {
        use crate::wire::url::{Scheme, Url, redirect};
        let _ = Url::parse(&text);
        let _ = redirect(&other, text.as_bytes(), Redirects::AnyHost, 1);
        if let Ok(url) = Url::for_probe(Scheme::Http, "127.0.0.1", 80, &text) {
            let target = url.request_target();
            prop_assert!(target.starts_with('/') && !target.contains(['\r', '\n']));
            prop_assert!(Url::parse(&url.text()).is_ok(), "{}", url.text());
            if let crate::wire::url::Redirect::Follow(hop) = redirect(&url.text(), other.as_bytes(), Redirects::SameHost, 1) {
                prop_assert!(hop.request_target.starts_with('/'));
                prop_assert!(!hop.request_target.contains(['\r', '\n']));
                prop_assert!(hop.host == crate::wire::url::host_of("127.0.0.1"));
            }
        }
    }
}
