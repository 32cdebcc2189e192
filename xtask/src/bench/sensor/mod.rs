//! `cargo xtask bench sensor`: how long after its end a process is decided about and replaced, by the kernel's
//! programs, by pidfds and by a look every second; what the programs cost, and when they lose something.

mod agent;
mod fixture;
mod load;
mod programs;
mod relist;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use self::agent::Restarts;
use self::fixture::Fixture;
use self::load::Dice;
use self::programs::Place;
use self::rows::Row;
use super::report::{Bound, Report};
use crate::repo::{Repo, run as run_command};

/// Bounds of the promise, which is made for so many containers.
const PROMISED_CONTAINERS: usize = 1_000;
const DECISION_MAX_US: f64 = 1_000.0;
const NEW_PROCESS_MAX_US: f64 = 5_000.0;
const UNREGISTERED_MAX_US: f64 = 1.0;

/// Containers of the flood, and what each of them makes: many times what the ring buffer holds.
const FLOOD_CONTAINERS: usize = 4;
const FLOOD_ENDS_EACH: u64 = 100_000;

const DECISION: &str = "exit_to_decision";
const NEW_PROCESS: &str = "exit_to_new_process";

#[derive(Args)]
pub struct SensorArgs {
    /// Containers, of which each is restarted once in a round
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=4_000))]
    containers: u16,
    /// Fresh runs of each source, whose samples are put together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Order and pace of the ends
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Builds defib, measures each source, prints the rows; a missed bound is an error.
pub fn run(repo: &Repo, args: &SensorArgs) -> Result<()> {
    run_command(repo.cargo().args(["build", "--release", "--quiet", "--bin", "defib"]))?;
    let binary = repo.path("target/release/defib");
    let fixture = Fixture::compile()?;
    let containers = usize::from(args.containers);
    let load = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    println!("bench sensor: {containers} containers; load before: {}", load.trim());

    let mut rows = programs(&fixture, containers)?;
    rows.push(flood(&binary, &fixture)?);
    for source in ["ebpf", "pidfd"] {
        rows.extend(restarts(&binary, &fixture, source, args)?);
    }
    rows.extend(relist(&fixture, args)?);

    print!("{}", rows::table(&rows));
    if let Some(path) = &args.json {
        rows::write(&rows, path)?;
    }
    promises(&rows, containers).finish(None)
}

fn programs(fixture: &Fixture, containers: usize) -> Result<Vec<Row>> {
    const SOURCE: &str = "ebpf";
    let place = Place::make()?;
    let mut rows = Vec::new();
    for count in [0, containers] {
        let cost = programs::unregistered(fixture, &place, count)?;
        rows.push(Row::of_mean(SOURCE, "program_unregistered_exit", count, cost.runs, cost.mean_us));
    }
    let cost = programs::registered(fixture, &place, containers)?;
    rows.push(Row::of_mean(SOURCE, "program_registered_exit", containers, cost.runs, cost.mean_us));
    let cost = programs::registered_unread(fixture, &place, containers)?;
    rows.push(Row::of_mean(SOURCE, "program_registered_unread", containers, cost.runs, cost.mean_us));
    let records = programs::records_until_loss(fixture, &place)?;
    rows.push(Row::of_value(SOURCE, "records_until_loss", 1, records, (records as f64, "records")));
    Ok(rows)
}

fn flood(binary: &Path, fixture: &Fixture) -> Result<Row> {
    let flood = agent::flood(binary, fixture, FLOOD_CONTAINERS, FLOOD_ENDS_EACH)?;
    let rate = flood.ends as f64 / flood.seconds;
    let (measure, verdict) = match flood.lost {
        0 => ("exits_per_s_without_loss", "no loss".to_owned()),
        lost => ("exits_per_s_with_loss", format!("{lost} records lost")),
    };
    println!(
        "bench sensor: {verdict} at {rate:.0} ends/s, which is all that {FLOOD_CONTAINERS} containers made"
    );
    Ok(Row::of_value("ebpf", measure, FLOOD_CONTAINERS, flood.ends, (rate, "exits/s")))
}

fn restarts(binary: &Path, fixture: &Fixture, source: &'static str, args: &SensorArgs) -> Result<Vec<Row>> {
    let containers = usize::from(args.containers);
    let mut dice = Dice::new(args.seed);
    let mut all = Restarts::default();
    for _ in 0..args.rounds {
        let round = agent::restarts(binary, fixture, source, containers, &mut dice)?;
        all = Restarts {
            to_decision_ns: [all.to_decision_ns, round.to_decision_ns].concat(),
            to_new_process_ns: [all.to_new_process_ns, round.to_new_process_ns].concat(),
            ..round
        };
    }
    let value = |measure, value| Row::of_value(source, measure, containers, 1, value);
    Ok(vec![
        Row::of_times(source, DECISION, containers, &all.to_decision_ns)?,
        Row::of_times(source, NEW_PROCESS, containers, &all.to_new_process_ns)?,
        value("agent_resident", (all.resident_bytes as f64 / 1e6, "MB")),
        value("agent_idle_cpu", (all.idle_cores * 1e3, "millicores")),
        value("agent_cpu_per_restart", (all.cpu_per_restart_s * 1e6, "us")),
    ])
}

fn relist(fixture: &Fixture, args: &SensorArgs) -> Result<[Row; 2]> {
    const SOURCE: &str = "relist";
    let containers = usize::from(args.containers);
    let mut dice = Dice::new(args.seed);
    let (mut decisions, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let round = relist::restarts(fixture, containers, &mut dice)?;
        decisions.extend(round.to_decision_ns);
        starts.extend(round.to_new_process_ns);
    }
    Ok([
        Row::of_times(SOURCE, DECISION, containers, &decisions)?,
        Row::of_times(SOURCE, NEW_PROCESS, containers, &starts)?,
    ])
}

fn promises(rows: &[Row], containers: usize) -> Report {
    let bound = |max| if containers <= PROMISED_CONTAINERS { Bound::AtMost(max) } else { Bound::None };
    let ebpf = |measure| {
        rows.iter()
            .find(move |row| (row.source, row.measure, row.containers) == ("ebpf", measure, containers))
    };
    let p99 = |measure| ebpf(measure).and_then(|row| row.p99_us).unwrap_or(f64::NAN);
    let unregistered = ebpf("program_unregistered_exit").and_then(|row| row.mean_us).unwrap_or(f64::NAN);
    let mut report = Report::new("sensor");
    report.add("exit to decision, p99", p99(DECISION), "us", bound(DECISION_MAX_US));
    report.add("exit to new process, p99", p99(NEW_PROCESS), "us", bound(NEW_PROCESS_MAX_US));
    report.add("unregistered exit", unregistered, "us", bound(UNREGISTERED_MAX_US));
    report
}
