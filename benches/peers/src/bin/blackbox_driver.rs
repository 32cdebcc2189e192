//! Has blackbox_exporter probe every target at its pace, as Prometheus would: one scrape per probe, on kept
//! connections. It runs beside the server; only the exporter is measured.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use peers::{Answer, Load, Verdict, run_all};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

#[derive(Parser)]
struct Cli {
    /// Where the exporter listens
    #[arg(long)]
    exporter: SocketAddr,
    #[command(flatten)]
    load: Load,
}

/// Connections to the exporter that nobody uses at the moment.
type Idle = Rc<RefCell<Vec<SendRequest<Empty<Bytes>>>>>;

fn main() -> Result<()> {
    let Cli { exporter, load } = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let tasks = LocalSet::new();
    let idle = Idle::default();
    let probe = move |target| {
        let idle = Rc::clone(&idle);
        async move {
            match scrape(exporter, load, target, &idle).await {
                Ok(text) => judge(&text),
                Err(error) => Verdict::Failure(format!("{error:#}")).into(),
            }
        }
    };
    let report = tasks.block_on(&runtime, run_all(load, probe))?;
    report.print()
}

async fn scrape(exporter: SocketAddr, load: Load, target: u32, idle: &Idle) -> Result<String> {
    let kept = idle.borrow_mut().pop().filter(|sender| !sender.is_closed());
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(exporter).await.context("the exporter")?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(connection);
            sender
        }
    };
    let address = load.address(target);
    let request = Request::get(format!("/probe?module=http_200&target=http://{address}/t/{target}"))
        .header("Host", exporter.to_string())
        .body(Empty::new())?;
    let answer = sender.send_request(request).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    if sender.ready().await.is_ok() {
        idle.borrow_mut().push(sender);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The exporter's metrics say how it went and how long it took.
fn judge(metrics: &str) -> Answer {
    let value = |name: &str| -> Option<f64> {
        metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    };
    let took = value("probe_duration_seconds").and_then(|s| Duration::try_from_secs_f64(s).ok());
    let verdict = match (value("probe_success"), value("probe_http_status_code")) {
        (Some(1.0), _) => Verdict::Success,
        (_, Some(503.0)) => Verdict::Scripted,
        (_, status) => Verdict::Failure(format!("probe_success 0, status {status:?}")),
    };
    Answer { verdict, took }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_become_a_verdict() {
        let check = |text, verdict, took_ms: Option<u64>| {
            assert_eq!(judge(text), Answer { verdict, took: took_ms.map(Duration::from_millis) });
        };
        let good = "# TYPE probe_success gauge\nprobe_duration_seconds 0.005\nprobe_success 1\n";
        check(good, Verdict::Success, Some(5));
        check("probe_success 0\nprobe_http_status_code 503\n", Verdict::Scripted, None);
        let broken = Verdict::Failure("probe_success 0, status Some(0.0)".to_owned());
        check("probe_success 0\nprobe_http_status_code 0\n", broken, None);
    }
}
