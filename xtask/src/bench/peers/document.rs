//! `docs/benchmarks.md`: what was measured, on what, with which command.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::loads::{self, Load};
use super::plot;
use super::rows::{self, Row};
use crate::repo::{Repo, output};

const DOCUMENT: &str = "docs/benchmarks.md";
const PLOT: &str = "docs/benchmarks.svg";
/// What the last column compares with.
const OURS: &str = "defib";

/// What the document says besides the figures.
pub struct About {
    pub command: String,
    pub rounds: u32,
    pub versions: Vec<String>,
    /// Contestants in the order of the tables.
    pub contestants: Vec<&'static str>,
}

pub fn write(repo: &Repo, about: &About, rows: &[Row]) -> Result<()> {
    let text = document(&machine()?, about, rows);
    fs::write(repo.path(DOCUMENT), text).with_context(|| format!("cannot write {DOCUMENT}"))?;
    let svg = plot::svg(&about.contestants, rows);
    fs::write(repo.path(PLOT), svg).with_context(|| format!("cannot write {PLOT}"))?;
    println!("bench peers: wrote {DOCUMENT} and {PLOT}");
    Ok(())
}

fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let online = cpus.matches("processor\t").count().max(count);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's version")?;
    // The part behind the first dash is a name of the machine's maker.
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    let rustc = output(std::process::Command::new("rustc").arg("--version"))?;
    let model = model.map_or("unknown", |(_, name)| name);
    Ok(format!("{online} CPUs ({model}), Linux {kernel}, {}", rustc.trim()))
}

fn document(machine: &str, about: &About, rows: &[Row]) -> String {
    let mut text = format!(
        "# Benchmarks\n\nWritten by `{}`; do not edit. Medians over {} rounds in which the contestants alternate, each \
         run in a network namespace of its own, contestants on one CPU, server and drivers on another one; the \
         kernel's memory daemons are kept off the first where they can be moved.\n\n\
         * Machine: {machine}\n",
        about.command, about.rounds
    );
    for version in &about.versions {
        let _ = writeln!(text, "* {version}");
    }
    text.push_str(LEGEND);
    for load in loads::ALL {
        let table = table(&load, about, rows);
        if !table.is_empty() {
            let _ = write!(text, "\n## {}\n\n{table}", title(&load));
        }
    }
    text.push_str("\n![CPU per probe and false failures over the offered rate](benchmarks.svg)\n");
    text
}

const LEGEND: &str = "
CPU is the wall time of the contestant's core less what it was idle, less what it is busy with without a contestant, \
by probe; beside it the process's own user and system time. Absolute figures drift from machine to machine and from \
hour to hour: compare inside one table. `ratio` is defib's CPU by that of the row. One target in a hundred fails every \
third time by script; `missed` are those failures that were not reported, `false` those reported and never served. \
Late targets answer after 1.3, 3.7 or 10.9 ms: `response error` is the difference between what was reported and what \
the server took, which the handshake is no part of. Memory is that of the process; bytes by target are the state of \
the probes alone for defib and the whole process for the others. A dash: this contestant does not tell. The CPU of a \
contestant that reports false failures, misses some, or falls behind, stands in parentheses: it did other work. \
`server` is how busy the core of the server and the drivers was.
";

fn title(load: &Load) -> String {
    let kind = load.kind.as_str().to_uppercase();
    format!("{kind}, {} targets every {:?} (`{}`)", load.targets, load.period, load.name)
}

/// The figures of one load; empty when nothing was measured.
fn table(load: &Load, about: &About, rows: &[Row]) -> String {
    let mut text = String::new();
    let ours = rows::cpu_us_per_probe(&rows::of(rows, OURS, load.name));
    for contestant in &about.contestants {
        let of = rows::of(rows, contestant, load.name);
        let Some(cpu) = rows::median(&of, |row| Some(row.cpu_us_per_probe)) else { continue };
        let figure = |figure: fn(&Row) -> Option<f64>, digits: usize| {
            rows::median(&of, figure).map_or("–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let is_sound = rows::cpu_us_per_probe(&of).is_some();
        let cpu_text = if is_sound { format!("{cpu:.1}") } else { format!("({cpu:.1})") };
        let ratio = match ours.filter(|_| is_sound) {
            Some(ours) => format!("{:.2}", ours / cpu),
            None => "–".to_owned(),
        };
        let total = |count: fn(&Row) -> u64| of.iter().map(|row| count(row)).sum::<u64>();
        let _ = writeln!(
            text,
            "| {contestant} | {cpu_text} | {} | {ratio} | {} % | {} | {} | {} | {} / {} / {} | {} | {} | {} | {} % |",
            figure(|row| Some(row.process_cpu_us_per_probe), 1),
            figure(|row| Some(row.achieved() * 100.0), 1),
            total(|row| row.false_failures),
            total(|row| row.missed_failures),
            total(|row| row.inconclusive),
            figure(|row| row.lateness_p50_us, 0),
            figure(|row| row.lateness_p99_us, 0),
            figure(|row| row.lateness_p999_us, 0),
            figure(|row| row.response_error_p99_us, 0),
            figure(|row| Some(row.rss_bytes as f64 / 1e6), 0),
            figure(|row| Some(row.bytes_per_target), 0),
            figure(|row| Some(row.server_share * 100.0), 0),
        );
    }
    if text.is_empty() { text } else { format!("{HEAD}{text}") }
}

const HEAD: &str = "| contestant | CPU, µs by probe | process, µs | ratio | rate | false | missed | inconclusive | \
                    lateness p50 / p99 / p99.9, µs | response error p99, µs | memory, MB | bytes by target | server |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|---|\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_ratios_and_marks_who_failed() {
        let mut all = vec![
            rows::row("defib", "http-5k", 20.0),
            rows::row("defib", "http-5k", 40.0),
            rows::row("defib", "http-5k", 30.0),
            rows::row("haproxy", "http-5k", 60.0),
            rows::row("kubelet", "http-5k", 100.0),
        ];
        all[4].false_failures = 7;
        let about = About {
            command: "cargo xtask bench peers".to_owned(),
            rounds: 3,
            versions: vec!["HAProxy version 1".to_owned()],
            contestants: vec!["defib", "haproxy", "kubelet"],
        };
        let text = document("a machine", &about, &all);
        assert!(text.contains("* HAProxy version 1"), "{text}");
        assert!(text.contains("| defib | 30.0 | 30.0 | 1.00 | 100.0 % | 0 |"), "{text}");
        assert!(text.contains("| haproxy | 60.0 | 60.0 | 0.50 |"), "{text}");
        assert!(text.contains("| kubelet | (100.0) | 100.0 | – | 100.0 % | 7 |"), "{text}");
        assert!(!text.contains("tcp-5k"), "{text}");
    }
}
