//! A prober on tokio-uring's sockets: the same schedule as on tokio, the same bytes as defib.

use anyhow::Result;
use clap::Parser;
use peers::{Answer, Kind, Load, Verdict, run_all};
use tokio_uring::net::TcpStream;

/// Ring entries: more than runs that are in flight at once.
const ENTRIES: u32 = 4_096;
const ANSWER_BYTES: usize = 1_024;

fn main() -> Result<()> {
    let load = Load::parse();
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES);
    let report = builder.start(run_all(load, move |target| probe(load, target)))?;
    report.print()
}

async fn probe(load: Load, target: u32) -> Answer {
    let stream = match TcpStream::connect(load.address(target)).await {
        Ok(stream) => stream,
        Err(error) => return Verdict::of_connect(&error).into(),
    };
    match load.kind {
        Kind::Tcp => Verdict::Success.into(),
        Kind::Http => match status(load, target, &stream).await {
            Ok(status) => Verdict::of_status(status).into(),
            Err(error) => Verdict::Failure(error.to_string()).into(),
        },
    }
}

/// Reads until the server's end: it was asked to close.
async fn status(load: Load, target: u32, stream: &TcpStream) -> Result<u16> {
    let address = load.address(target);
    let request = format!(
        "GET /t/{target} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    let (sent, _) = stream.write_all(request.into_bytes()).await;
    sent?;
    let mut answer = Vec::new();
    let mut chunk = vec![0; ANSWER_BYTES];
    loop {
        let (read, buffer) = stream.read(chunk).await;
        let count = read?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..count]);
        anyhow::ensure!(answer.len() <= ANSWER_BYTES, "an answer of more than {ANSWER_BYTES} bytes");
        chunk = buffer;
    }
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    anyhow::ensure!(answer.starts_with(b"HTTP/1."), "no HTTP answer");
    Ok(status.unwrap_or_default().parse()?)
}
