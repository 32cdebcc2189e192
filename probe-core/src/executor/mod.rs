//! Executor shards: they own all state of their pods and apply thresholds and restart rules.
//!
//! A shard is a value. A thread (or the simulation) calls `turn` with the time and the inputs that have
//! come, does what the outputs say, and calls again when inputs arrive or the returned moment is reached.

mod msg;

pub use msg::{Input, Output, PodCmd};
