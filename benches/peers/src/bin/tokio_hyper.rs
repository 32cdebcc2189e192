//! A prober as most would write it in Rust today: tokio on one thread, and hyper for HTTP.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use peers::{Answer, Kind, Load, Verdict, run_all};
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

fn main() -> Result<()> {
    let load = Load::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let tasks = LocalSet::new();
    let report = tasks.block_on(&runtime, run_all(load, move |target| probe(load, target)))?;
    report.print()
}

async fn probe(load: Load, target: u32) -> Answer {
    let stream = match TcpStream::connect(load.address(target)).await {
        Ok(stream) => stream,
        Err(error) => return Verdict::of_connect(&error).into(),
    };
    match load.kind {
        // A reset, as HAProxy ends its checks: no socket in TIME_WAIT is left.
        Kind::Tcp => match set_socket_linger(&stream, Some(Duration::ZERO)) {
            Ok(()) => Verdict::Success.into(),
            Err(error) => Verdict::Failure(error.to_string()).into(),
        },
        Kind::Http => match status(load, target, stream).await {
            Ok(status) => Verdict::of_status(status).into(),
            Err(error) => Verdict::Failure(error.to_string()).into(),
        },
    }
}

async fn status(load: Load, target: u32, stream: TcpStream) -> Result<u16> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(format!("/t/{target}"))
        .header("Host", load.address(target).to_string())
        .header("User-Agent", "kube-probe/1.34")
        .header("Accept", "*/*")
        .header("Connection", "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        Ok::<u16, hyper::Error>(status)
    };
    let (status, _) = tokio::join!(exchange, connection);
    Ok(status?)
}
