//! `describe pod`, laid out as kubectl's describer does (kubernetes `kubectl/pkg/describe`). Times are UTC.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerStatus, EnvVar, Event, Pod, PodSpec, PodStatus, Volume,
};
use probe_core::decide::describe;
use probe_core::model::probe::ProbeKind;
use probe_core::spec;

use super::age;
use super::events::{last_seen, last_time};
use super::table::tab_stops;

const NONE: &str = "<none>";
/// Longer annotations stand on lines of their own, cut.
const ANNOTATION_CHARS_MAX: usize = 140;
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The whole text. `events` are those of the pod, in any order.
pub fn pod(pod: &Pod, events: &[Event], now: Timestamp) -> String {
    let empty_spec = PodSpec::default();
    let empty_status = PodStatus::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty_spec);
    let status = pod.status.as_ref().unwrap_or(&empty_status);
    let mut out = Text::default();
    head(pod, spec, status, now, &mut out);
    let containers =
        |label: &str, specs: &[Container], statuses: &Option<Vec<ContainerStatus>>, out: &mut Text| {
            out.line(0, &format!("{label}:"));
            for container in specs {
                let status = statuses.iter().flatten().find(|status| status.name == container.name);
                self::container(pod, container, status, out);
            }
        };
    if let Some(init) = spec.init_containers.as_deref().filter(|init| !init.is_empty()) {
        containers("Init Containers", init, &status.init_container_statuses, &mut out);
    }
    containers("Containers", &spec.containers, &status.container_statuses, &mut out);
    conditions(spec, status, &mut out);
    volumes(spec.volumes.as_deref().unwrap_or_default(), &mut out);
    out.field(0, "QoS Class", status.qos_class.as_deref().unwrap_or_default());
    pairs("Node-Selectors", spec.node_selector.as_ref(), &mut out);
    tolerations(spec, &mut out);
    event_table(events, now, &mut out);
    tab_stops(&out.text)
}

fn head(pod: &Pod, spec: &PodSpec, status: &PodStatus, now: Timestamp, out: &mut Text) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    out.field(0, "Name", &text(&meta.name));
    out.field(0, "Namespace", &text(&meta.namespace));
    if let Some(priority) = spec.priority {
        out.field(0, "Priority", &priority.to_string());
    }
    out.optional(0, "Priority Class Name", spec.priority_class_name.as_deref());
    out.optional(0, "Runtime Class Name", spec.runtime_class_name.as_deref());
    out.optional(0, "Service Account", spec.service_account_name.as_deref());
    match spec.node_name.as_deref().unwrap_or_default() {
        "" => out.field(0, "Node", NONE),
        node => out.field(0, "Node", &format!("{node}/{}", text(&status.host_ip))),
    }
    if let Some(start) = &status.start_time {
        out.field(0, "Start Time", &start.0.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string());
    }
    pairs("Labels", meta.labels.as_ref(), out);
    annotations(meta.annotations.as_ref(), out);
    let phase = text(&status.phase);
    if meta.deletion_timestamp.is_some() && !matches!(&*phase, "Failed" | "Succeeded") {
        let lasts = age::since(meta.deletion_timestamp.as_ref(), now);
        out.field(0, "Status", &format!("Terminating (lasts {lasts})"));
        let grace_s = meta.deletion_grace_period_seconds.unwrap_or_default();
        out.field(0, "Termination Grace Period", &format!("{grace_s}s"));
    } else {
        out.field(0, "Status", &phase);
    }
    out.optional(0, "Reason", status.reason.as_deref());
    out.optional(0, "Message", status.message.as_deref());
    out.field(0, "IP", &text(&status.pod_ip));
    match status.pod_ips.as_deref().unwrap_or_default() {
        [] => out.field(0, "IPs", NONE),
        ips => {
            out.line(0, "IPs:");
            ips.iter().for_each(|ip| out.field(1, "IP", &ip.ip));
        }
    }
}

