//! Rules for one container.

use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar, LifecycleHandler};

use super::super::{names, quantity};
use super::{Errors, probe};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MESSAGE_POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];
const ID_MAX: i64 = i32::MAX as i64;
const NO_COMMAND: &str =
    "the process runtime has no image to take an entrypoint from; give the command to run";
const INIT_ONLY: &str = "may not be set for init containers without restartPolicy=Always";

/// Which list the container stands in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Listed {
    Regular,
    Init,
}

pub fn check(path: &str, listed: Listed, one: &Container, pod_grace_s: i64, errors: &mut Errors) {
    let at = |field: &str| format!("{path}.{field}");
    match one.name.as_str() {
        "" => errors.required(&at("name"), ""),
        name => errors.name(&at("name"), name, names::label(name)),
    }
    if one.command.as_deref().unwrap_or_default().is_empty() {
        errors.required(&at("command"), NO_COMMAND);
    }
    ports(&at("ports"), one.ports.as_deref().unwrap_or_default(), errors);
    for (n, var) in one.env.iter().flatten().enumerate() {
        env(&format!("{path}.env[{n}]"), var, errors);
    }
    limits(path, one, errors);
    let is_sidecar = listed == Listed::Init && one.restart_policy.as_deref() == Some("Always");
    restart_policy(&at("restartPolicy"), listed, one, errors);
    let plain_init = listed == Listed::Init && !is_sidecar;
    lifecycle(path, one, plain_init, pod_grace_s, errors);
    let probes = [
        (probe::Kind::Liveness, &one.liveness_probe),
        (probe::Kind::Readiness, &one.readiness_probe),
        (probe::Kind::Startup, &one.startup_probe),
    ];
    for (kind, spec) in probes {
        let Some(spec) = spec else { continue };
        if plain_init {
            errors.forbidden(&at(kind.field()), INIT_ONLY);
        } else {
            probe::check(&at(kind.field()), kind, spec, errors);
        }
    }
    let policy = one.termination_message_policy.as_deref().unwrap_or_default();
    if !MESSAGE_POLICIES.contains(&policy) {
        errors.unsupported(&at("terminationMessagePolicy"), policy, &MESSAGE_POLICIES);
    }
    if let Some(context) = &one.security_context {
        id(&at("securityContext.runAsUser"), context.run_as_user, errors);
        id(&at("securityContext.runAsGroup"), context.run_as_group, errors);
    }
}

/// uid and gid.
pub fn id(path: &str, value: Option<i64>, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=ID_MAX).contains(value)) {
        errors.invalid(path, value, "must be between 0 and 2147483647, inclusive");
    }
}

fn ports(path: &str, ports: &[ContainerPort], errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (n, port) in ports.iter().enumerate() {
        let at = |field: &str| format!("{path}[{n}].{field}");
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let wrong = names::port(name);
            if wrong.is_empty() && !seen.insert(name) {
                errors.duplicate(&at("name"), name);
            }
            errors.name(&at("name"), name, wrong);
        }
        if port.container_port == 0 {
            errors.required(&at("containerPort"), "");
        } else {
            probe::number(&at("containerPort"), port.container_port, errors);
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            probe::number(&at("hostPort"), number, errors);
        }
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty())
            && ip.parse::<std::net::IpAddr>().is_err()
        {
            errors.invalid_text(
                &at("hostIP"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !PROTOCOLS.contains(&protocol) {
            errors.unsupported(&at("protocol"), protocol, &PROTOCOLS);
        }
    }
}

fn env(path: &str, var: &EnvVar, errors: &mut Errors) {
    match var.name.as_str() {
        "" => errors.required(&format!("{path}.name"), ""),
        name => errors.name(&format!("{path}.name"), name, names::env(name)),
    }
    if var.value_from.is_some() && var.value.as_deref().is_some_and(|value| !value.is_empty()) {
        let path = format!("{path}.valueFrom");
        errors.invalid_text(&path, "", "may not be specified when `value` is not empty");
    }
}

fn limits(path: &str, one: &Container, errors: &mut Errors) {
    let limits = one.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
    for (name, value) in limits {
        let path = format!("{path}.resources.limits[{name}]");
        if value.0.starts_with('-') {
            errors.invalid_text(&path, &value.0, "must be greater than or equal to 0");
        } else if quantity::parse(&value.0, 1).is_none() {
            let detail =
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
            errors.invalid_text(&path, &value.0, detail);
        }
    }
}

fn restart_policy(path: &str, listed: Listed, one: &Container, errors: &mut Errors) {
    match (listed, one.restart_policy.as_deref()) {
        (_, None) | (Listed::Init, Some("Always")) => {}
        (Listed::Regular, Some(_)) => errors.forbidden(path, "may not be set for non-init containers"),
        (Listed::Init, Some(other)) => errors.unsupported(path, other, &["Always"]),
    }
}

fn lifecycle(path: &str, one: &Container, plain_init: bool, pod_grace_s: i64, errors: &mut Errors) {
    let Some(lifecycle) = &one.lifecycle else { return };
    let path = format!("{path}.lifecycle");
    if plain_init {
        return errors.forbidden(&path, INIT_ONLY);
    }
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            self::hook(&format!("{path}.{field}"), hook, pod_grace_s, errors);
        }
    }
}

fn hook(path: &str, hook: &LifecycleHandler, pod_grace_s: i64, errors: &mut Errors) {
    let mut handlers = probe::Handlers::default();
    if let Some(exec) = &hook.exec
        && handlers.first(&format!("{path}.exec"), errors)
    {
        probe::exec(&format!("{path}.exec"), exec, errors);
    }
    if let Some(http) = &hook.http_get
        && handlers.first(&format!("{path}.httpGet"), errors)
    {
        probe::http(&format!("{path}.httpGet"), http, errors);
    }
    if let Some(tcp) = &hook.tcp_socket
        && handlers.first(&format!("{path}.tcpSocket"), errors)
    {
        probe::port(&format!("{path}.tcpSocket.port"), &tcp.port, errors);
    }
    if let Some(sleep) = &hook.sleep
        && handlers.first(&format!("{path}.sleep"), errors)
        && !(0..=pod_grace_s).contains(&sleep.seconds)
    {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({pod_grace_s})");
        errors.invalid(&format!("{path}.sleep"), sleep.seconds, detail);
    }
    handlers.require(path, errors);
}
