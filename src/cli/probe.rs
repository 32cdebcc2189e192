//! `defib probe`: one probe of a running container, or of any address, now.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use probe_core::engine;
use probe_core::model::probe::{GrpcTarget, Host, HttpSpecial, HttpTarget, Target, TcpClose, TcpTarget};
use probe_core::model::tls::TlsTarget;
use probe_core::sys::clock;
use probe_core::wire::http1::request;
use probe_core::wire::url::Scheme;
use probe_core::wire::{headers, tls, url};
use serde_json::Value;

use super::args::{EngineKind, ProbeArgs, ProbeForm, ProbeWord};
use super::bench::InvalidInput;
use super::resource::UsageError;
use super::{exit, output, print, resource};
use crate::api::result_json;
use crate::client::{self, Patience};
use crate::grpc;
use crate::rings::Rings;

/// How long a probe of an address may take when nothing else is said: as kubelet's timeoutSeconds.
const PROBE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Prints each phase with its time, then the verdict; the exit code is 0 for a success.
///
/// # Errors
/// The address is none, an argument has no effect, the kernel refuses a ring, or the agent does not answer.
pub fn run(args: &ProbeArgs) -> anyhow::Result<u8> {
    let target = target_of(&args.target)?;
    refuse_idle(args, target.is_some())?;
    let timeout = args.timeout.unwrap_or(PROBE_TIMEOUT_DEFAULT);
    let result = match target {
        Some(Target::Grpc(target)) => result_json(&grpc::once(&target, timeout)?),
        Some(target) => {
            let target = Arc::new(target);
            let mut rings = Rings::new(args.engine.unwrap_or(EngineKind::Auto), |text: &str| {
                eprintln!("warning: {text}")
            });
            let result = rings.with(|ring| engine::once(ring, target.clone(), timeout, clock::now))?;
            result_json(&result)
        }
        None => of_pod(args)?,
    };
    let text = match args.output {
        None => print::probe::result(&result),
        Some(ProbeForm::Json) => output::json(&result)?,
        Some(ProbeForm::Yaml) => output::yaml(&result)?,
    };
    output::write(text.as_bytes())?;
    Ok(if print::probe::is_success(&result) { exit::OK } else { exit::FAILED })
}

/// What was typed and has no effect shall not look as if it had one.
fn refuse_idle(args: &ProbeArgs, is_address: bool) -> Result<(), InvalidInput> {
    let target = &args.target;
    let idle = match (is_address, &args.container) {
        (true, Some(container)) => {
            format!(
                "{container:?} has no effect: {target} is an address, which has no containers: leave it out"
            )
        }
        (false, _) if args.timeout.is_some() => {
            format!("--timeout has no effect on a probe of pod {target}, which has its own: leave it out")
        }
        (false, _) if args.engine.is_some() => {
            format!("--engine has no effect on a probe of pod {target}: the agent runs it: leave it out")
        }
        (true, None) | (false, _) => return Ok(()),
    };
    Err(InvalidInput(idle))
}

/// Asks the agent to run one of the container's own probes.
fn of_pod(args: &ProbeArgs) -> anyhow::Result<Value> {
    let pod = resource::pod_name(&args.target)?;
    // No pod has a name like this.
    if pod.contains(':') {
        let text = format!("error: {pod}: an address starts with http://, https://, tcp:// or grpc://");
        return Err(UsageError(text).into());
    }
    let word = match args.kind {
        None | Some(ProbeWord::Liveness) => "liveness",
        Some(ProbeWord::Readiness) => "readiness",
        Some(ProbeWord::Startup) => "startup",
    };
    let query = client::query(&[("container", args.container.clone()), ("probe", Some(word.to_owned()))]);
    let path = format!(
        "/apis/defib.dev/v1/namespaces/{}/pods/{}/probe{query}",
        client::escaped(&args.client.namespace),
        client::escaped(pod)
    );
    let client = output::client(&args.client)?;
    client::block_on(async {
        let mut answer = client.send(Method::POST, &path, None, Patience::AsLongAsItTakes).await?;
        Ok(answer["result"].take())
    })
}