fn container(pod: &Pod, container: &Container, status: Option<&ContainerStatus>, out: &mut Text) {
    out.line(1, &format!("{}:", container.name));
    if let Some(status) = status {
        out.field(2, "Container ID", status.container_id.as_deref().unwrap_or_default());
    }
    out.field(2, "Image", container.image.as_deref().unwrap_or_default());
    if let Some(status) = status {
        out.field(2, "Image ID", &status.image_id);
    }
    ports(container.ports.as_deref().unwrap_or_default(), out);
    for (label, words) in [("Command:", &container.command), ("Args:", &container.args)] {
        if let Some(words) = words.as_deref().filter(|words| !words.is_empty()) {
            out.line(2, label);
            words.iter().flat_map(|word| word.split('\n')).for_each(|line| out.line(3, line));
        }
    }
    if let Some(status) = status {
        for line in describe::container_status(status) {
            out.field(2 + line.depth, line.key, &line.value);
        }
    }
    let resources = container.resources.clone().unwrap_or_default();
    for (label, quantities) in [("Limits:", resources.limits), ("Requests:", resources.requests)] {
        if let Some(quantities) = quantities.filter(|quantities| !quantities.is_empty()) {
            out.line(2, label);
            quantities.iter().for_each(|(name, quantity)| out.field(3, name, &quantity.0));
        }
    }
    let probes = [
        (ProbeKind::Liveness, &container.liveness_probe),
        (ProbeKind::Readiness, &container.readiness_probe),
        (ProbeKind::Startup, &container.startup_probe),
    ];
    for (kind, probe) in probes {
        if let Some(probe) = probe {
            let timing = spec::timing(pod.metadata.annotations.as_ref(), &container.name, kind, probe);
            out.field(2, kind.as_str(), &describe::probe(probe, timing.timeout, timing.period));
        }
    }
    environment(pod, container.env.as_deref().unwrap_or_default(), out);
    mounts(container, out);
}

fn ports(ports: &[ContainerPort], out: &mut Text) {
    let list = |number: fn(&ContainerPort) -> i32| {
        let port =
            |port: &ContainerPort| format!("{}/{}", number(port), port.protocol.as_deref().unwrap_or("TCP"));
        ports.iter().map(port).collect::<Vec<_>>().join(", ")
    };
    let own = list(|port| port.container_port);
    let host = list(|port| port.host_port.unwrap_or(0));
    for (one, several, list) in [("Port", "Ports", own), ("Host Port", "Host Ports", host)] {
        match &*list {
            "" => out.field(2, one, NONE),
            list if list.contains(',') => out.field(2, several, list),
            list => out.field(2, one, list),
        }
    }
}

fn environment(pod: &Pod, env: &[EnvVar], out: &mut Text) {
    if env.is_empty() {
        out.field(2, "Environment", NONE);
        return;
    }
    out.line(2, "Environment:");
    for var in env {
        let field = var.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        if let Some(field) = field {
            let version = field.api_version.as_deref().unwrap_or("v1");
            let value = field_value(pod, &field.field_path);
            out.field(3, &var.name, &format!("{value} ({version}:{})", field.field_path));
            continue;
        }
        let mut lines = var.value.as_deref().unwrap_or_default().split('\n');
        out.field(3, &var.name, lines.next().unwrap_or_default());
        lines.for_each(|line| out.line(3, &format!("\t{line}")));
    }
}

/// What kubectl can tell of a field without asking anybody: metadata, nothing of the status.
fn field_value(pod: &Pod, path: &str) -> String {
    let meta = &pod.metadata;
    let value = match path {
        "metadata.name" => &meta.name,
        "metadata.namespace" => &meta.namespace,
        "metadata.uid" => &meta.uid,
        _ => &None,
    };
    value.clone().unwrap_or_default()
}

fn mounts(container: &Container, out: &mut Text) {
    match container.volume_mounts.as_deref().unwrap_or_default() {
        [] => out.field(2, "Mounts", NONE),
        mounts => {
            out.line(2, "Mounts:");
            let mut mounts: Vec<_> = mounts.iter().collect();
            mounts.sort_by(|a, b| a.mount_path.cmp(&b.mount_path));
            for mount in mounts {
                let mode = if mount.read_only == Some(true) { "ro" } else { "rw" };
                let path = mount.sub_path.as_deref().filter(|path| !path.is_empty());
                let path = path.map(|path| format!(",path=\"{path}\"")).unwrap_or_default();
                out.line(3, &format!("{} from {} ({mode}{path})", mount.mount_path, mount.name));
            }
        }
    }
}

