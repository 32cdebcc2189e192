//! `cargo xtask bench`: figures of a real defib, each beside its bound.

mod peers;
mod report;
mod sensor;
mod smoke;
mod usage;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::repo::Repo;

#[derive(Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// 2,000 containers with one HTTP probe a second each, for two minutes
    Smoke(smoke::SmokeArgs),
    /// How soon after its end a process is noticed and replaced: kernel programs, pidfds, a look every second
    Sensor(sensor::SensorArgs),
    /// defib beside HAProxy, a prober in kubelet's way and others, and beside the floor, in one run
    Peers(peers::PeersArgs),
    /// The latest run of `peers` against docs/promises.md
    Check(peers::CheckArgs),
    /// 20,000 probes a second leave no sockets in TIME_WAIT
    Ports(peers::ports::PortsArgs),
    /// 200 servers that misbehave among 20,000: what the healthy ones see of them
    Hostile(peers::hostile::HostileArgs),
}

/// Runs the benchmark; a missed bound is an error.
pub fn run(repo: &Repo, args: &BenchArgs) -> Result<()> {
    match &args.bench {
        Bench::Smoke(args) => smoke::run(repo, args),
        Bench::Sensor(args) => sensor::run(repo, args),
        Bench::Peers(args) => peers::run(repo, args),
        Bench::Check(args) => peers::check(repo, args),
        Bench::Ports(args) => peers::ports::run(repo, args),
        Bench::Hostile(args) => peers::hostile::run(repo, args),
    }
}
