//! defib: parse, run, exit code. Everything else is in `cli/` and below.

mod api;
mod cli;
mod files;
mod logs;
mod paths;
mod runtime;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
