//! The engine on real rings against real servers on loopback. Cases carry the ids of the conformance table.

mod bench;
mod hostile;
mod http;
mod leaks;
mod server;
mod tcp;
