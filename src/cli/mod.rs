//! The command line: `args` says what can be typed, one file per verb does it.

pub mod args;
mod demo;
pub mod events;
mod exit;
pub mod manifests;
mod print;
mod run;
mod validate;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};

/// Parses the command line and runs the verb; the exit codes are those of design section 5.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli.verb) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("{error:#}");
            exit::code_of(&error).into()
        }
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
        Verb::Apply(_)
        | Verb::Get(_)
        | Verb::Describe(_)
        | Verb::Logs(_)
        | Verb::Delete(_)
        | Verb::Probe(_) => anyhow::bail!("not wired yet"),
    }
}
