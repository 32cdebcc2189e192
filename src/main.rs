//! defib: parse, run, exit code. Everything else is in `cli/` and below.

mod cli;
mod paths;
mod runtime;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
