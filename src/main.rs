//! defib: parse, run, exit code. Everything else is in `cli/` and below.

mod agent;
mod api;
mod bench;
mod cli;
mod client;
mod doctor;
mod files;
mod grpc;
mod logging;
mod logs;
mod paths;
mod rings;
mod runtime;
mod sensor;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
