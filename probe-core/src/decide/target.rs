//! Where a probe goes: port, host, URL and the request bytes (kubelet-semantics 3, 4.1), and where a redirect
//! leads it (4.3).

use std::net::{IpAddr, SocketAddr};

use crate::model::pod::ContainerSpec;
use crate::model::probe::{
    Dropped, GrpcTarget, Handler, Host, HttpGetAction, HttpSpecial, HttpTarget, PortRef, Target,
    TcpSocketAction, TcpTarget,
};
use crate::model::tls::TlsTarget;
use crate::wire::headers::{self, BadHeader};
use crate::wire::http1::quote::quote;
use crate::wire::http1::{headers_of, request};
use crate::wire::tls;
use crate::wire::url::{self, Hop, Redirect, Scheme, Url, UrlError};

/// Why a target cannot be resolved, in kubelet's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    #[error("strconv.Atoi: parsing \"{text}\": {problem}")]
    NotANumber { text: Box<str>, problem: &'static str },
    #[error("invalid port number: {0}")]
    InvalidPort(i64),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(transparent)]
    Header(#[from] BadHeader),
}

/// Who asks for an HTTP GET.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    Probe,
    /// A lifecycle hook: another user agent, and a port text that cannot be resolved means port 80.
    Hook,
}

/// Where the redirect of a run leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Follow {
    Next(Box<HttpTarget>),
    /// The 3xx answer itself is the result (Warning).
    NotFollowed,
    /// The run fails with this text.
    Failed(Box<str>),
}

/// The target of a probe. What cannot be resolved is [`Target::Broken`]: every run of it errs.
pub fn resolve(handler: &Handler, container: &ContainerSpec, pod_ip: IpAddr) -> Target {
    let resolved = match handler {
        Handler::Exec(_) => Ok(Target::Exec),
        Handler::HttpGet(action) => http(action, container, pod_ip, Purpose::Probe).map(Target::Http),
        Handler::TcpSocket(action) => tcp(action, container, pod_ip).map(Target::Tcp),
        Handler::Grpc(action) => Ok(Target::Grpc(GrpcTarget {
            addr: SocketAddr::new(pod_ip, action.port),
            service: action.service.clone(),
        })),
    };
    resolved.unwrap_or_else(|error| Target::Broken { error: error.to_string().into() })
}

fn tcp(
    action: &TcpSocketAction,
    container: &ContainerSpec,
    pod_ip: IpAddr,
) -> Result<TcpTarget, TargetError> {
    let port = resolve_port(&action.port, container)?;
    let host = match &action.unix_socket {
        Some(path) => Host::Unix(path.clone()),
        None => host(action.host.as_deref(), pod_ip),
    };
    Ok(TcpTarget { host, port, close: action.close })
}

/// The target of an HTTP GET by a probe or a hook.
///
/// # Errors
/// The port is unknown or out of range, the host or a header value is not valid.
pub fn http(
    action: &HttpGetAction,
    container: &ContainerSpec,
    pod_ip: IpAddr,
    purpose: Purpose,
) -> Result<HttpTarget, TargetError> {
    let scheme = if action.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let (agent, port) = match (purpose, resolve_port(&action.port, container)) {
        (Purpose::Probe, port) => (headers::AGENT_PROBE, port?),
        (Purpose::Hook, Err(TargetError::NotANumber { .. })) => (headers::AGENT_HOOK, scheme.port()),
        (Purpose::Hook, port) => (headers::AGENT_HOOK, port?),
    };
    let host_name = match &action.host {
        Some(host) if !host.is_empty() => host.to_string(),
        Some(_) | None => pod_ip.to_string(),
    };
    let url = Url::for_probe(scheme, &host_name, port, &action.path)?;
    let mut given = action.headers.clone();
    // A user in what the manifest has as a path.
    let login_instead_of = url.basic_auth().and_then(|login| headers::log_in(&mut given, &login));
    let lines = headers::request_headers(&given, url.authority(), agent)?;
    let target = url.request_target();
    let tls = action.tls.as_ref().map(|tls| TlsTarget {
        config: tls.config.clone(),
        server_name: tls::server_name(tls.server_name.as_deref().unwrap_or(url.host_name())),
    });
    let keep_alive_request = action.keep_alive.then(|| request(&target, headers::without_close(&lines)));
    Ok(HttpTarget {
        host: match &action.unix_socket {
            Some(path) => Host::Unix(path.clone()),
            None => url::host_of(url.host_name()),
        },
        port,
        request: request(&target, &lines),
        url: url.text().into(),
        special: special(HttpSpecial {
            falls_back_to_http: tls.is_some() && purpose == Purpose::Hook,
            tls,
            keep_alive_request,
            redirects: action.redirects,
            broken_body: action.broken_body,
            login_instead_of,
            dropped: Dropped::default(),
        }),
    })
}

/// None when there is nothing special: most targets have no need of the memory.
fn special(special: HttpSpecial) -> Option<Box<HttpSpecial>> {
    (special != HttpSpecial::default()).then(|| Box::new(special))
}

