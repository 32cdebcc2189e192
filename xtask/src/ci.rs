//! The gate. Each step also runs alone: `cargo xtask ci clippy test`.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::clock::Stopwatch;
use crate::repo::{Repo, run as run_command};
use crate::{conformance, differential, ebpf, fixtures, planted, tidy};

/// Seeds that the simulation runs in the gate, each at least ten virtual minutes with 50 pods.
const SIMULATION_SEEDS: u32 = 2_000;

#[derive(Args)]
pub struct CiArgs {
    /// Only these steps, in the order of the gate
    #[arg(value_enum)]
    steps: Vec<Step>,
}

#[derive(ValueEnum, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    /// What the end-to-end tests need is there
    Fixtures,
    /// Every file is formatted
    Fmt,
    /// No warning of the compiler or of the lint table
    Clippy,
    /// House rules that no compiler checks
    Tidy,
    /// The committed eBPF object is what its source gives
    VerifyEbpf,
    /// The documentation of probe-core builds without a warning
    Doc,
    /// Unit and property tests of all packages, then the end-to-end tests
    Test,
    /// HTTP probes say what kubelet's client in Go says, over 2,000 generated servers
    Differential,
    /// Every case of docs/conformance.md has a test that passes
    Conformance,
    /// The seeds of the simulation, in release
    Simulation,
    /// The simulation finds each planted bug; builds the tree five times
    Planted,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn run(self, repo: &Repo) -> Result<()> {
        let mut cargo = repo.cargo();
        match self {
            Step::Fixtures => fixtures::run(repo),
            Step::Fmt => run_command(cargo.args(["fmt", "--all", "--check"])),
            Step::Clippy => run_command(cargo.args([
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])),
            Step::Tidy => tidy::run(repo),
            Step::VerifyEbpf => ebpf::verify(repo, ebpf::Install::of_gate()),
            Step::Doc => run_command(cargo.env("RUSTDOCFLAGS", "-D warnings").args([
                "doc",
                "--quiet",
                "--package",
                "probe-core",
                "--no-deps",
            ])),
            Step::Test => run_command(cargo.args(["test", "--workspace"])),
            Step::Differential => differential::run(repo, &differential::DifferentialArgs::of_gate()),
            Step::Conformance => conformance::run(repo, &conformance::ConformanceArgs::default()),
            Step::Simulation => {
                run_command(cargo.env("DEFIB_SIMULATION_SEEDS", SIMULATION_SEEDS.to_string()).args([
                    "test",
                    "--release",
                    "--test",
                    "simulation",
                ]))
            }
            Step::Planted => planted::run(repo),
        }
    }
}

/// Runs the steps in order, stops at the first that fails, and says how long each took.
pub fn run(repo: &Repo, args: &CiArgs) -> Result<()> {
    let steps: Vec<Step> = Step::value_variants()
        .iter()
        .copied()
        .filter(|step| args.steps.contains(step) || args.steps.is_empty())
        .collect();
    let mut times: Vec<(Step, Duration)> = Vec::with_capacity(steps.len());
    for step in steps {
        println!("xtask ci: {}", step.name());
        let watch = Stopwatch::start();
        let result = step.run(repo);
        times.push((step, watch.elapsed()));
        if let Err(error) = result {
            print_times(&times);
            bail!("step {} failed, alone: cargo xtask ci {}\n{error:#}", step.name(), step.name());
        }
    }
    print_times(&times);
    Ok(())
}

fn print_times(times: &[(Step, Duration)]) {
    for (step, took) in times {
        println!("xtask ci: {:<12} {:>8.1} s", step.name(), took.as_secs_f64());
    }
}