fn conditions(spec: &PodSpec, status: &PodStatus, out: &mut Text) {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if let Some(gates) = spec.readiness_gates.as_deref().filter(|gates| !gates.is_empty()) {
        out.line(0, "Readiness Gates:");
        out.line(0, "  Type\tStatus");
        for gate in gates {
            let found = conditions.iter().find(|condition| condition.type_ == gate.condition_type);
            let value = found.map_or(NONE, |condition| &condition.status);
            out.line(1, &format!("{} \t{value} ", gate.condition_type));
        }
    }
    if !conditions.is_empty() {
        out.line(0, "Conditions:");
        out.line(0, "  Type\tStatus");
        for condition in conditions {
            out.line(1, &format!("{} \t{} ", condition.type_, condition.status));
        }
    }
}

/// The process runtime mounts none; a manifest may name some.
fn volumes(volumes: &[Volume], out: &mut Text) {
    if volumes.is_empty() {
        out.field(0, "Volumes", NONE);
        return;
    }
    out.line(0, "Volumes:");
    for volume in volumes {
        out.line(1, &format!("{}:", volume.name));
        // The one field beside the name is the kind of volume.
        let fields = serde_json::to_value(volume).unwrap_or_default();
        let kind = fields.as_object().into_iter().flat_map(|fields| fields.keys()).find(|key| *key != "name");
        out.field(2, "Type", kind.map_or(NONE, String::as_str));
    }
}

fn tolerations(spec: &PodSpec, out: &mut Text) {
    let mut lines = Vec::new();
    let mut tolerations: Vec<_> = spec.tolerations.iter().flatten().collect();
    tolerations.sort_by(|a, b| a.key.cmp(&b.key));
    for toleration in tolerations {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut line = text(&toleration.key);
        let value = text(&toleration.value);
        if !value.is_empty() {
            line.push_str(&format!("={value}"));
        }
        let effect = text(&toleration.effect);
        if !effect.is_empty() {
            line.push_str(&format!(":{effect}"));
        }
        if toleration.operator.as_deref() == Some("Exists") && value.is_empty() {
            line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration.toleration_seconds {
            line.push_str(&format!(" for {seconds}s"));
        }
        lines.push(line);
    }
    column("Tolerations", &lines, out);
}

fn event_table(events: &[Event], now: Timestamp, out: &mut Text) {
    if events.is_empty() {
        out.field(0, "Events", NONE);
        return;
    }
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| last_time(event));
    out.line(0, "Events:");
    out.line(0, "  Type\tReason\tAge\tFrom\tMessage");
    out.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let component = event.source.as_ref().and_then(|source| source.component.as_ref());
        let from = component.filter(|name| !name.is_empty()).or(event.reporting_component.as_ref());
        let cells = [
            text(event.type_.as_ref()),
            text(event.reason.as_ref()),
            last_seen(event, now),
            text(from),
            text(event.message.as_ref()).trim().to_owned(),
        ];
        out.line(1, &cells.join("\t"));
    }
}

fn pairs(label: &str, pairs: Option<&BTreeMap<String, String>>, out: &mut Text) {
    let lines: Vec<String> =
        pairs.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    column(label, &lines, out);
}

fn annotations(annotations: Option<&BTreeMap<String, String>>, out: &mut Text) {
    let mut lines = Vec::new();
    for (key, value) in annotations.into_iter().flatten().filter(|(key, _)| *key != LAST_APPLIED) {
        let value = value.strip_suffix('\n').unwrap_or(value);
        if value.len() + key.len() + 2 <= ANNOTATION_CHARS_MAX && !value.contains('\n') {
            lines.push(format!("{key}: {value}"));
            continue;
        }
        lines.push(format!("{key}:"));
        for line in value.split('\n') {
            let cut: String = line.chars().take(ANNOTATION_CHARS_MAX - 2).collect();
            let dots = if cut.len() < line.len() { "..." } else { "" };
            lines.push(format!("  {cut}{dots}"));
        }
    }
    column("Annotations", &lines, out);
}

/// A label with several lines beside it.
fn column(label: &str, lines: &[String], out: &mut Text) {
    match lines {
        [] => out.field(0, label, NONE),
        [first, rest @ ..] => {
            out.field(0, label, first);
            rest.iter().for_each(|line| out.line(0, &format!("\t{line}")));
        }
    }
}

/// Tab-separated lines; a depth is two blanks.
#[derive(Default)]
struct Text {
    text: String,
}

impl Text {
    fn line(&mut self, depth: usize, line: &str) {
        self.text.extend(std::iter::repeat_n("  ", depth));
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn field(&mut self, depth: usize, key: &str, value: &str) {
        self.line(depth, &format!("{key}:\t{value}"));
    }

    fn optional(&mut self, depth: usize, key: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.field(depth, key, value);
        }
    }
}
