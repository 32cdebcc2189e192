//! Lines of `kubectl describe pod` (kubelet-semantics 18), from the API's own objects: whoever describes has
//! read them from the API.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One line of a block; `depth` counts indents of two spaces, an empty `value` is a bare heading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    pub depth: usize,
    pub key: &'static str,
    pub value: String,
}

/// The text behind `Liveness:`, `Readiness:` or `Startup:`. Timeout and period may come from annotations.
pub fn probe(probe: &Probe, timeout: Duration, period: Duration) -> String {
    let attrs = format!(
        "delay={}s timeout={} period={} #success={} #failure={}",
        probe.initial_delay_seconds.unwrap_or(0),
        duration_text(timeout),
        duration_text(period),
        probe.success_threshold.unwrap_or(0),
        probe.failure_threshold.unwrap_or(0),
    );
    if let Some(exec) = &probe.exec {
        let command = exec.command.as_deref().unwrap_or_default().join(" ");
        format!("exec [{command}] {attrs}")
    } else if let Some(get) = &probe.http_get {
        let scheme = get.scheme.as_deref().unwrap_or("http").to_lowercase();
        let host = get.host.as_deref().unwrap_or_default();
        let path = escaped_path(get.path.as_deref().unwrap_or_default());
        format!("http-get {scheme}://{host}:{}{path} {attrs}", port_text(&get.port))
    } else if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().unwrap_or_default();
        format!("tcp-socket {host}:{} {attrs}", port_text(&tcp.port))
    } else if let Some(grpc) = &probe.grpc {
        format!("grpc <pod>:{} {} {attrs}", grpc.port, grpc.service.as_deref().unwrap_or_default())
    } else {
        format!("unknown {attrs}")
    }
}

/// State, Last State, Ready and Restart Count of a container.
pub fn container_status(status: &ContainerStatus) -> Vec<Line> {
    let mut lines = Vec::new();
    match &status.state {
        Some(state) => state_lines("State", state, &mut lines),
        None => lines.push(line(0, "State", "Waiting")),
    }
    if let Some(last) = status.last_state.as_ref().filter(|last| last.terminated.is_some()) {
        state_lines("Last State", last, &mut lines);
    }
    lines.push(line(0, "Ready", if status.ready { "True" } else { "False" }));
    lines.push(line(0, "Restart Count", &status.restart_count.to_string()));
    lines
}

fn state_lines(key: &'static str, state: &ContainerState, lines: &mut Vec<Line>) {
    if let Some(running) = &state.running {
        lines.push(line(0, key, "Running"));
        lines.push(line(1, "Started", &time_text(running.started_at.as_ref())));
    } else if let Some(ended) = &state.terminated {
        lines.push(line(0, key, "Terminated"));
        let optional = [("Reason", &ended.reason), ("Message", &ended.message)];
        for (key, value) in optional {
            lines.extend(value.as_deref().filter(|text| !text.is_empty()).map(|text| line(1, key, text)));
        }
        lines.push(line(1, "Exit Code", &ended.exit_code.to_string()));
        let signal = ended.signal.filter(|signal| *signal > 0);
        lines.extend(signal.map(|signal| line(1, "Signal", &signal.to_string())));
        lines.push(line(1, "Started", &time_text(ended.started_at.as_ref())));
        lines.push(line(1, "Finished", &time_text(ended.finished_at.as_ref())));
    } else {
        lines.push(line(0, key, "Waiting"));
        let reason = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
        lines.extend(reason.filter(|text| !text.is_empty()).map(|text| line(1, "Reason", text)));
    }
}

/// Whole seconds as kubectl shows them, everything else in milliseconds.
fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

fn line(depth: usize, key: &'static str, value: &str) -> Line {
    Line { depth, key, value: value.to_owned() }
}

fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// RFC 1123 with a numeric zone, in UTC.
fn time_text(time: Option<&Time>) -> String {
    time.map_or_else(String::new, |time| time.0.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
}

/// The path as Go writes a bare path into a URL: `?`, `#` and everything unsafe as percent escapes.
fn escaped_path(path: &str) -> String {
    let escaped = crate::wire::url::escape_path(path);
    if escaped.is_empty() || escaped.starts_with('/') { escaped } else { format!("/{escaped}") }
}
