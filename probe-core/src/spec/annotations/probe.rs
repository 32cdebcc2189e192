//! `<probe>.<setting>`: what Pod YAML has no field for in a probe.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;

use super::super::validate::Errors;
use super::setting::Setting;
use super::{Annotations, Context, FIELD, containers, effective, path};
use crate::model::limits::{PROBE_MS_MAX, UNIX_PATH_MAX_BYTES};
use crate::model::probe::{BrokenBody, ErroredRuns, Handler, ProbeKind, ProbeSpec, Redirects, TcpClose};

/// The probe and what is said of it: `liveness.period-ms`.
pub fn parse_name(name: &str) -> Option<(ProbeKind, Setting)> {
    let (probe, setting) = name.split_once('.')?;
    let kind = ProbeKind::ALL.into_iter().find(|kind| word(*kind) == probe)?;
    Some((kind, Setting::parse(setting)?))
}

/// How often a probe runs, and how long a run may take.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Timing {
    pub period: Duration,
    pub timeout: Duration,
}

/// The timing of a container's probe, with what annotations say of it. For whoever shows a pod of the API.
pub fn timing(
    annotations: Option<&Annotations>,
    container: &str,
    kind: ProbeKind,
    probe: &k8s::Probe,
) -> Timing {
    let seconds = |value: Option<i32>| {
        Duration::from_secs(u64::try_from(value.unwrap_or_default()).unwrap_or_default())
    };
    let said = |setting| annotations.and_then(|all| milliseconds(all, container, kind, setting));
    Timing {
        period: said(Setting::PeriodMs).unwrap_or_else(|| seconds(probe.period_seconds)),
        timeout: said(Setting::TimeoutMs).unwrap_or_else(|| seconds(probe.timeout_seconds)),
    }
}

/// What is wrong with one annotation.
pub fn check(
    pod: &k8s::Pod,
    container: Option<&str>,
    (kind, setting): (ProbeKind, Setting),
    (key, value): (&str, &str),
    context: &mut Context<'_>,
    errors: &mut Errors,
) {
    let meant = || containers(pod).filter(|one| container.is_none_or(|name| one.name == name));
    let field = field(kind);
    let mut probes = meant().filter_map(|one| Some((one, probe_of(one, kind)?))).peekable();
    if probes.peek().is_none() {
        let who = match container {
            Some(name) => format!("container {name} has no {field}"),
            None => format!("no container of the pod has a {field}"),
        };
        return errors.invalid_text(FIELD, key, who);
    }
    for (one, probe) in probes {
        if let Some(why) = setting.unfit(probe) {
            // Naming another container helps only where one has such a probe.
            let fits = |other: &k8s::Container| {
                probe_of(other, kind).is_some_and(|probe| setting.unfit(probe).is_none())
            };
            let cure = match container {
                None if containers(pod).any(fits) => {
                    format!("name the container that is meant: <container>.{key}")
                }
                Some(_) | None => "leave it out".to_owned(),
            };
            let name = &one.name;
            return errors.invalid_text(
                FIELD,
                key,
                format_args!("{field} of container {name}: {why}: {cure}"),
            );
        }
    }
    if let Err(wrong) = check_value(setting, value, context) {
        errors.invalid_text(&path(key), value, wrong);
    }
}

fn check_value(setting: Setting, value: &str, context: &mut Context<'_>) -> Result<(), String> {
    match setting {
        Setting::PeriodMs => {
            let period_ms = parse_ms(value)?;
            let floor_ms = context.min_probe_period.as_millis();
            if u128::from(period_ms) < floor_ms {
                return Err(format!(
                    "below this node's floor of {floor_ms} ms: give at least {floor_ms}, or start defib with \
                     --min-probe-period-ms {period_ms}"
                ));
            }
            Ok(())
        }
        Setting::TimeoutMs => parse_ms(value).map(drop),
        Setting::UnixSocket => {
            let length = path_of(value, context.folder).as_os_str().len();
            match (value.is_empty() || value.contains('\0'), length > UNIX_PATH_MAX_BYTES) {
                (true, _) => Err("the path of a Unix socket is expected".to_owned()),
                (_, true) => Err(format!(
                    "the whole path has {length} bytes: the path of a Unix socket has at most {UNIX_PATH_MAX_BYTES}"
                )),
                (false, false) => Ok(()),
            }
        }
        Setting::KeepAlive | Setting::TlsVerify | Setting::ResetOnRestart => match parse_bool(value) {
            Some(_) => Ok(()),
            None => Err("must be \"true\" or \"false\"".to_owned()),
        },
        Setting::TlsCa if value.is_empty() => Err("the path of a PEM file is expected".to_owned()),
        Setting::TlsCa => context.authorities.of(&path_of(value, context.folder)).map(drop),
        Setting::TlsServerName => match rustls::pki_types::ServerName::try_from(value) {
            Ok(_) => Ok(()),
            Err(_) => Err("must be a DNS name or an IP address".to_owned()),
        },
        Setting::TcpClose => one_of(value, &TcpClose::ALL.map(TcpClose::as_str)),
        Setting::ErroredRuns => one_of(value, &ErroredRuns::ALL.map(ErroredRuns::as_str)),
        Setting::BrokenBody => one_of(value, &BrokenBody::ALL.map(BrokenBody::as_str)),
        Setting::Redirects => one_of(value, &Redirects::ALL.map(Redirects::as_str)),
    }
}

