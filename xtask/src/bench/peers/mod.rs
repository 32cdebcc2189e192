//! `cargo xtask bench peers`: defib beside other probers and beside the floor, in one run on the same machine.
//!
//! Contestants alternate inside each round, and figures are medians over the rounds. Everything of a contestant
//! runs on one CPU; the server and whatever drives a contestant run on another one.

mod blackbox;
mod contestants;
mod cpu;
mod daemons;
mod document;
mod haproxy;
pub mod hostile;
mod loads;
mod plot;
pub mod ports;
mod process;
mod promises;
mod resume;
mod rows;
mod score;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use rustix::thread::{CpuSet, sched_setaffinity};

use self::contestants::{Arena, Built, Contestant, Running};
use self::cpu::Core;
use self::daemons::Moved;
use self::document::About;
use self::haproxy::Pace;
use self::loads::{Kind, Load};
use self::resume::Origin;
use self::rows::Row;
use crate::clock::pause;
use crate::repo::Repo;

/// Before the script begins, so that every contestant counts by then; and after its end, so that what was served is
/// reported.
const SETTLE: Duration = Duration::from_millis(1_500);
/// Rows of the latest whole run that named no file; and of the latest part of one, or short one.
const LATEST: &str = "target/peers/rows.json";
const LATEST_PART: &str = "target/peers/part.json";
const PROMISES: &str = "docs/promises.md";
/// A window in which somebody else used the core is measured again, so often at most.
const AGAIN_MAX: u32 = 2;
/// One in which HAProxy met another rate.
const OFF_PACE_MAX: u32 = 5;

/// Where everything runs.
#[derive(Args, Copy, Clone, Debug)]
struct Cpus {
    /// CPU of the contestants, or of defib
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// CPU of the server and the drivers
    #[arg(long, default_value_t = 1)]
    server_cpu: usize,
}

impl Cpus {
    /// Takes the server's CPU: threads that are made from here on stay there too; contestants are given their own. The
    /// kernel's memory daemons are kept off that one until the end.
    fn take(self) -> Result<Moved> {
        ensure!(self.cpu != self.server_cpu, "--cpu and --server-cpu must differ");
        let mut only = CpuSet::new();
        only.set(self.server_cpu);
        sched_setaffinity(None, &only)
            .with_context(|| format!("pinning to CPU {}: two CPUs are needed", self.server_cpu))?;
        let moved =
            Moved::off(self.cpu).context("cannot start what brings the kernel's memory daemons back")?;
        println!("memory daemons of the kernel kept off CPU {}: {}", self.cpu, moved.count());
        Ok(moved)
    }
}

#[derive(Args)]
pub struct PeersArgs {
    /// Short windows and one round: shows that everything works, proves nothing
    #[arg(long)]
    quick: bool,
    /// Write the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure nothing: write the document anew from the rows of an earlier whole run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "load", "json"])]
    rows: Option<PathBuf>,
    /// Go on with the latest whole run, which was interrupted: only rounds that it lacks are measured
    #[arg(long, conflicts_with_all = ["quick", "only", "load", "rows"])]
    resume: bool,
    /// Install missing Debian packages first (as root)
    #[arg(long)]
    install: bool,
    /// Only these contestants
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Contestant>,
    /// Only these loads: http-5k, http-20k, http-100k, http-1k, tcp-5k
    #[arg(long, value_delimiter = ',', value_parser = known_load)]
    load: Vec<String>,
    /// Rounds, in which the contestants alternate
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    #[command(flatten)]
    cpus: Cpus,
}

