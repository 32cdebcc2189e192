//! `cargo xtask bench hostile`: 20,000 targets at 20,000 probes a second, first all of them healthy, then one in a
//! hundred misbehaving in one of the ways of [`Ill`]. The two settings alternate, each in a namespace of its own; what
//! is compared is lateness and response time of healthy targets.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use test_support::server::{Counts, Delays, Ill, Plan};

use super::contestants::{self, Arena, Contestant, Running, SCRIPT};
use super::haproxy::Pace;
use super::loads::{self, Load};
use super::rows::{median, percentile};
use super::score::Told;
use super::{Cpus, SETTLE, rows};
use crate::bench::report::{Bound, Report};
use crate::clock::{Stopwatch, pause};
use crate::repo::Repo;

/// Of so many targets one misbehaves: the one after three quarters of them.
const ILL_EVERY: u32 = 100;
/// Of so many targets the probes of one are looked at singly; none of them ever misbehaves, and all answer at once.
const WATCHED: Delays = Delays { every: 20, lengths: &[] };
/// Below this share of the offered rate a run proves nothing. What never answers is probed once in two periods, which
/// are less than half a percent of the probes.
const RATE_LEAST: f64 = 0.99;
/// The promise: figures of healthy targets move by less than a tenth.
const RATIO_BELOW: f64 = 1.1;

#[derive(Args)]
pub struct HostileArgs {
    /// 5,000 targets, short windows, one round: shows that everything works, proves nothing about times
    #[arg(long)]
    quick: bool,
    /// Write the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds, in which the settings alternate
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    #[command(flatten)]
    cpus: Cpus,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Setting {
    Healthy,
    Hostile,
}

/// What a run has to hold.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Holds {
    Counts,
    CountsAndTimes,
}

/// One setting, once.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Row {
    setting: Setting,
    load: &'static str,
    /// Counted from 1.
    round: u32,
    offered_per_s: f64,
    rate_per_s: f64,
    window_s: f64,
    misbehaving: u64,
    /// Of those that misbehave.
    unreported: u64,
    /// Of healthy targets.
    false_failures: u64,
    inconclusive: u64,
    /// Probes of healthy targets that the times are of.
    probes: u64,
    lateness_p50_us: f64,
    lateness_p99_us: f64,
    response_p99_us: f64,
}

pub fn run(repo: &Repo, args: &HostileArgs) -> Result<()> {
    let name = if args.quick { loads::HTTP_5K } else { loads::HTTP_20K };
    let load = *loads::ALL.iter().find(|load| load.name == name).context("the load")?;
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    let built = contestants::build(repo, &[Contestant::Defib])?;
    let _moved = args.cpus.take()?;
    let mut all = Vec::new();
    for round in 1..=rounds {
        // Each begins a round in turn.
        let mut order = [Setting::Healthy, Setting::Hostile];
        order.rotate_left((round as usize - 1) % 2);
        for setting in order {
            let arena = arena(&load, args.cpus.server_cpu)?;
            let running = Running::start(Contestant::Defib, &built, &arena, args.cpus, &load, Pace::OFFERED)?;
            let window = if args.quick { load.quick_window } else { load.window };
            let row = measure(setting, running, &arena, &load, round, window)?;
            println!("{}", line(&row));
            all.push(row);
            arena.server.stop()?;
        }
    }
    if let Some(path) = &args.json {
        rows::write(&all, path)?;
    }
    report(&all, if args.quick { Holds::Counts } else { Holds::CountsAndTimes })?.finish(None)
}

fn arena(load: &Load, server_cpu: usize) -> Result<Arena> {
    Arena::of(Plan { targets: load.targets as usize, script: SCRIPT, delays: WATCHED }, server_cpu)
}

