//! `defib bench`: what is typed becomes a plan, and what has come of it is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use probe_core::engine;
use probe_core::model::probe::{Host, Target};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thiserror::Error;

use super::args::{BenchArgs, BenchForm};
use super::probe::target_of;
use super::resource::UsageError;
use super::{exit, output};
use crate::bench::collect::Collected;
use crate::bench::plan::{Load, Plan};
use crate::bench::progress::{self, Point};
use crate::bench::server::Server;
use crate::bench::{drive, hgrm, svg};

/// Runs a second when nothing else is said.
const RATE_DEFAULT_PER_S: u32 = 1_000;
/// Back to the start of the line, and the rest of it erased.
const SAME_LINE: &str = "\r\x1b[K";

/// A name that cannot be looked up, a file that cannot be made, words that have no effect (exit code 3).
#[derive(Debug, Error)]
#[error("error: {0}")]
pub struct InvalidInput(pub(super) String);

/// Runs the benchmark; the exit code is 0 when any run succeeded, 130 after Ctrl-C.
///
/// # Errors
/// Numbers that do not go together, a name that does not resolve, files that cannot be written, or the kernel refuses a
/// ring.
pub fn run(args: &BenchArgs) -> anyhow::Result<u8> {
    let load = load_of(args)?;
    // Before anything is measured: nobody wants to learn of a wrong folder after an hour.
    if args.hgrm.is_some() && args.hgrm == args.svg {
        return Err(UsageError("error: --hgrm and --svg name the same file".to_owned()).into());
    }
    if [&args.hgrm, &args.svg].into_iter().flatten().any(|path| path.as_os_str() == "-") {
        return Err(UsageError("error: --hgrm and --svg take a file, not -".to_owned()).into());
    }
    let hgrm_file = args.hgrm.as_deref().map(Output::open).transpose()?;
    let svg_file = args.svg.as_deref().map(Output::open).transpose()?;
    let server = match &args.target {
        None => Some(start_server().context("cannot start the built-in server")?),
        Some(_) => None,
    };
    let name = match (&args.target, &server) {
        (None, Some(server)) => format!("http://{}/", server.address()),
        (target, _) => target.clone().unwrap_or_default(),
    };
    let plan = Plan {
        target: Arc::new(resolved(&name)?),
        name,
        is_built_in: server.is_some(),
        load,
        timeout: args.timeout,
        engine: args.engine,
        shards: args.shards,
    };
    let line = Line { is_terminal: io::stderr().is_terminal(), duration: load.duration };
    let ran = drive::run(plan, server.as_ref(), |before, now, all| line.show(before, now, all));
    line.write("");
    let report = ran?;
    if let Some(server) = server {
        server.stop().context("the built-in server ended early")?;
    }
    let collected = &report.collected;
    // First of all: a full disk is no reason to keep the result back.
    let text = match args.output {
        BenchForm::Table => report.table(),
        BenchForm::Json => output::json(&report.json())?,
    };
    output::write(text.as_bytes())?;
    if let Some(file) = hgrm_file {
        file.write(&hgrm::text(&collected.response_ns))?;
    }
    if let Some(file) = svg_file {
        let title = format!(
            "{}: {} targets, {:.0} runs/s, {} runs",
            report.plan.name,
            load.targets,
            load.rate_per_s(),
            collected.done()
        );
        let curves =
            [("response time", &collected.response_ns), ("lateness of the prober", &collected.lateness_ns)];
        file.write(&svg::plot(&title, &curves))?;
    }
    Ok(match report.has_success() {
        _ if report.is_interrupted => exit::INTERRUPTED,
        true => exit::OK,
        false => exit::FAILED,
    })
}

fn load_of(args: &BenchArgs) -> anyhow::Result<Load> {
    if let Some(period) = args.period {
        return Ok(Load { targets: args.targets, period, duration: args.duration });
    }
    let rate_per_s = args.rate.unwrap_or(RATE_DEFAULT_PER_S);
    let load = Load::at_rate(args.targets, rate_per_s, args.duration);
    Ok(load.map_err(|error| UsageError(error.to_string()))?)
}

/// The target with an address in place of a name: looking it up is no part of what is measured.
fn resolved(text: &str) -> anyhow::Result<Target> {
    let Some(mut target) = target_of(text)? else {
        let text = format!("error: {text}: an address starts with http://, https:// or tcp://");
        return Err(UsageError(text).into());
    };
    let host = match &mut target {
        Target::Http(http) => Some(&mut http.host),
        Target::Tcp(tcp) => Some(&mut tcp.host),
        Target::Grpc(_) => {
            return Err(
                UsageError(format!("error: {text}: bench drives http://, https:// and tcp:// only")).into()
            );
        }
        Target::Exec | Target::Broken { .. } => None,
    };
    if let Some(host) = host
        && let Host::Name(name) = host
    {
        let ip = engine::resolve(name).map_err(|error| InvalidInput(format!("{text}: {error}")))?;
        *host = Host::Ip(ip);
    }
    Ok(target)
}

/// The server takes the last of the cores that this process may use, and leaves the others to the engines: threads
/// inherit what the calling one may use.
fn start_server() -> anyhow::Result<Server> {
    let mut allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    let last = last.filter(|_| allowed.count() > 1);
    let server = Server::start(last)?;
    if let Some(cpu) = last {
        allowed.unset(cpu);
        sched_setaffinity(None, &allowed)?;
    }
    Ok(server)
}

/// Shows how it goes where somebody looks: one line that is written anew every second, and erased in the end.
struct Line {
    is_terminal: bool,
    duration: Duration,
}

impl Line {
    fn show(&self, before: Point, now: Point, collected: &Collected) {
        self.write(&progress::line(before, now, self.duration, collected));
    }

    fn write(&self, text: &str) {
        if self.is_terminal {
            // A terminal that has gone is no reason to stop.
            let _ = write!(io::stderr(), "{SAME_LINE}{text}");
        }
    }
}

/// A file that is written when there is something to write. Until then an old one stays as it is.
struct Output<'a> {
    path: &'a Path,
    file: File,
    /// It was made for this, and nothing is in it yet.
    is_new: bool,
}

impl<'a> Output<'a> {
    fn open(path: &'a Path) -> Result<Output<'a>, InvalidInput> {
        let is_new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        file.map(|file| Output { path, file, is_new }).map_err(|error| Output::failed(path, &error))
    }

    fn write(mut self, text: &str) -> Result<(), InvalidInput> {
        let is_regular = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_regular { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(text.as_bytes()));
        self.is_new = false;
        written.map_err(|error| Output::failed(self.path, &error))
    }

    fn failed(path: &Path, error: &io::Error) -> InvalidInput {
        InvalidInput(format!("cannot write {}: {error}", path.display()))
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if self.is_new {
            // Nothing was measured: an empty file would look as if something had been.
            let _ = fs::remove_file(self.path);
        }
    }
}
