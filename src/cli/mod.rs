//! The command line: `args` says what can be typed, one file per verb does it.

mod apply;
pub mod args;
mod bench;
mod delete;
mod demo;
mod describe;
mod doctor;
pub mod events;
pub mod exit;
mod get;
mod logs;
pub mod manifests;
mod output;
mod print;
mod probe;
mod resource;
mod run;
mod validate;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, LogFormat, Verb};

use crate::logging;

/// Parses the command line and runs the verb; the exit codes are those of design section 5.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli.verb) {
        Ok(code) => code.into(),
        // Whoever read the output has seen enough: `defib get pods | head -1`.
        Err(error) if error.is::<output::Closed>() => exit::OK.into(),
        Err(error) => {
            logging::fatal(log_format(&cli.verb), &error);
            exit::code_of(&error).into()
        }
    }
}

/// The form in which this verb tells what happens on standard error.
fn log_format(verb: &Verb) -> LogFormat {
    match verb {
        Verb::Run(args) => args.log_format,
        Verb::Validate(_)
        | Verb::Apply(_)
        | Verb::Get(_)
        | Verb::Describe(_)
        | Verb::Logs(_)
        | Verb::Delete(_)
        | Verb::Probe(_)
        | Verb::Bench(_)
        | Verb::Doctor(_)
        | Verb::Demo(_)
        | Verb::Version => LogFormat::Text,
    }
}

fn dispatch(verb: &Verb) -> anyhow::Result<u8> {
    match verb {
        Verb::Run(args) => run::run(args),
        Verb::Validate(args) => validate::run(args),
        Verb::Demo(args) => demo::run(&args.demo).map(|()| exit::OK),
        Verb::Version => {
            println!("defib {}", env!("CARGO_PKG_VERSION"));
            Ok(exit::OK)
        }
        Verb::Apply(args) => apply::run(args),
        Verb::Get(args) => get::run(args),
        Verb::Describe(args) => describe::run(args),
        Verb::Logs(args) => logs::run(args),
        Verb::Delete(args) => delete::run(args),
        Verb::Probe(args) => probe::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Doctor(args) => doctor::run(args),
    }
}
