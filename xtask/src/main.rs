//! Everything a developer of defib can do beside plain Cargo: `cargo xtask help`.
//!
//! One file per task. Each task is a function that returns an error, and `main` turns it into exit code 1.

mod bench;
mod ci;
mod clock;
mod conformance;
mod differential;
mod ebpf;
mod fixtures;
mod fuzz;
mod go;
mod picture;
mod planted;
mod repo;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use repo::Repo;

#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The whole gate, or the named steps of it
    Ci(ci::CiArgs),
    /// House rules that no compiler checks: arrows, sizes, clocks, paths
    Tidy,
    /// Prepare what the end-to-end tests need, in .fixtures/
    Fixtures,
    /// Build the programs for the kernel into probe-ebpf/prebuilt, to be committed
    BuildEbpf(ebpf::EbpfArgs),
    /// The committed object is what its source gives
    VerifyEbpf(ebpf::EbpfArgs),
    /// Feed hostile bytes to the parsers (cargo-fuzz); the tests replay what was found
    Fuzz(fuzz::FuzzArgs),
    /// Compare HTTP probes with a client in Go, as kubelet has it, over generated servers
    Differential(differential::DifferentialArgs),
    /// Measure defib and compare with its promises
    Bench(bench::BenchArgs),
    /// Run the test of every conformance case and say what is missing (docs/conformance.md)
    Conformance(conformance::ConformanceArgs),
    /// Plant bugs in a copy of the tree; the simulation has to find each
    Planted,
    /// Run the first example and put what it prints into README.md
    Picture,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Repo::open().and_then(|repo| match cli.task {
        Task::Ci(args) => ci::run(&repo, &args),
        Task::Tidy => tidy::run(&repo),
        Task::Fixtures => fixtures::run(&repo),
        Task::BuildEbpf(args) => ebpf::build(&repo, args.install()),
        Task::VerifyEbpf(args) => ebpf::verify(&repo, args.install()),
        Task::Fuzz(args) => fuzz::run(&repo, &args),
        Task::Differential(args) => differential::run(&repo, &args),
        Task::Conformance(args) => conformance::run(&repo, &args),
        Task::Planted => planted::run(&repo),
        Task::Picture => picture::run(&repo),
        Task::Bench(args) => bench::run(&repo, &args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
