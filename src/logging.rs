//! The agent's own log: standard error, text or JSON.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::cli::args::LogFormat;

/// Environment variable that sets what is logged, in the syntax of `tracing_subscriber::EnvFilter`.
const FILTER: &str = "DEFIB_LOG";

/// Call once, before anything is logged.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The error that ends the program: as text, or as a JSON line like the others. No filter keeps it back, and
/// [`init`] need not have been called.
pub fn fatal(format: LogFormat, error: &anyhow::Error) {
    match format {
        LogFormat::Text => eprintln!("{error:#}"),
        LogFormat::Json => {
            let log = tracing_subscriber::fmt().with_max_level(Level::ERROR).with_writer(io::stderr);
            let log = log.with_target(false).json().finish();
            tracing::subscriber::with_default(log, || tracing::error!("{error:#}"));
        }
    }
}
