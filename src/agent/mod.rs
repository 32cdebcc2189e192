//! The agent: its threads, the queues between them, and the order in which all of it starts and stops.

mod backend;
mod directory;
mod engines;
mod executors;
mod resolver;
mod start;
mod version;

pub use backend::Agent;
pub use start::{Config, Running, start};