/// The target of an address; None for the name of a pod.
pub(super) fn target_of(text: &str) -> anyhow::Result<Option<Target>> {
    let Some((scheme, _)) = text.split_once("://") else { return Ok(None) };
    if scheme == "unix" {
        let cure = "probe the pod whose annotation unix-socket names it: docs/annotations.md";
        return Err(UsageError(format!("error: {text}: a socket has no address here: {cure}")).into());
    }
    let parsed = url::Url::parse(text).map_err(|error| UsageError(format!("error: {error}")))?;
    let host = parsed.host_name();
    if host.is_empty() {
        return Err(UsageError(format!("error: {text}: an address needs a host")).into());
    }
    let port = port_of(parsed.authority()).with_context(|| text.to_owned())?;
    let target = match (scheme, Scheme::parse(scheme), port) {
        (_, Some(scheme), port) => Target::Http(http(scheme, host, port, &parsed.request_target())?),
        ("tcp", _, Some(port)) => {
            Target::Tcp(TcpTarget { host: url::host_of(host), port, close: TcpClose::Reset })
        }
        ("grpc", _, Some(port)) => Target::Grpc(grpc_target(text, host, port, &parsed.request_target())?),
        ("grpc", _, None) => return Err(UsageError(format!("error: {text}: grpc needs a port")).into()),
        ("tcp", _, None) => return Err(UsageError(format!("error: {text}: tcp needs a port")).into()),
        _ => {
            let text = format!("error: {text}: an address starts with http://, https://, tcp:// or grpc://");
            return Err(UsageError(text).into());
        }
    };
    Ok(Some(target))
}

fn http(scheme: Scheme, host: &str, port: Option<u16>, path: &str) -> anyhow::Result<HttpTarget> {
    let port = port.unwrap_or(scheme.port());
    let url = url::Url::for_probe(scheme, host, port, path)?;
    let lines = headers::request_headers(&[], url.authority(), headers::AGENT_PROBE)?;
    let tls = TlsTarget { config: tls::any_certificate(), server_name: tls::server_name(host) };
    let special = HttpSpecial { tls: Some(tls), ..HttpSpecial::default() };
    Ok(HttpTarget {
        host: url::host_of(host),
        port,
        request: request(&url.request_target(), &lines),
        url: url.text().into(),
        special: (scheme == Scheme::Https).then(|| Box::new(special)),
    })
}

/// The path, if there is one, names the service. The name of the host is looked up before the probe begins.
fn grpc_target(text: &str, host: &str, port: u16, path: &str) -> anyhow::Result<GrpcTarget> {
    let ip = match url::host_of(host) {
        Host::Ip(ip) => ip,
        Host::Name(_) | Host::Unix(_) => {
            engine::resolve(host).map_err(|error| UsageError(format!("error: {text}: {error}")))?
        }
    };
    Ok(GrpcTarget { addr: SocketAddr::new(ip, port), service: path.trim_start_matches('/').into() })
}

/// The port of `host:port`, `[v6]:port` or `host`.
fn port_of(authority: &str) -> Result<Option<u16>, UsageError> {
    let after_host = match authority.rsplit_once(']') {
        Some((_, rest)) => rest.strip_prefix(':'),
        None => authority.rsplit_once(':').map(|(_, port)| port),
    };
    match after_host {
        None | Some("") => Ok(None),
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => Err(UsageError(format!("error: {port:?} is not a port"))),
            Ok(port) => Ok(Some(port)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let http = |text: &str| match target_of(text) {
            Ok(Some(Target::Http(target))) => {
                let head = String::from_utf8(target.request.to_vec()).unwrap();
                format!("{} {} {:?}", target.port, head.lines().next().unwrap(), target.host)
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(http("http://127.0.0.1:8080/ready?x=1"), "8080 GET /ready?x=1 HTTP/1.1 Ip(127.0.0.1)");
        assert_eq!(http("http://localhost"), "80 GET / HTTP/1.1 Name(\"localhost\")");
        assert_eq!(http("http://[::1]:9/"), "9 GET / HTTP/1.1 Ip(::1)");
        let Ok(Some(Target::Tcp(tcp))) = target_of("tcp://10.0.0.1:22") else { panic!("no target") };
        assert_eq!((tcp.host, tcp.port), (Host::Ip([10, 0, 0, 1].into()), 22));
        let Ok(Some(Target::Grpc(grpc))) = target_of("grpc://[::1]:5000/my.Service") else {
            panic!("no target")
        };
        assert_eq!((grpc.addr.to_string().as_str(), &*grpc.service), ("[::1]:5000", "my.Service"));
        let Ok(Some(Target::Grpc(grpc))) = target_of("grpc://127.0.0.1:5000") else { panic!("no target") };
        assert_eq!(&*grpc.service, "");
        assert!(matches!(target_of("my-pod"), Ok(None)));
        assert_eq!(http("https://h/x"), "443 GET /x HTTP/1.1 Name(\"h\")");
        for bad in
            ["tcp://h", "ftp://h/", "http:///x", "http://h:0/", "http://h:x/", "tcp://h:70000", "grpc://h"]
        {
            assert!(target_of(bad).is_err(), "{bad}");
        }
    }
}