#[derive(Args)]
pub struct CheckArgs {
    /// Rows of a run; without it those of the latest one
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn known_load(name: &str) -> Result<String, String> {
    match loads::ALL.iter().find(|load| load.name == name) {
        Some(_) => Ok(name.to_owned()),
        None => Err(format!("one of {}", loads::ALL.map(|load| load.name).join(", "))),
    }
}

pub fn run(repo: &Repo, args: &PeersArgs) -> Result<()> {
    let is_wanted = |contestant: &Contestant| args.only.is_empty() || args.only.contains(contestant);
    let wanted: Vec<Contestant> = Contestant::value_variants().iter().copied().filter(is_wanted).collect();
    let loads =
        loads::ALL.iter().filter(|load| args.load.is_empty() || args.load.iter().any(|l| l == load.name));
    if args.install {
        contestants::install(&wanted)?;
    }
    fs::create_dir_all(repo.path("target/peers")).context("cannot make target/peers")?;
    let built = contestants::build(repo, &wanted)?;
    let about = |rounds| About {
        command: "cargo xtask bench peers".to_owned(),
        rounds,
        versions: built.versions.clone(),
        contestants: wanted.iter().map(|contestant| contestant.name()).collect(),
    };
    if let Some(path) = &args.rows {
        let rows = rows::read(path)?;
        promises::is_whole(&rows)?;
        let rounds = rows.iter().map(|row| row.round).max().unwrap_or_default();
        return document::write(repo, &about(rounds), &rows);
    }
    let _moved = args.cpus.take()?;
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { promises::ROUNDS_MIN });
    // A part of the contest, or a short one, is no document, and promises are not judged by it.
    let is_whole = !args.quick && args.only.is_empty() && args.load.is_empty();
    let kept = repo.path(if is_whole { LATEST } else { LATEST_PART });
    let kept = args.json.as_ref().unwrap_or(&kept);
    let origin = Origin::here(repo)?;
    let mut rows = if args.resume {
        resume::kept(rows::read(kept)?, &origin, rounds, &wanted)
            .with_context(|| format!("the run in {} cannot go on", kept.display()))?
    } else {
        Vec::new()
    };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let run = rows.first().map_or(now, |row| row.run);
    for load in loads {
        let mut pace = Pace::OFFERED;
        for round in 1..=rounds {
            // Each starts a round in turn, so that none always follows the same one.
            let mut order = wanted.clone();
            order.rotate_left((round as usize - 1) % wanted.len());
            for contestant in order {
                let Some(as_met) = contestant.load(*load) else { continue };
                if rows.iter().any(|row| row.is_of(contestant.name(), load.name, round)) {
                    continue;
                }
                let row = measure_quietly(&built, args, contestant, &as_met, &mut pace, round)?;
                rows.push(Row { run, origin: origin.clone(), ..row });
                rows::write(&rows, kept)?;
            }
        }
    }
    if !is_whole {
        return Ok(());
    }
    document::write(repo, &about(rounds), &rows)
}

/// Compares a run with docs/promises.md; a promise that is not kept is an error with its name.
pub fn check(repo: &Repo, args: &CheckArgs) -> Result<()> {
    let document =
        fs::read_to_string(repo.path(PROMISES)).with_context(|| format!("cannot read {PROMISES}"))?;
    let kept = repo.path(LATEST);
    let rows = rows::read(args.json.as_ref().unwrap_or(&kept))?;
    promises::is_whole(&rows).context("`bench check` judges a whole run of `bench peers`")?;
    let verdicts = promises::judge(&promises::parse(&document)?, &rows);
    for verdict in &verdicts {
        println!("{verdict}");
    }
    let missed: Vec<&str> =
        verdicts.iter().filter(|verdict| !verdict.is_kept()).map(|verdict| verdict.name.as_str()).collect();
    ensure!(missed.is_empty(), "bench check: missed: {}", missed.join(", "));
    Ok(())
}

/// Measures again where somebody else used the core, as a virtual machine's neighbours do, and where HAProxy has yet
/// to find its pace.
fn measure_quietly(
    built: &Built,
    args: &PeersArgs,
    contestant: Contestant,
    load: &Load,
    pace: &mut Pace,
    round: u32,
) -> Result<Row> {
    let mut again = 0;
    loop {
        let row = measure(built, args, Match { contestant, load: *load, pace: *pace, round })?;
        println!("{}", line(&row));
        let is_off_pace = contestant == Contestant::Haproxy && row.is_off_rate();
        if contestant == Contestant::Haproxy && !row.is_disturbed() {
            pace.learn(row.achieved());
        }
        // What was lost in a disturbed window was lost.
        let is_final = !(row.is_disturbed() || is_off_pace) || row.has_losses();
        if is_final || again >= if is_off_pace { OFF_PACE_MAX } else { AGAIN_MAX } {
            return Ok(row);
        }
        if is_off_pace {
            println!("  {:.1} % of the offered rate: with another interval", row.achieved() * 100.0);
        } else {
            println!(
                "  the core was not quiet (busy before: {:.3}, taken: {:.3})",
                row.baseline_share, row.stolen_share
            );
        }
        again += 1;
    }
}

/// One contestant under one load.
#[derive(Copy, Clone)]
struct Match {
    contestant: Contestant,
    load: Load,
    pace: Pace,
    round: u32,
}