fn measure(
    setting: Setting,
    mut running: Running,
    arena: &Arena,
    load: &Load,
    round: u32,
    window: Duration,
) -> Result<Row> {
    let counts = arena.server.counts();
    pause(load.warm_up());
    let ill = match setting {
        Setting::Healthy => BTreeSet::new(),
        Setting::Hostile => fall_ill(load, counts),
    };
    // Each that misbehaves has been met, and its connections are there.
    pause(load.period + SETTLE);
    running.measure(load)?;
    let (watch, before) = (Stopwatch::start(), counts.requests());
    pause(window);
    let (window_s, made) = (watch.elapsed().as_secs_f64(), counts.requests() - before);
    // What errs is tried three times, each until its timeout: then it is reported.
    pause(loads::TIMEOUT * 3 + SETTLE);
    let told = running.stop()?;

    let times_us = |of: fn(&super::score::Response) -> i64, share| {
        percentile(told.responses.iter().map(|one| of(one) as f64 / 1_000.0).collect(), share)
            .context("no probe of a healthy target was told of")
    };
    Ok(Row {
        setting,
        load: load.name,
        round,
        offered_per_s: load.rate_per_s(),
        rate_per_s: made as f64 / window_s,
        window_s,
        misbehaving: ill.len() as u64,
        unreported: unreported(&ill, &told),
        false_failures: false_failures(&ill, &told),
        inconclusive: told.inconclusive,
        probes: told.responses.len() as u64,
        lateness_p50_us: times_us(|one| one.late_ns, 0.5)?,
        lateness_p99_us: times_us(|one| one.late_ns, 0.99)?,
        response_p99_us: times_us(|one| one.took_ns, 0.99)?,
    })
}

/// One in a hundred begins to misbehave, each way in turn.
fn fall_ill(load: &Load, counts: &Counts) -> BTreeSet<u32> {
    let ill = ill_targets(load);
    for (target, way) in ill.iter().zip(Ill::ALL.iter().cycle()) {
        counts.set_ill(*target as usize, Some(*way));
    }
    ill
}

fn ill_targets(load: &Load) -> BTreeSet<u32> {
    (0..load.targets).filter(|target| target % ILL_EVERY == ILL_EVERY * 3 / 4).collect()
}

fn unreported(ill: &BTreeSet<u32>, told: &Told) -> u64 {
    let reported: BTreeSet<u32> =
        told.failed.iter().chain(&told.scripted).map(|(target, _)| *target).collect();
    ill.difference(&reported).count() as u64
}

/// Failures of targets that are healthy, and those of nobody known.
fn false_failures(ill: &BTreeSet<u32>, told: &Told) -> u64 {
    let healthy = told.failed.iter().chain(&told.scripted).filter(|(target, _)| !ill.contains(target));
    let named: u64 = told.failed.iter().map(|(_, count)| count).sum();
    healthy.map(|(_, count)| count).sum::<u64>() + told.other_failures.saturating_sub(named)
}

/// One row for people, while the run goes on.
fn line(row: &Row) -> String {
    format!(
        "{:<8} {:<9} round {} {:>8.0}/s false {} unreported {}/{} inconclusive {} late {:.0}/{:.0} us response {:.0} us \
         ({} probes)",
        format!("{:?}", row.setting).to_lowercase(),
        row.load,
        row.round,
        row.rate_per_s,
        row.false_failures,
        row.unreported,
        row.misbehaving,
        row.inconclusive,
        row.lateness_p50_us,
        row.lateness_p99_us,
        row.response_p99_us,
        row.probes,
    )
}

