//! Rules for one probe and its handler (kubelet-semantics 2; the order of evaluation is the spec's).

use k8s_openapi::api::core::v1::{ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::names;
use super::Errors;

const HEADER_TEXT: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', \
    regex used for validation is '[-A-Za-z0-9]+')";

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Liveness,
    Readiness,
    Startup,
}

impl Kind {
    pub fn field(self) -> &'static str {
        match self {
            Kind::Liveness => "livenessProbe",
            Kind::Readiness => "readinessProbe",
            Kind::Startup => "startupProbe",
        }
    }
}

/// Counts handlers: exactly one is right, and only the first one is looked into.
#[derive(Default)]
pub struct Handlers {
    count: u32,
}

impl Handlers {
    /// True for the first handler; a further one is an error.
    pub fn first(&mut self, path: &str, errors: &mut Errors) -> bool {
        self.count += 1;
        if self.count > 1 {
            errors.forbidden(path, "may not specify more than 1 handler type");
        }
        self.count == 1
    }

    pub fn require(&self, path: &str, errors: &mut Errors) {
        if self.count == 0 {
            errors.required(path, "must specify a handler type");
        }
    }
}

pub fn check(path: &str, kind: Kind, probe: &Probe, errors: &mut Errors) {
    handler(path, probe, errors);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, value) in numbers {
        if let Some(value) = value.filter(|value| *value < 0) {
            errors.invalid(&format!("{path}.{field}"), value, "must be greater than or equal to 0");
        }
    }
    if let Some(grace_s) = probe.termination_grace_period_seconds {
        let path = format!("{path}.terminationGracePeriodSeconds");
        if grace_s <= 0 {
            errors.invalid(&path, grace_s, "must be greater than 0");
        }
        if kind == Kind::Readiness {
            errors.invalid(&path, grace_s, "must not be set for readinessProbes");
        }
    }
    let successes = probe.success_threshold.unwrap_or(1);
    if kind != Kind::Readiness && successes != 1 {
        errors.invalid(&format!("{path}.successThreshold"), successes, "must be 1");
    }
}

fn handler(path: &str, probe: &Probe, errors: &mut Errors) {
    let mut handlers = Handlers::default();
    if let Some(exec) = &probe.exec
        && handlers.first(&format!("{path}.exec"), errors)
    {
        self::exec(&format!("{path}.exec"), exec, errors);
    }
    if let Some(http) = &probe.http_get
        && handlers.first(&format!("{path}.httpGet"), errors)
    {
        self::http(&format!("{path}.httpGet"), http, errors);
    }
    if let Some(tcp) = &probe.tcp_socket
        && handlers.first(&format!("{path}.tcpSocket"), errors)
    {
        port(&format!("{path}.tcpSocket.port"), &tcp.port, errors);
    }
    if let Some(grpc) = &probe.grpc
        && handlers.first(&format!("{path}.grpc"), errors)
    {
        number(&format!("{path}.grpc.port"), grpc.port, errors);
    }
    handlers.require(path, errors);
}

pub fn exec(path: &str, exec: &ExecAction, errors: &mut Errors) {
    if exec.command.as_deref().unwrap_or_default().is_empty() {
        errors.required(&format!("{path}.command"), "");
    }
}

pub fn http(path: &str, http: &HTTPGetAction, errors: &mut Errors) {
    if http.path.as_deref().unwrap_or_default().is_empty() {
        errors.required(&format!("{path}.path"), "");
    }
    port(&format!("{path}.port"), &http.port, errors);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.unsupported(&format!("{path}.scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in http.http_headers.iter().flatten().filter(|header| !names::is_header(&header.name)) {
        errors.invalid_text(&format!("{path}.httpHeaders"), &header.name, HEADER_TEXT);
    }
}

pub fn port(path: &str, port: &IntOrString, errors: &mut Errors) {
    match port {
        IntOrString::Int(value) => number(path, *value, errors),
        IntOrString::String(name) => errors.name(path, name, names::port(name)),
    }
}

pub fn number(path: &str, value: i32, errors: &mut Errors) {
    if !(1..=65_535).contains(&value) {
        errors.invalid(path, value, "must be between 1 and 65535, inclusive");
    }
}
