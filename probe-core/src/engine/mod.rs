//! The probe engine: one shard per thread, one ring per shard.
//!
//! A shard owns the ticker of every probe that executors have armed and turns due probes into outcomes. It
//! never decides: thresholds and restarts are the executor's. Everything that takes time goes over its
//! [`crate::ring::Ring`]; deadlines are timers of its own, and completions are taken before any of them is
//! judged, so that a reply that is there is never a timeout.

mod deadline;
mod ending;
mod http;
mod io;
mod keep;
mod lookup;
mod onces;
mod pace;
mod places;
mod run;
mod secure;
mod shard;
mod silence;
mod single;
mod stats;
mod targets;
mod text;
mod thread;
mod watch;
mod wheel;

#[cfg(test)]
mod tests;

pub use io::is_shortage;
pub use pace::coalesce;
pub use shard::Shard;
pub use single::{once, resolve};
pub use stats::{Counters, LATE_START, Stats};
pub use thread::{Clocks, Engine, EngineError, Inbox, Tallies};
