//! The command line: `args` says what can be typed, one file per verb does it.

mod args;
mod demo;
mod exit;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};

/// Parses the command line and runs the verb; the exit codes are those of design section 5.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb {
        Verb::Version => {
            println!("defib {}", env!("CARGO_PKG_VERSION"));
            exit::OK.into()
        }
        Verb::Demo(args) => match demo::run(&args.demo) {
            Ok(()) => exit::OK.into(),
            Err(error) => {
                eprintln!("defib demo: {error:#}");
                exit::FAILED.into()
            }
        },
        _ => exit::FAILED.into(),
    }
}