fn measure(built: &Built, args: &PeersArgs, of: Match) -> Result<Row> {
    let Match { contestant, load, pace, round } = of;
    let baseline_share = Core::baseline(args.cpus.cpu)?;
    let arena = Arena::new(&load, args.cpus.server_cpu)?;
    let counts = arena.server.counts();
    let made = |pid: u32| match load.kind {
        Kind::Http => Ok(counts.requests()),
        Kind::Tcp => connections_begun(pid),
    };
    let mut running = Running::start(contestant, built, &arena, args.cpus, &load, pace)
        .with_context(|| format!("{} under {}", contestant.name(), load.name))?;
    pause(load.warm_up());

    running.measure(&load)?;
    // The word is on its way through a busy core: what fails by script from here on has to be counted.
    pause(SETTLE);
    counts.take_waits();
    counts.healed.store(false, Ordering::Relaxed);
    let server_core = Core::watch(args.cpus.server_cpu)?;
    let (core, made_before) = (Core::watch(args.cpus.cpu)?, made(running.pid())?);
    let used_before = cpu::of_process(running.pid())?;
    pause(if args.quick { load.quick_window } else { load.window });
    let (busy, made_after) = (core.busy()?, made(running.pid())?);
    let used = cpu::of_process(running.pid())?;
    let server_busy = server_core.busy()?;
    counts.healed.store(true, Ordering::Relaxed);
    pause(SETTLE);

    let told = running.stop()?;
    let failed: Vec<u64> = counts.failed.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let score = match load.kind {
        Kind::Http => score::http(&failed, &told),
        Kind::Tcp => score::tcp(&contestants::refusing(&load), &told),
    };
    let response_error_p99_us =
        score::response_error_p99_us(&told.responses, &counts.take_waits(), load.period);
    arena.server.stop()?;
    if score.false_failures > 0 {
        let example = told.example.as_deref().unwrap_or("a failure that was not served");
        println!("  {} reported {} false failures: {example}", contestant.name(), score.false_failures);
    }

    let probes = (made_after - made_before) as f64;
    let lateness = |of: fn(&score::Percentiles) -> u64| told.lateness_us.as_ref().map(|all| of(all) as f64);
    Ok(Row {
        run: 0,
        origin: Origin::default(),
        contestant: contestant.name().to_owned(),
        load: load.name.to_owned(),
        round,
        offered_per_s: load.rate_per_s(),
        rate_per_s: probes / busy.wall_s,
        window_s: busy.wall_s,
        baseline_share,
        stolen_share: busy.stolen_s / busy.wall_s,
        server_share: server_busy.share(),
        cpu_us_per_probe: (busy.busy_s - baseline_share * busy.wall_s) * 1e6 / probes,
        process_cpu_us_per_probe: (used.cpu_s - used_before.cpu_s) * 1e6 / probes,
        false_failures: score.false_failures,
        scripted_failures: score.scripted,
        missed_failures: score.missed,
        inconclusive: told.inconclusive,
        lateness_p50_us: lateness(|all| all.p50),
        lateness_p99_us: lateness(|all| all.p99),
        lateness_p999_us: lateness(|all| all.p999),
        response_error_p99_us,
        rss_bytes: used.rss_bytes,
        bytes_per_target: told.state_bytes.unwrap_or(used.rss_bytes) as f64 / f64::from(load.targets),
    })
}

/// Connections that were begun in the namespace of this process. The server does not see all of them: a port may
/// refuse, and HAProxy resets a bare TCP check before the handshake is over.
fn connections_begun(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/net/snmp");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    active_opens(&text).with_context(|| format!("{path} has no ActiveOpens"))
}

/// Two lines begin with `Tcp:`: the names, and the values in the same order.
fn active_opens(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let place = lines.next()?.split(' ').position(|name| name == "ActiveOpens")?;
    lines.next()?.split(' ').nth(place)?.parse().ok()
}

/// One row for people, while the run goes on.
fn line(row: &Row) -> String {
    let told = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
    format!(
        "{:<10} {:<9} round {} {:>8.0}/s {:>6.1} us/probe (process {:>6.1}) false {} missed {}/{} inconclusive {} \
         late {}/{}/{} us error {} us {:.1} MB {:.0} B/target",
        row.contestant,
        row.load,
        row.round,
        row.rate_per_s,
        row.cpu_us_per_probe,
        row.process_cpu_us_per_probe,
        row.false_failures,
        row.missed_failures,
        row.scripted_failures,
        row.inconclusive,
        told(row.lateness_p50_us),
        told(row.lateness_p99_us),
        told(row.lateness_p999_us),
        told(row.response_error_p99_us),
        row.rss_bytes as f64 / 1e6,
        row.bytes_per_target,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begun_connections_are_found_by_name() {
        let text =
            "Ip: Forwarding\nIp: 1\nTcp: RtoMin MaxConn ActiveOpens\nTcp: 200 -1 77\nUdp: InDatagrams\n";
        assert_eq!(active_opens(text), Some(77));
        assert_eq!(active_opens("Tcp: RtoMin\nTcp: 200\n"), None);
    }
}
