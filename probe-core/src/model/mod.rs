//! Plain data that crosses module borders: ids, time, specs, messages, status, limits.
//!
//! Nothing here does I/O, reads a clock or decides anything.

pub mod event;
pub mod id;
pub mod limits;
pub mod pod;
pub mod probe;
pub mod runtime;
pub mod status;
pub mod tally;
pub mod text;
pub mod time;
pub mod tls;