/// What is wrong between annotations of one probe, and between them and its fields.
pub fn check_together(pod: &k8s::Pod, container: &k8s::Container, kind: ProbeKind, errors: &mut Errors) {
    let Some(annotations) = &pod.metadata.annotations else { return };
    let Some(probe) = probe_of(container, kind) else { return };
    let (name, field) = (&container.name, field(kind));
    let said = |setting| said(annotations, name, kind, setting);
    let is_true = |setting| said(setting).is_some_and(|(_, value)| parse_bool(value) == Some(true));
    let mut wrong = |key: &str, why: &str| {
        errors.invalid_text(FIELD, key, format_args!("{field} of container {name}: {why}"));
    };
    if let Some((key, _)) = said(Setting::TlsVerify).filter(|_| is_true(Setting::TlsVerify))
        && said(Setting::TlsCa).is_none()
    {
        wrong(key, "verification needs tls-ca: the PEM file with the certificates of the authority");
    }
    if let Some((key, _)) = said(Setting::TlsCa).filter(|_| !is_true(Setting::TlsVerify)) {
        wrong(key, "it has an effect with tls-verify: \"true\" only");
    }
    let has_connection = probe.http_get.iter().flat_map(|http| http.http_headers.iter().flatten());
    if let Some((key, _)) = said(Setting::KeepAlive).filter(|_| is_true(Setting::KeepAlive))
        && has_connection.clone().any(|header| header.name.eq_ignore_ascii_case("Connection"))
    {
        wrong(key, "httpHeaders has a Connection header, which decides the same: leave one of them out");
    }
    if let (Some((key, _)), Some(tcp)) = (said(Setting::UnixSocket), &probe.tcp_socket) {
        if tcp.host.as_deref().is_some_and(|host| !host.is_empty()) {
            wrong(key, "tcpSocket.host has no effect on a Unix socket: leave one of them out");
        }
        if let Some((key, _)) = said(Setting::TcpClose) {
            wrong(key, "a Unix socket knows no reset: leave it out");
        }
    }
}

/// Writes what annotations say into a probe.
pub fn apply(
    annotations: &Annotations,
    container: &str,
    kind: ProbeKind,
    probe: &mut ProbeSpec,
    context: &mut Context<'_>,
) {
    let said = |setting| said(annotations, container, kind, setting).map(|(_, value)| value);
    let number = |setting| milliseconds(annotations, container, kind, setting);
    probe.period = number(Setting::PeriodMs).unwrap_or(probe.period);
    probe.timeout = number(Setting::TimeoutMs).unwrap_or(probe.timeout);
    probe.resets_on_restart = said(Setting::ResetOnRestart).and_then(parse_bool).unwrap_or_default();
    probe.errored_runs = said(Setting::ErroredRuns).and_then(ErroredRuns::parse).unwrap_or_default();
    let unix_socket = said(Setting::UnixSocket).map(|value| Arc::from(path_of(value, context.folder)));
    match &mut probe.handler {
        Handler::Exec(_) | Handler::Grpc(_) => {}
        Handler::TcpSocket(tcp) => {
            tcp.unix_socket = unix_socket;
            tcp.close = said(Setting::TcpClose).and_then(TcpClose::parse).unwrap_or_default();
        }
        Handler::HttpGet(http) => {
            http.unix_socket = unix_socket;
            http.keep_alive = said(Setting::KeepAlive).and_then(parse_bool).unwrap_or_default();
            http.broken_body = said(Setting::BrokenBody).and_then(BrokenBody::parse).unwrap_or_default();
            http.redirects = said(Setting::Redirects).and_then(Redirects::parse).unwrap_or_default();
            let Some(tls) = &mut http.tls else { return };
            tls.server_name = said(Setting::TlsServerName).map(Into::into);
            let authority = said(Setting::TlsCa).map(|value| path_of(value, context.folder));
            if let Some(Ok(config)) = authority.map(|path| context.authorities.of(&path)) {
                tls.config = config;
            }
        }
    }
}

fn said<'a>(
    annotations: &'a Annotations,
    container: &str,
    kind: ProbeKind,
    setting: Setting,
) -> Option<(&'a str, &'a str)> {
    effective(annotations, container, &format!("{}.{}", word(kind), setting.as_str()))
}

fn milliseconds(
    annotations: &Annotations,
    container: &str,
    kind: ProbeKind,
    setting: Setting,
) -> Option<Duration> {
    let (_, value) = said(annotations, container, kind, setting)?;
    parse_ms(value).ok().map(Duration::from_millis)
}

fn parse_ms(value: &str) -> Result<u64, String> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| is_number && (1..=PROBE_MS_MAX).contains(number));
    number.ok_or_else(|| {
        format!("must be a whole number of milliseconds between 1 and {PROBE_MS_MAX}, inclusive")
    })
}

fn one_of(value: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&value) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
    Err(format!("supported values: {}", known.join(", ")))
}

fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// As a container's working directory is resolved (design 9.2).
fn path_of(value: &str, folder: &Path) -> PathBuf {
    folder.join(value)
}

fn probe_of(container: &k8s::Container, kind: ProbeKind) -> Option<&k8s::Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
    }
}

const fn field(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startupProbe",
        ProbeKind::Readiness => "readinessProbe",
        ProbeKind::Liveness => "livenessProbe",
    }
}

pub(super) const fn word(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startup",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Liveness => "liveness",
    }
}
