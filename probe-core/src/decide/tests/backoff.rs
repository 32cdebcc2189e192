//! Group BO under virtual time: a container that is restarted by the decisions alone. BO-10 is about the agent, so it is
//! among the executor's tests.

use std::time::Duration;

use super::world::{World, at_s, container, container_id, now_s, pod, wall_s};
use crate::decide::actions::{PodActions, pod_actions};
use crate::decide::backoff::{Backoff, BackoffParams, Start};
use crate::decide::messages;
use crate::decide::status::{container_status, next_restart_count, terminated};
use crate::decide::view::{Record, RecordState, ResultState, StartFailure};
use crate::model::id::{ContainerIx, InstanceId};
use crate::model::pod::{RestartPolicy, Role};
use crate::model::runtime::ExitStatus;
use crate::model::status::{ContainerState, ContainerStatus};

/// One container whose life is told by the test, restarted by the decisions. Time is whole seconds.
struct Sim {
    world: World,
    backoff: Backoff,
    params: BackoffParams,
    now_s: u64,
    /// Waits between an end and the next start, in seconds.
    waits_s: Vec<u64>,
    /// Waiting messages and `BackOff` events of refused starts.
    refusals: Vec<(String, String)>,
}

impl Sim {
    fn new(policy: RestartPolicy, params: BackoffParams) -> Sim {
        let world = World::new(pod(policy, vec![container("c", Role::Regular)]));
        let mut sim =
            Sim { world, backoff: Backoff::NEW, params, now_s: 0, waits_s: vec![], refusals: vec![] };
        assert_eq!(sim.sync(), None, "a first start is free");
        sim
    }

    /// One round as kubelet's sync: what had ended is listed first, kills happen, then the start is asked
    /// for. Returns the moment of the next try if the start was refused.
    fn sync(&mut self) -> Option<u64> {
        let slot = &self.world.slots[0];
        let listed = [slot.newest.as_ref(), slot.previous.as_ref()];
        let prev_finished_at = listed.into_iter().flatten().find_map(Record::finished_at);
        let PodActions::Steps(steps) = self.world.ask(pod_actions) else { panic!("nothing kills the pod") };
        if !steps.kill.is_empty() {
            self.end(ExitStatus::Code(0));
        }
        if steps.start.is_empty() {
            return None;
        }
        match self.backoff.should_start(self.params, at_s(self.now_s), prev_finished_at) {
            Start::Now => {
                self.start();
                None
            }
            Start::Refused { retry_at, wait } => {
                let spec = &self.world.spec;
                let message = messages::back_off_waiting(spec, "c", wait);
                self.refusals.push((message.clone(), messages::back_off_event(spec, "c")));
                self.world.slots[0].start_failure =
                    Some(StartFailure { reason: messages::CRASH_LOOP_BACK_OFF, message: message.into() });
                Some(retry_at.as_ns() / 1_000_000_000)
            }
        }
    }

    fn start(&mut self) {
        let restart_count = next_restart_count(self.world.slots[0].newest.as_ref(), None);
        let instance = InstanceId { pod: self.world.spec.uid, container: ContainerIx(0), restart_count };
        let state = RecordState::Running { pid: 1, started_at: now_s(self.now_s) };
        let record = Record { instance, container_id: container_id(restart_count), spec_hash: 1, state };
        let slot = &mut self.world.slots[0];
        slot.previous = slot.newest.replace(record);
        (slot.liveness, slot.start_failure) = (Some(ResultState::Success), None);
    }

    fn end(&mut self, status: ExitStatus) {
        let now_s = self.now_s;
        let slot = &mut self.world.slots[0];
        let record = slot.newest.as_mut().unwrap();
        let RecordState::Running { started_at, .. } = record.state else { panic!("it does not run") };
        record.state = RecordState::Exited {
            terminated: terminated(status, false, started_at.wall, wall_s(now_s), record.container_id),
            finished_at: at_s(now_s),
        };
        slot.liveness = None;
    }

    /// Runs for `s` seconds, ends with `code`, waits as long as it must and starts again.
    fn run_and_restart(&mut self, s: u64, code: u8) {
        self.now_s += s;
        self.end(ExitStatus::Code(code));
        let ended_s = self.now_s;
        while let Some(retry_s) = self.sync() {
            assert!(retry_s > self.now_s, "a refusal names a later moment");
            // A second before it the answer is still no.
            self.now_s = retry_s - 1;
            assert_eq!(self.sync(), Some(retry_s), "a start is never early");
            self.now_s = retry_s;
        }
        self.waits_s.push(self.now_s - ended_s);
    }

    /// The liveness probe fails after `s` seconds; returns whether the start came in the same round.
    fn liveness_kill(&mut self, s: u64) -> bool {
        self.now_s += s;
        self.world.slots[0].liveness = Some(ResultState::Failure);
        self.sync().is_none()
    }

    fn status(&self) -> ContainerStatus {
        self.world.ask(|pod| container_status(pod, &pod.spec.containers[0], &pod.containers[0], None))
    }
}

struct Case {
    id: &'static str,
    params: BackoffParams,
    exit_code: u8,
    waits_s: &'static [u64],
}

fn max_s(params: BackoffParams, s: u64) -> BackoffParams {
    params.with_max(Duration::from_secs(s))
}

