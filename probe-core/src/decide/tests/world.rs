//! A pod made of plain data, to look at with the decisions.

use std::borrow::Cow;
use std::time::Duration;

use crate::decide::view::{ContainerView, PodView, Record, RecordState, ResultState, StartFailure};
use crate::model::id::{ContainerId, ContainerIx, InstanceId, PodUid};
use crate::model::pod::{
    ChildOomPolicy, ContainerSpec, PodSpec, RestartPolicy, Role, TerminationMessagePolicy,
};
use crate::model::probe::{ErroredRuns, Handler, PortRef, ProbeSpec, TcpSocketAction};
use crate::model::status::Terminated;
use crate::model::time::{Mono, Now, Wall};

pub const POD: PodUid = PodUid(7);

/// A moment `s` seconds after the clock's zero.
pub fn at_s(s: u64) -> Mono {
    Mono::from_ns(s * 1_000_000_000)
}

pub fn now_s(s: u64) -> Now {
    Now { mono: at_s(s), wall: wall_s(s) }
}

pub fn wall_s(s: u64) -> Wall {
    Wall::from_ns(i64::try_from(s).unwrap() * 1_000_000_000)
}

pub fn instance(container: u16, restart_count: u32) -> InstanceId {
    InstanceId { pod: POD, container: ContainerIx(container), restart_count }
}

/// A TCP probe with kubelet's defaults.
pub fn probe() -> ProbeSpec {
    ProbeSpec {
        handler: Handler::TcpSocket(TcpSocketAction::plain(None, PortRef::Number(80))),
        initial_delay_s: 0,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_s: None,
        resets_on_restart: false,
        errored_runs: ErroredRuns::Ignore,
    }
}

pub fn thresholds(success: u32, failure: u32) -> ProbeSpec {
    ProbeSpec { success_threshold: success, failure_threshold: failure, ..probe() }
}

pub fn container(name: &str, role: Role) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        role,
        image: "image".into(),
        command: vec!["true".into()],
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        run_as_user: None,
        run_as_group: None,
        memory_limit_bytes: None,
        cpu_limit_millicores: None,
        ports: Vec::new(),
        startup: None,
        readiness: None,
        liveness: None,
        post_start: None,
        pre_stop: None,
        stop_signal: 15,
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::File,
        on_child_oom: ChildOomPolicy::Event,
        oom_kills_together: true,
        spec_hash: 1,
    }
}

pub fn pod(restart_policy: RestartPolicy, containers: Vec<ContainerSpec>) -> PodSpec {
    PodSpec {
        uid: POD,
        namespace: "ns".into(),
        name: "p".into(),
        restart_policy,
        termination_grace_s: 30,
        containers,
        base_dir: "/".into(),
        hostname: "p".into(),
        readiness_gates: Vec::new(),
        manifest_json: "{}".into(),
    }
}

/// What is known of one container.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub newest: Option<Record>,
    pub previous: Option<Record>,
    pub startup: Option<ResultState>,
    pub readiness: Option<ResultState>,
    pub liveness: Option<ResultState>,
    pub start_failure: Option<StartFailure>,
}

/// A pod with what is known of its containers.
#[derive(Clone, Debug)]
pub struct World {
    pub spec: PodSpec,
    pub deleting: bool,
    pub slots: Vec<Slot>,
}

impl World {
    /// A pod of which nothing has been started.
    pub fn new(spec: PodSpec) -> World {
        let slots = vec![Slot::default(); spec.containers.len()];
        World { spec, deleting: false, slots }
    }

    /// Asks `question` about the pod.
    pub fn ask<T>(&self, question: impl FnOnce(&PodView<'_>) -> T) -> T {
        let views: Vec<ContainerView<'_>> = self.slots.iter().map(Slot::view).collect();
        question(&PodView { spec: &self.spec, deleting: self.deleting, containers: &views })
    }

    /// Gives container `at` a newest record in this state; the record there was becomes the previous one.
    pub fn set(&mut self, at: usize, state: RecordState) {
        let count = self.slots[at].newest.as_ref().map_or(0, |record| record.instance.restart_count + 1);
        let spec_hash = self.spec.containers[at].spec_hash;
        let instance = instance(u16::try_from(at).unwrap(), count);
        let record = Record { instance, container_id: container_id(count), spec_hash, state };
        self.slots[at].previous = self.slots[at].newest.replace(record);
    }
}

impl Slot {
    pub fn view(&self) -> ContainerView<'_> {
        ContainerView {
            newest: self.newest.as_ref(),
            previous: self.previous.as_ref(),
            startup: self.startup,
            readiness: self.readiness,
            liveness: self.liveness,
            start_failure: self.start_failure.as_ref(),
        }
    }
}

pub fn container_id(n: u32) -> ContainerId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    ContainerId(bytes)
}

pub fn running() -> RecordState {
    RecordState::Running { pid: 100, started_at: now_s(1) }
}

pub fn exited(code: i32) -> RecordState {
    exited_at(code, 2)
}

pub fn exited_at(code: i32, s: u64) -> RecordState {
    let reason = if code == 0 { "Completed" } else { "Error" };
    RecordState::Exited {
        terminated: Terminated {
            exit_code: code,
            signal: None,
            reason: Cow::Borrowed(reason),
            message: None,
            started_at: wall_s(1),
            finished_at: wall_s(s),
            container_id: container_id(0),
        },
        finished_at: at_s(s),
    }
}
