//! The engine on real rings against real servers on loopback. Cases carry the ids of the conformance table.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics with its line")]

mod bench;
mod hostile;
mod http;
mod keep;
mod leaks;
mod server;
mod tcp;
mod tls;
mod unix;