#[test]
fn instantly_failing_containers() {
    let (standard, reduced) = (BackoffParams::STANDARD, BackoffParams::REDUCED);
    let usual: &[u64] = &[0, 10, 20, 40, 80, 160, 300, 300, 300];
    let cases = [
        Case { id: "BO-01", params: standard, exit_code: 1, waits_s: usual },
        Case { id: "BO-04", params: max_s(standard, 30), exit_code: 1, waits_s: &[0, 10, 20, 30, 30] },
        Case { id: "BO-06", params: reduced, exit_code: 1, waits_s: &[0, 1, 2, 4, 8, 16, 32, 60, 60] },
        Case { id: "BO-07", params: standard, exit_code: 0, waits_s: usual },
        Case { id: "E2E-R-12", params: max_s(reduced, 1), exit_code: 1, waits_s: &[0, 1, 1, 1] },
        Case { id: "14: max below initial", params: max_s(standard, 5), exit_code: 1, waits_s: &[0, 5, 5] },
    ];
    for case in cases {
        let mut sim = Sim::new(RestartPolicy::Always, case.params);
        for _ in case.waits_s {
            sim.run_and_restart(0, case.exit_code);
        }
        assert_eq!(sim.waits_s, case.waits_s, "{}", case.id);
    }
}

#[test]
fn what_a_refused_start_says() {
    let mut sim = Sim::new(RestartPolicy::Always, BackoffParams::STANDARD);
    (0..7).for_each(|_| sim.run_and_restart(0, 1));
    let mut waits: Vec<&str> = sim.refusals.iter().map(|(message, _)| message.as_str()).collect();
    waits.dedup();
    let uid = sim.world.spec.uid;
    let expected = ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s"]
        .map(|wait| format!("back-off {wait} restarting failed container=c pod=p_ns({uid})"));
    assert_eq!(waits, expected, "BO-01");
    let event = format!("Back-off restarting failed container c in pod p_ns({uid})");
    assert!(sim.refusals.iter().all(|(_, text)| *text == event), "BO-11");
}

#[test]
fn the_state_while_it_waits() {
    for (id, code, reason) in [("BO-11", 1, "Error"), ("BO-07", 0, "Completed")] {
        let mut sim = Sim::new(RestartPolicy::Always, BackoffParams::STANDARD);
        sim.run_and_restart(0, code);
        sim.end(ExitStatus::Code(code));
        assert_eq!(sim.sync(), Some(10), "{id}");
        let status = sim.status();
        let ContainerState::Waiting { reason: waiting, .. } = &status.state else {
            panic!("{id}: {status:?}")
        };
        assert_eq!(waiting, "CrashLoopBackOff", "{id}");
        assert_eq!(status.last_state.unwrap().reason, reason, "{id}");
        assert_eq!(status.restart_count, 1, "{id}: unchanged by the refusal");
    }
}

#[test]
fn ten_minutes_of_running_reset_it() {
    for (id, run_s, wait_s, step_s) in
        [("BO-02", 599, 300, 300), ("14: exactly ten minutes", 600, 300, 300), ("BO-03", 601, 0, 10)]
    {
        let mut sim = Sim::new(RestartPolicy::Always, BackoffParams::STANDARD);
        while sim.backoff.wait() != Some(Duration::from_secs(300)) {
            sim.run_and_restart(0, 1);
        }
        sim.run_and_restart(run_s, 1);
        assert_eq!(sim.waits_s.last(), Some(&wait_s), "{id}");
        assert_eq!(sim.backoff.wait(), Some(Duration::from_secs(step_s)), "{id}");
    }
}

#[test]
fn kills_by_the_liveness_probe() {
    let mut sim = Sim::new(RestartPolicy::Always, BackoffParams::STANDARD);
    assert!(sim.liveness_kill(30), "BO-08: restarts at once");
    assert_eq!(sim.backoff.wait(), None, "BO-08: no entry");
    assert!(sim.liveness_kill(30), "BO-09: restarts at once");
    assert_eq!(sim.backoff.wait(), Some(Duration::from_secs(10)), "BO-09: entry");
    assert!(sim.refusals.is_empty(), "BO-08, BO-09: no BackOff event");
    assert_eq!(sim.status().restart_count, 2, "one per new instance");
    // 14: later ones are refused only while the instance's own run time is below the step, and from then on
    // the killed instance's end counts.
    assert!(!sim.liveness_kill(5), "14: refused after 5 s");
    let retry_s = sim.sync().unwrap();
    assert_eq!(retry_s, sim.now_s + 10, "14: counts from the killed instance's end");
}

#[test]
fn a_liveness_kill_under_on_failure_that_is_refused_stays_completed() {
    // 12.1: the exit code decides in the next round.
    let mut sim = Sim::new(RestartPolicy::OnFailure, BackoffParams::STANDARD);
    assert!(sim.liveness_kill(30), "ACTX-04: restarted whatever the exit code");
    assert!(sim.liveness_kill(30));
    assert!(!sim.liveness_kill(5));
    assert_eq!(sim.world.ask(pod_actions), PodActions::KillPod);
    assert!(matches!(sim.status().state, ContainerState::Terminated(_)));
}