/// The next request of a run whose request `current` was answered with `status` and a redirect to `location`; `first` is
/// the run's first request, and `requests` were made.
pub fn follow(
    first: &HttpTarget,
    current: &HttpTarget,
    status: u16,
    location: &[u8],
    requests: u32,
) -> Follow {
    let hop = match url::redirect(&current.url, location, first.redirects(), requests) {
        Redirect::Follow(hop) => hop,
        Redirect::NotFollowed => return Follow::NotFollowed,
        Redirect::Failed { url, error } => {
            return Follow::Failed(format!("Get {}: {error}", quote(&url)).into());
        }
    };
    let (first_url, url) = (Url::parse(&first.url), Url::parse(&current.url));
    let name_of = |url: &Result<Url, UrlError>| url.as_ref().map_or("", Url::host_name).to_owned();
    let (given, asked) = (given_headers(first), headers_of(&current.request));
    let before = current.special.as_ref().map_or(Dropped::default(), |special| special.dropped);
    let dropped = headers::dropped(before, &name_of(&first_url), &hop.name, status);
    let lines = headers::redirected(&headers::Redirected {
        first: &given,
        dropped,
        current: &asked,
        current_authority: url.as_ref().map_or("", Url::authority),
        hop: &hop,
    });
    let tls = hop_tls(first, &name_of(&first_url), &hop);
    Follow::Next(Box::new(HttpTarget {
        request: request(&hop.request_target, &lines),
        // A Unix socket has no other ports.
        host: if matches!(first.host, Host::Unix(_)) { first.host.clone() } else { hop.host },
        port: hop.port,
        url: hop.url,
        special: special(HttpSpecial { tls, dropped, ..HttpSpecial::default() }),
    }))
}

/// The lines of a run's first request as later ones take them over: a login that its URL names was for that URL.
fn given_headers(first: &HttpTarget) -> Vec<headers::Header> {
    let mut lines = headers_of(&first.request);
    let replaced = first.special.as_ref().and_then(|special| special.login_instead_of.as_ref());
    if let Some(replaced) = replaced {
        lines.retain(|(name, _)| &**name != "Authorization");
        // In front: the last line is the client's own.
        lines.splice(0..0, replaced.iter().map(|value| ("Authorization".into(), value.clone())));
    }
    lines
}

/// What a hook asks a server that has answered TLS with plain HTTP: the same without TLS, and without credentials.
/// None: a probe, which fails.
pub fn without_tls(target: &HttpTarget) -> Option<Box<HttpTarget>> {
    target.special.as_ref().filter(|special| special.falls_back_to_http)?;
    let url = Url::parse(&target.url).ok()?;
    let lines: Vec<_> =
        headers_of(&target.request).into_iter().filter(|(name, _)| &**name != "Authorization").collect();
    Some(Box::new(HttpTarget {
        host: target.host.clone(),
        port: target.port,
        request: request(&url.request_target(), &lines),
        url: target.url.replacen(Scheme::Https.as_str(), Scheme::Http.as_str(), 1).into(),
        // A redirect takes its lines from the first request, which had them.
        special: special(HttpSpecial {
            dropped: Dropped { authorization: true, ..Dropped::default() },
            ..HttpSpecial::default()
        }),
    }))
}

/// A hop to https is looked at as the probe looks at its own server; one that came from http accepts any certificate,
/// as kubelet does.
fn hop_tls(first: &HttpTarget, first_name: &str, hop: &Hop) -> Option<TlsTarget> {
    if hop.scheme == Scheme::Http {
        return None;
    }
    let config = first.tls().map_or_else(tls::any_certificate, |tls| tls.config.clone());
    // A name that the manifest gives is the probed host's.
    let given = first.tls().filter(|_| *hop.name == *first_name);
    let server_name = given.map_or_else(|| tls::server_name(&hop.name), |tls| tls.server_name.clone());
    Some(TlsTarget { config, server_name })
}

/// An int-or-string port: a number as it is, a name by the container's own ports, else a number in text.
///
/// # Errors
/// Neither a known name nor a number, or out of 1..=65535.
pub fn resolve_port(port: &PortRef, container: &ContainerSpec) -> Result<u16, TargetError> {
    let number = match port {
        PortRef::Number(number) => i64::from(*number),
        PortRef::Name(name) => match container.ports.iter().find(|port| port.name.as_ref() == Some(name)) {
            Some(port) => i64::from(port.container_port),
            None => atoi(name)?,
        },
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(TargetError::InvalidPort(number)),
    }
}

/// Go's strconv.Atoi with its errors.
fn atoi(text: &str) -> Result<i64, TargetError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let error = |problem| TargetError::NotANumber { text: text.into(), problem };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error("invalid syntax"));
    }
    text.parse().map_err(|_| error("value out of range"))
}

fn host(given: Option<&str>, pod_ip: IpAddr) -> Host {
    match given {
        Some(host) if !host.is_empty() => url::host_of(host),
        Some(_) | None => Host::Ip(pod_ip),
    }
}
