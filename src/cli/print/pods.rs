//! Rows of `get pods` (kubernetes `printers/internalversion.printPod`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::age;

/// Which columns are shown.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Columns {
    pub namespace: Shown,
    pub wide: Shown,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    Yes,
    No,
}

impl Shown {
    pub fn when(yes: bool) -> Shown {
        if yes { Shown::Yes } else { Shown::No }
    }
}

const HEAD: [&str; 5] = ["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
const HEAD_WIDE: [&str; 4] = ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"];
const NONE: &str = "<none>";

/// The column heads.
pub fn head(columns: Columns) -> Vec<String> {
    let namespace = (columns.namespace == Shown::Yes).then_some("NAMESPACE");
    let wide: &[&str] = if columns.wide == Shown::Yes { &HEAD_WIDE } else { &[] };
    namespace.iter().chain(&HEAD).chain(wide).map(|text| (*text).to_owned()).collect()
}

/// The row of one pod.
pub fn row(pod: &Pod, columns: Columns, now: Timestamp) -> Vec<String> {
    let summary = Summary::of(pod);
    let mut restarts = summary.restarts.to_string();
    if let (1.., Some(last)) = (summary.restarts, &summary.last_restart) {
        restarts = format!("{restarts} ({} ago)", age::since(Some(last), now));
    }
    let mut row = Vec::new();
    if columns.namespace == Shown::Yes {
        row.push(pod.metadata.namespace.clone().unwrap_or_default());
    }
    row.extend([
        pod.metadata.name.clone().unwrap_or_default(),
        format!("{}/{}", summary.ready, summary.containers),
        summary.reason,
        restarts,
        age::since(pod.metadata.creation_timestamp.as_ref(), now),
    ]);
    if columns.wide == Shown::Yes {
        row.extend(wide(pod));
    }
    row
}

fn wide(pod: &Pod) -> [String; 4] {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let or_none = |text: Option<&String>| {
        text.filter(|text| !text.is_empty()).cloned().unwrap_or_else(|| NONE.to_owned())
    };
    let ip = status.and_then(|status| status.pod_ips.as_ref()).and_then(|ips| ips.first()).map(|ip| &ip.ip);
    let gates = spec.and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let is_true = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let gates = match gates.len() {
        0 => NONE.to_owned(),
        all => format!("{}/{all}", gates.iter().filter(|gate| is_true(&gate.condition_type)).count()),
    };
    [
        or_none(ip),
        or_none(spec.and_then(|spec| spec.node_name.as_ref())),
        or_none(status.and_then(|status| status.nominated_node_name.as_ref())),
        gates,
    ]
}

#[derive(Debug)]
struct Summary {
    reason: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    last_restart: Option<Time>,
}

impl Summary {
    fn of(pod: &Pod) -> Summary {
        let empty = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&empty);
        let init_specs =
            pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let sidecars = init_specs.iter().filter(|container| is_sidecar(container)).count();
        let phase = status.phase.clone().unwrap_or_default();
        let mut summary = Summary {
            reason: status
                .reason
                .clone()
                .filter(|reason| !reason.is_empty())
                .unwrap_or_else(|| phase.clone()),
            ready: 0,
            containers: pod.spec.as_ref().map_or(0, |spec| spec.containers.len()) + sidecars,
            restarts: 0,
            last_restart: None,
        };
        let mut of_sidecars = Restarts::default();
        let initializing = summary.init(status, init_specs, &mut of_sidecars);
        if !initializing || has_condition(status, "Initialized") {
            summary.restarts = of_sidecars.count;
            summary.last_restart = of_sidecars.last;
            summary.regular(status);
        }
        if pod.metadata.deletion_timestamp.is_some() && !matches!(&*phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
        summary
    }

    /// Counts the init containers; true when one of them still stands in the way.
    fn init(&mut self, status: &PodStatus, specs: &[Container], of_sidecars: &mut Restarts) -> bool {
        for (at, container) in status.init_container_statuses.iter().flatten().enumerate() {
            let spec = specs.iter().find(|spec| spec.name == container.name);
            let is_sidecar = spec.is_some_and(is_sidecar);
            self.count(container);
            if is_sidecar {
                of_sidecars.count += i64::from(container.restart_count);
                of_sidecars.last = later(of_sidecars.last.take(), last_end(container));
            }
            let state = container.state.as_ref();
            let ended = state.and_then(|state| state.terminated.as_ref());
            if ended.is_some_and(|ended| ended.exit_code == 0) {
                continue;
            }
            if is_sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            }
            let waiting = waiting_reason(state).filter(|reason| *reason != "PodInitializing");
            self.reason = match (ended, waiting) {
                (Some(ended), _) => format!("Init:{}", end_reason(ended)),
                (None, Some(reason)) => format!("Init:{reason}"),
                (None, None) => format!("Init:{at}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    fn regular(&mut self, status: &PodStatus) {
        let mut has_running = false;
        for container in status.container_statuses.iter().flatten().rev() {
            self.count(container);
            let state = container.state.as_ref();
            if let Some(reason) = waiting_reason(state) {
                self.reason = reason.to_owned();
            } else if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
                self.reason = end_reason(ended);
            } else if container.ready && state.is_some_and(|state| state.running.is_some()) {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && has_running {
            let word = if has_condition(status, "Ready") { "Running" } else { "NotReady" };
            self.reason = word.to_owned();
        }
    }

    fn count(&mut self, container: &ContainerStatus) {
        self.restarts += i64::from(container.restart_count);
        self.last_restart = later(self.last_restart.take(), last_end(container));
    }
}

#[derive(Debug, Default)]
struct Restarts {
    count: i64,
    last: Option<Time>,
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn has_condition(status: &PodStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

fn waiting_reason(state: Option<&ContainerState>) -> Option<&str> {
    state?.waiting.as_ref()?.reason.as_deref().filter(|reason| !reason.is_empty())
}

fn end_reason(ended: &ContainerStateTerminated) -> String {
    match (ended.reason.as_deref().unwrap_or_default(), ended.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn last_end(container: &ContainerStatus) -> Option<&Time> {
    container.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()
}

fn later(known: Option<Time>, other: Option<&Time>) -> Option<Time> {
    match (known, other) {
        (Some(known), Some(other)) if known.0 < other.0 => Some(other.clone()),
        (None, other) => other.cloned(),
        (known, _) => known,
    }
}
