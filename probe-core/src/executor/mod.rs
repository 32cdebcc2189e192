//! Executor shards: they own all state of their pods and apply thresholds and restart rules.
//!
//! A shard is a value. A thread (or the simulation) calls `turn` with the time and the inputs that have
//! come, does what the outputs say, and calls again when inputs arrive or the returned moment is reached.
//!
//! ```text
//! shard   one turn: inputs are noted, the pods they touch are synced once
//! sync    one pod: actions of `decide`, waves of a stop, gates of the probes, status
//! start   kill   hooks   probes      the steps of one container's life
//! pod     context                    what is remembered: per pod, and for the whole shard
//! ```

mod context;
mod hooks;
mod kill;
mod msg;
mod oom;
mod pod;
mod probes;
mod shard;
mod start;
mod sync;
#[cfg(test)]
mod tests;

pub use context::ShardConfig;
pub use msg::{Input, Output, PodCmd};
pub use shard::{Counters, Shard};
