//! defib on its real path: pods in an executor shard, which applies thresholds; an engine shard on its io_uring;
//! and a runtime that answers every start at once, so that there are 100,000 containers without a process.

#[path = "defib/node.rs"]
mod node;
#[path = "defib/pods.rs"]
mod pods;
#[path = "defib/watch.rs"]
mod watch;

use anyhow::{Context, Result};
use clap::Parser;
use peers::{Control, Load, Percentiles, Phase, heap};
use probe_core::sys::clock;

use node::Node;
use pods::Probes;
use watch::Watch;

/// More failures in a row than any benchmark has: nothing is restarted, every failing run is to be seen as an event.
const NO_RESTART: u32 = 1_000_000;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    load: Load,
    /// Failures in a row after which a container is restarted
    #[arg(long, default_value_t = NO_RESTART)]
    failure_threshold: u32,
    /// Print each event as a line of JSON
    #[arg(long)]
    events: bool,
}

fn main() -> Result<()> {
    let Cli { load, failure_threshold, events } = Cli::parse();
    let without_probes = node::bytes_without_probes(load)?;
    let specs = pods::specs(load, Probes::Liveness { failure_threshold })?;
    let node = Node::start(Watch::new(load, events, clock::now())?)?;
    let empty = heap::allocated_bytes();
    node.run(&specs)?;
    let control = Control::ready()?;
    node.follow(&control);

    control.wait_for(Phase::Measuring);
    let earlier = node.stats();
    let with_probes = heap::allocated_bytes().saturating_sub(empty);
    control.wait_for(Phase::Over);
    let (stats, mut report) = node.stop()?;

    let mut lateness_us = stats.lateness_us.clone();
    lateness_us.subtract(&earlier.lateness_us).context("lateness since the warm-up")?;
    // A run that errs is told by an event.
    report.inconclusive = stats.counters.inconclusive - earlier.counters.inconclusive;
    report.lateness_us = Some(Percentiles::from(&lateness_us));
    report.state_bytes = Some(with_probes.saturating_sub(without_probes));
    report.print()
}
