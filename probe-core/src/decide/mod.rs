//! Pure decisions: input and time in, actions out. No clock, file or socket inside.

pub mod actions;
pub mod backoff;
pub mod describe;
pub mod events;
pub mod expand;
pub mod go_duration;
pub mod grace;
pub mod grpc;
pub mod messages;
pub mod ready;
pub mod schedule;
pub mod status;
pub mod target;
pub mod view;
pub mod worker;

#[cfg(test)]
pub(crate) mod tests;
