//! The agent: its threads, the queues between them, and the order in which all of it starts and stops.
//!
//! ```text
//! start      builds everything in order, and takes it down in the reverse order
//! control    the control thread's loop: updates, API, signals, the end
//! backend    what the API may ask of the agent
//! directory  names and ports
//! ending     why it ended with exit code 1
//! engines, executors, resolver   the threads
//! ```

mod backend;
mod control;
mod directory;
mod ending;
mod engines;
mod executors;
mod resolver;
mod signals;
mod start;
mod version;

pub use start::{Config, Ended, run};
