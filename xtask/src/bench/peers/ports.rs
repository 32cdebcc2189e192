//! `cargo xtask bench ports`: 20,000 probes a second for ten minutes leave no sockets of ours in TIME_WAIT.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::contestants::{self, Arena, Contestant, PORT, Running};
use super::loads::{self, Load};
use super::{SETTLE, score, stay_on};
use crate::bench::report::{Bound, Report};
use crate::clock::{Stopwatch, pause};
use crate::repo::Repo;

/// The promise.
const TIME_WAIT_BELOW: f64 = 100.0;
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// State of a socket in /proc/net/tcp (include/net/tcp_states.h).
const TIME_WAIT: &str = "06";

#[derive(Args)]
pub struct PortsArgs {
    /// How long to probe
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// CPU of defib, and that of the server
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    #[arg(long, default_value_t = 1)]
    server_cpu: usize,
}

pub fn run(repo: &Repo, args: &PortsArgs) -> Result<()> {
    let load = *loads::ALL.iter().find(|load| load.name == loads::HTTP_20K).context("the load")?;
    let built = contestants::build(repo, &[Contestant::Defib])?;
    stay_on(args.server_cpu)?;
    let arena = Arena::new(&load, args.server_cpu)?;
    let mut running = Running::start(Contestant::Defib, &built, &arena, (args.cpu, args.server_cpu), &load)?;
    running.measure(&load)?;
    let watch = Stopwatch::start();
    let mut most = 0;
    while watch.elapsed() < Duration::from_secs(args.seconds) {
        pause(LOOK_EVERY.min(Duration::from_secs(args.seconds)));
        most = most.max(ours_in_time_wait(running.pid())?);
    }
    pause(SETTLE);
    let seconds = watch.elapsed().as_secs_f64();
    let told = running.stop()?;
    report(&arena, &load, seconds, most, &told)
}

fn report(arena: &Arena, load: &Load, seconds: f64, most: usize, told: &score::Told) -> Result<()> {
    let counts = arena.server.counts();
    let requests = counts.accepted.load(std::sync::atomic::Ordering::Relaxed) as f64;
    ensure!(requests > 0.0, "no probe reached the server");
    let mut report = Report::new("ports");
    report.add("window", seconds, "s", Bound::None);
    report.add("offered rate", load.rate_per_s(), "1/s", Bound::None);
    report.add("probes served", requests, "", Bound::None);
    report.add("false failures", told.other_failures as f64, "", Bound::Exactly(0.0));
    report.add("most sockets in TIME_WAIT", most as f64, "", Bound::Below(TIME_WAIT_BELOW));
    report.finish(None)
}

/// Sockets in TIME_WAIT on a port of ours towards the server, in the namespace of this process.
fn ours_in_time_wait(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/net/tcp");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.lines().filter(|line| is_ours(line)).count())
}

/// A line is: number, local address, remote address, state, …; addresses are `HEXIP:HEXPORT`.
fn is_ours(line: &str) -> bool {
    let mut fields = line.split_whitespace().skip(2);
    let remote_port = fields.next().and_then(|remote| remote.split_once(':')).map(|(_, port)| port);
    remote_port.and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(PORT)
        && fields.next() == Some(TIME_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_side_in_time_wait_counts() {
        let port = format!("{PORT:04X}");
        let check = |line: String, ours| assert_eq!(is_ours(&line), ours, "{line}");
        check(format!("   1: 0100007F:C350 0100007F:{port} 06 00000000:00000000 03"), true);
        check(format!("   1: 0100007F:C350 0100007F:{port} 01 00000000:00000000 00"), false);
        check(format!("   1: 0100007F:{port} 0100007F:C350 06 00000000:00000000 03"), false);
        check("  sl  local_address rem_address   st tx_queue rx_queue tr".to_owned(), false);
    }
}