fn report(all: &[Row], holds: Holds) -> Result<Report> {
    let (times_below, rate_least) = match holds {
        Holds::Counts => (Bound::None, Bound::None),
        Holds::CountsAndTimes => (Bound::Below(RATIO_BELOW), Bound::AtLeast(RATE_LEAST)),
    };
    let of = |setting| all.iter().filter(|row| row.setting == setting).collect::<Vec<&Row>>();
    let (healthy, hostile) = (of(Setting::Healthy), of(Setting::Hostile));
    let mut report = Report::new("hostile");
    let mut compare = |names: [&'static str; 3], figure: fn(&Row) -> f64| {
        let value = |rows: &[&Row]| median(rows, |row| Some(figure(row))).context("both settings are needed");
        let (without, with) = (value(&healthy)?, value(&hostile)?);
        report.add(names[0], without, "us", Bound::None);
        report.add(names[1], with, "us", Bound::None);
        report.add(names[2], with / without, "", times_below);
        anyhow::Ok(())
    };
    compare(["lateness p50, healthy", "lateness p50, hostile", "lateness p50, ratio"], |row| {
        row.lateness_p50_us
    })?;
    compare(["lateness p99, healthy", "lateness p99, hostile", "lateness p99, ratio"], |row| {
        row.lateness_p99_us
    })?;
    compare(["response p99, healthy", "response p99, hostile", "response p99, ratio"], |row| {
        row.response_p99_us
    })?;
    let total = |count: fn(&Row) -> u64| all.iter().map(count).sum::<u64>() as f64;
    let achieved = all.iter().map(|row| row.rate_per_s / row.offered_per_s).fold(f64::INFINITY, f64::min);
    report.add("achieved rate, least", achieved, "", rate_least);
    report.add("misbehaving, unreported", total(|row| row.unreported), "", Bound::Exactly(0.0));
    report.add("false failures", total(|row| row.false_failures), "", Bound::Exactly(0.0));
    report.add("inconclusive", total(|row| row.inconclusive), "", Bound::Exactly(0.0));
    // Times are of probes that succeeded: none may be missing from them.
    let probes = |rows: &[&Row]| rows.iter().map(|row| row.probes).sum::<u64>() as f64;
    report.add("healthy probes, ratio", probes(&hostile) / probes(&healthy), "", rate_least);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(setting: Setting, lateness_p99_us: f64, false_failures: u64) -> Row {
        Row {
            setting,
            load: loads::HTTP_20K,
            round: 1,
            offered_per_s: 20_000.0,
            rate_per_s: 20_000.0,
            window_s: 60.0,
            misbehaving: 200,
            unreported: 0,
            false_failures,
            inconclusive: 0,
            probes: 60_000,
            lateness_p50_us: 500.0,
            lateness_p99_us,
            response_p99_us: 90.0,
        }
    }

    #[test]
    fn figures_of_healthy_targets_move_by_less_than_a_tenth() {
        let check = |hostile_us, false_failures, met| {
            let rows = [row(Setting::Healthy, 1_000.0, 0), row(Setting::Hostile, hostile_us, false_failures)];
            let report = report(&rows, Holds::CountsAndTimes).unwrap();
            assert_eq!(report.finish(None).is_ok(), met, "{hostile_us} {false_failures}");
        };
        check(1_090.0, 0, true);
        check(900.0, 0, true);
        check(1_110.0, 0, false);
        check(1_000.0, 1, false);
        assert!(report(&[row(Setting::Healthy, 1.0, 0)], Holds::Counts).is_err());
    }

    #[test]
    fn what_is_reported_is_set_against_who_misbehaves() {
        let ill = BTreeSet::from([75, 175]);
        let check = |failed: &[(u32, u64)], other_failures, expected| {
            let told = Told { failed: failed.to_vec(), other_failures, ..Told::default() };
            assert_eq!((unreported(&ill, &told), false_failures(&ill, &told)), expected, "{told:?}");
        };
        check(&[(75, 4), (175, 1)], 5, (0, 0));
        check(&[(75, 4)], 4, (1, 0));
        check(&[(75, 4), (76, 2), (175, 1)], 7, (0, 2));
        check(&[(75, 4), (175, 1)], 8, (0, 3));
    }

    #[test]
    fn nobody_who_misbehaves_is_watched_or_fails_by_script() {
        let ill = ill_targets(&loads::ALL[1]);
        assert_eq!(ill.len(), 200);
        let every = WATCHED.every as u32;
        assert!(ill.iter().all(|target| target % every != every / 10 && !SCRIPT.concerns(*target as usize)));
    }
}
