//! From a defaulted, valid pod to the model. Nothing can be wrong any more; what is not honoured is left out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{annotations, quantity};
use crate::model::id::PodUid;
use crate::model::pod::{
    ChildOomPolicy, ContainerPort, ContainerSpec, EnvField, EnvValue, EnvVar, Hook, PodSpec, Protocol,
    RestartPolicy, Role, TerminationMessagePolicy,
};
use crate::model::probe::{
    ErroredRuns, ExecAction, GrpcAction, Handler, HttpGetAction, PortRef, ProbeSpec, TcpSocketAction,
    TlsAction,
};
use crate::wire::tls;

/// The model of a pod. Its manifest is kept as JSON, with the uid in it.
pub fn pod(mut pod: k8s::Pod, uid: PodUid, context: &mut annotations::Context<'_>) -> PodSpec {
    pod.metadata.uid = Some(uid.to_string());
    pod.status = None;
    let manifest_json: Arc<str> = serde_json::to_string(&pod).unwrap_or_default().into();
    let spec = pod.spec.unwrap_or_default();
    let name: Box<str> = pod.metadata.name.unwrap_or_default().into();
    let about = spec.security_context.as_ref();
    let user = about.and_then(|context| context.run_as_user);
    let group = about.and_then(|context| context.run_as_group);
    let inits = spec.init_containers.iter().flatten().map(|one| container(one, init_role(one), user, group));
    let regular = spec.containers.iter().map(|one| container(one, Role::Regular, user, group));
    let mut containers: Vec<ContainerSpec> = inits.chain(regular).collect();
    if let Some(annotated) = &pod.metadata.annotations {
        containers.iter_mut().for_each(|one| annotations::apply(annotated, one, context));
    }
    PodSpec {
        uid,
        namespace: pod.metadata.namespace.unwrap_or_default().into(),
        restart_policy: match spec.restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some(_) | None => RestartPolicy::Always,
        },
        termination_grace_s: seconds(spec.termination_grace_period_seconds.unwrap_or_default()),
        containers,
        base_dir: context.folder.to_owned(),
        hostname: spec.hostname.map_or_else(|| name.clone(), Into::into),
        name,
        readiness_gates: spec
            .readiness_gates
            .iter()
            .flatten()
            .map(|gate| gate.condition_type.as_str().into())
            .collect(),
        manifest_json,
    }
}

/// The pod's field that `valueFrom.fieldRef.fieldPath` names, if it is known here.
pub fn env_field(path: &str) -> Option<EnvField> {
    match path {
        "metadata.name" => Some(EnvField::PodName),
        "metadata.namespace" => Some(EnvField::PodNamespace),
        "metadata.uid" => Some(EnvField::PodUid),
        "status.podIP" | "status.podIPs" => Some(EnvField::PodIp),
        "status.hostIP" | "status.hostIPs" => Some(EnvField::HostIp),
        "spec.nodeName" => Some(EnvField::NodeName),
        _ => None,
    }
}

fn init_role(one: &k8s::Container) -> Role {
    if one.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

fn container(one: &k8s::Container, role: Role, user: Option<i64>, group: Option<i64>) -> ContainerSpec {
    let context = one.security_context.as_ref();
    let id = |own: Option<i64>, pods: Option<i64>| own.or(pods).and_then(|id| u32::try_from(id).ok());
    let limit = |name: &str, scale| {
        let limits = one.resources.as_ref()?.limits.as_ref()?;
        quantity::parse(&limits.get(name)?.0, scale)
    };
    let lifecycle = one.lifecycle.as_ref();
    ContainerSpec {
        name: one.name.as_str().into(),
        role,
        image: one.image.as_deref().unwrap_or_default().into(),
        command: texts(one.command.as_deref()),
        args: texts(one.args.as_deref()),
        env: one.env.iter().flatten().filter_map(env).collect(),
        working_dir: one.working_dir.as_deref().filter(|dir| !dir.is_empty()).map(Into::into),
        run_as_user: id(context.and_then(|context| context.run_as_user), user),
        run_as_group: id(context.and_then(|context| context.run_as_group), group),
        memory_limit_bytes: limit("memory", 1),
        cpu_limit_millicores: limit("cpu", 1_000),
        ports: one.ports.iter().flatten().filter_map(port).collect(),
        startup: one.startup_probe.as_ref().and_then(probe),
        readiness: one.readiness_probe.as_ref().and_then(probe),
        liveness: one.liveness_probe.as_ref().and_then(probe),
        post_start: lifecycle.and_then(|both| hook(both.post_start.as_ref()?)),
        pre_stop: lifecycle.and_then(|both| hook(both.pre_stop.as_ref()?)),
        stop_signal: lifecycle.and_then(|both| signal(both.stop_signal.as_deref()?)).unwrap_or(libc::SIGTERM),
        termination_message_path: one.termination_message_path.as_deref().unwrap_or_default().into(),
        termination_message_policy: match one.termination_message_policy.as_deref() {
            Some("FallbackToLogsOnError") => TerminationMessagePolicy::FallbackToLogsOnError,
            Some(_) | None => TerminationMessagePolicy::File,
        },
        on_child_oom: ChildOomPolicy::default(),
        oom_kills_together: true,
        spec_hash: fnv1a(&serde_json::to_vec(one).unwrap_or_default()),
    }
}

fn texts(list: Option<&[String]>) -> Vec<Box<str>> {
    list.unwrap_or_default().iter().map(|text| text.as_str().into()).collect()
}

fn env(var: &k8s::EnvVar) -> Option<EnvVar> {
    let value = match &var.value_from {
        None => EnvValue::Literal(var.value.as_deref().unwrap_or_default().into()),
        Some(from) => EnvValue::Field(env_field(&from.field_ref.as_ref()?.field_path)?),
    };
    Some(EnvVar { name: var.name.as_str().into(), value })
}

fn port(port: &k8s::ContainerPort) -> Option<ContainerPort> {
    Some(ContainerPort {
        name: port.name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
        container_port: u16::try_from(port.container_port).ok()?,
        host_port: port.host_port.filter(|number| *number != 0).and_then(|number| u16::try_from(number).ok()),
        host_ip: port.host_ip.as_deref().filter(|ip| !ip.is_empty()).map(Into::into),
        protocol: match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) | None => Protocol::Tcp,
        },
    })
}

