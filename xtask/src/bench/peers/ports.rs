//! `cargo xtask bench ports`: 20,000 probes a second for ten minutes leave no sockets of ours in TIME_WAIT.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::contestants::{self, Arena, Contestant, PORT, Running};
use super::haproxy::Pace;
use super::loads::{self, Load};
use super::{Cpus, SETTLE, score};
use crate::bench::report::{Bound, Report};
use crate::clock::{Stopwatch, pause};
use crate::repo::Repo;

/// The promise.
const TIME_WAIT_BELOW: f64 = 100.0;
/// Of the offered rate. A run that was slower says nothing about it.
const RATE_SHARE_MIN: f64 = 0.995;
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A line is printed every so many looks: once a minute.
const LOOKS_PER_LINE: usize = 12;
/// State of a socket in /proc/net/tcp (include/net/tcp_states.h).
const TIME_WAIT: &str = "06";

#[derive(Args)]
pub struct PortsArgs {
    /// How long to probe
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    #[command(flatten)]
    cpus: Cpus,
}

pub fn run(repo: &Repo, args: &PortsArgs) -> Result<()> {
    let load = *loads::ALL.iter().find(|load| load.name == loads::HTTP_20K).context("the load")?;
    let built = contestants::build(repo, &[Contestant::Defib])?;
    let _moved = args.cpus.take()?;
    let arena = Arena::new(&load, args.cpus.server_cpu)?;
    let mut running = Running::start(Contestant::Defib, &built, &arena, args.cpus, &load, Pace::OFFERED)?;
    running.measure(&load)?;
    let seen = look_on(&running, &arena, Duration::from_secs(args.seconds))?;
    pause(SETTLE);
    let told = running.stop()?;
    report(&load, &seen, &told).finish(None)
}

/// What was seen from outside.
struct Seen {
    window: Duration,
    /// Connections that the server accepted in it.
    served: u64,
    /// Sockets in TIME_WAIT at each look.
    time_waits: Vec<usize>,
}

fn look_on(running: &Running, arena: &Arena, window: Duration) -> Result<Seen> {
    let accepted = || arena.server.counts().accepted.load(Ordering::Relaxed);
    let (watch, before) = (Stopwatch::start(), accepted());
    let mut time_waits = Vec::new();
    while watch.elapsed() < window {
        pause(LOOK_EVERY.min(window.saturating_sub(watch.elapsed())));
        time_waits.push(ours_in_time_wait(running.pid())?);
        if time_waits.len().is_multiple_of(LOOKS_PER_LINE) {
            let last = &time_waits[time_waits.len() - LOOKS_PER_LINE..];
            let (seconds, most) = (watch.elapsed().as_secs(), last.iter().max().copied().unwrap_or(0));
            println!(
                "bench ports: {seconds:>4} s: {} probes, at most {most} in TIME_WAIT",
                accepted() - before
            );
        }
    }
    // In this order, so that the rate is not made to look higher than it was.
    let served = accepted() - before;
    Ok(Seen { window: watch.elapsed(), served, time_waits })
}

fn report(load: &Load, seen: &Seen, told: &score::Told) -> Report {
    let mut report = Report::new("ports");
    let rate = seen.served as f64 / seen.window.as_secs_f64();
    let most = seen.time_waits.iter().max().copied().unwrap_or(0);
    report.add("window", seen.window.as_secs_f64(), "s", Bound::None);
    report.add("offered rate", load.rate_per_s(), "1/s", Bound::None);
    report.add("achieved rate", rate, "1/s", Bound::AtLeast(RATE_SHARE_MIN * load.rate_per_s()));
    report.add("probes served", seen.served as f64, "", Bound::None);
    // The script never begins here, so what looks scripted is false as well.
    let scripted: u64 = told.scripted.iter().map(|(_, count)| count).sum();
    report.add("false failures", (told.other_failures + scripted) as f64, "", Bound::Exactly(0.0));
    report.add("inconclusive", told.inconclusive as f64, "", Bound::Exactly(0.0));
    report.add("looks for TIME_WAIT", seen.time_waits.len() as f64, "", Bound::AtLeast(1.0));
    report.add("most sockets in TIME_WAIT", most as f64, "", Bound::Below(TIME_WAIT_BELOW));
    report
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
    fn a_run_counts_when_it_was_fast_enough_and_left_few_sockets() {
        let load = *loads::ALL.iter().find(|load| load.name == loads::HTTP_20K).unwrap();
        // (share of the offered rate, looks, false failures, whether it holds)
        let runs: [(f64, &[usize], u64, bool); 7] = [
            (1.0, &[0, 3, 0], 0, true),
            (0.996, &[0], 0, true),
            (0.994, &[0], 0, false),
            (0.0, &[0], 0, false),
            (1.0, &[0, 100, 0], 0, false),
            (1.0, &[0], 1, false),
            (1.0, &[], 0, false),
        ];
        for (share, time_waits, other_failures, holds) in runs {
            let window = Duration::from_secs(600);
            let served = (load.rate_per_s() * window.as_secs_f64() * share) as u64;
            let seen = Seen { window, served, time_waits: time_waits.to_vec() };
            let told = score::Told { other_failures, ..score::Told::default() };
            let done = report(&load, &seen, &told).finish(None);
            assert_eq!(done.is_ok(), holds, "{share} {time_waits:?} {other_failures}");
            for told in [
                score::Told { scripted: vec![(7, 1)], ..score::Told::default() },
                score::Told { inconclusive: 1, ..score::Told::default() },
            ] {
                assert!(report(&load, &seen, &told).finish(None).is_err(), "{told:?}");
            }
        }
    }

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
