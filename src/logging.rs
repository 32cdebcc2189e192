//! The agent's own log: standard error, text or JSON.

use std::io::{self, IsTerminal};

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