fn probe(probe: &k8s::Probe) -> Option<ProbeSpec> {
    let handler = match (&probe.exec, &probe.http_get, &probe.tcp_socket, &probe.grpc) {
        (Some(exec), ..) => Handler::Exec(self::exec(exec)),
        (_, Some(http), ..) => Handler::HttpGet(self::http(http)),
        (_, _, Some(tcp), _) => {
            Handler::TcpSocket(TcpSocketAction::plain(host(tcp.host.as_deref()), port_ref(&tcp.port)))
        }
        (.., Some(grpc)) => Handler::Grpc(GrpcAction {
            port: u16::try_from(grpc.port).ok()?,
            service: grpc.service.as_deref().unwrap_or_default().into(),
        }),
        (None, None, None, None) => return None,
    };
    let number = |value: Option<i32>| u32::try_from(value.unwrap_or_default()).unwrap_or_default();
    let duration = |value: Option<i32>| Duration::from_secs(number(value).into());
    Some(ProbeSpec {
        handler,
        initial_delay_s: number(probe.initial_delay_seconds),
        timeout: duration(probe.timeout_seconds),
        period: duration(probe.period_seconds),
        success_threshold: number(probe.success_threshold),
        failure_threshold: number(probe.failure_threshold),
        termination_grace_s: probe.termination_grace_period_seconds.map(seconds),
        resets_on_restart: false,
        errored_runs: ErroredRuns::Ignore,
    })
}

fn hook(hook: &k8s::LifecycleHandler) -> Option<Hook> {
    match (&hook.exec, &hook.http_get, &hook.sleep) {
        (Some(exec), ..) => Some(Hook::Exec(self::exec(exec))),
        (_, Some(http), _) => Some(Hook::HttpGet(self::http(http))),
        (.., Some(sleep)) => Some(Hook::Sleep { seconds: seconds(sleep.seconds) }),
        (None, None, None) => None,
    }
}

fn exec(exec: &k8s::ExecAction) -> ExecAction {
    ExecAction { command: texts(exec.command.as_deref()) }
}

fn http(http: &k8s::HTTPGetAction) -> HttpGetAction {
    let headers = http.http_headers.iter().flatten();
    let tls = || TlsAction { config: tls::any_certificate(), server_name: None };
    let path = http.path.as_deref().unwrap_or("/");
    HttpGetAction {
        headers: headers.map(|header| (header.name.as_str().into(), header.value.as_str().into())).collect(),
        tls: (http.scheme.as_deref() == Some("HTTPS")).then(tls),
        ..HttpGetAction::plain(host(http.host.as_deref()), port_ref(&http.port), path)
    }
}

fn host(host: Option<&str>) -> Option<Box<str>> {
    host.filter(|host| !host.is_empty()).map(Into::into)
}

fn port_ref(port: &IntOrString) -> PortRef {
    match port {
        IntOrString::Int(number) => PortRef::Number(*number),
        IntOrString::String(name) => PortRef::Name(name.as_str().into()),
    }
}

fn seconds(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// Signals by the names of `lifecycle.stopSignal`.
fn signal(name: &str) -> Option<i32> {
    match name {
        "SIGTERM" => Some(libc::SIGTERM),
        "SIGINT" => Some(libc::SIGINT),
        "SIGQUIT" => Some(libc::SIGQUIT),
        "SIGHUP" => Some(libc::SIGHUP),
        "SIGUSR1" => Some(libc::SIGUSR1),
        "SIGUSR2" => Some(libc::SIGUSR2),
        "SIGKILL" => Some(libc::SIGKILL),
        "SIGABRT" => Some(libc::SIGABRT),
        "SIGWINCH" => Some(libc::SIGWINCH),
        _ => None,
    }
}

/// FNV-1a, 64 bits: stable over versions and machines. Fields are serialised in a fixed order.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
