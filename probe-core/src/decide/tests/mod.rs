//! Conformance tables by case id, and properties. One `check` per area; cases are data.

mod actions;
mod backoff;
mod describe;
mod events;
mod expand;
mod grace;
mod grpc;
mod properties;
mod redirects;
mod schedule;
mod status;
mod target;
mod worker;
pub mod world;
