//! The heart of defib, a library that knows no command line, no HTTP server, no CRI and no eBPF loader.
//!
//! Arrows point inwards (`cargo xtask tidy` checks it):
//!
//! ```text
//! engine  executor  sensor        effects: shards that are values with `turn(now, inputs) -> outputs`
//!     \      |       /            (they do not know each other; what crosses is in `model`)
//!   ring   decide  wire  sys      doors to the kernel, pure decisions, protocol bytes
//!     \      |       /
//!          model                  plain data
//! ```
//!
//! `spec` turns Pod YAML into `model` once, at load.

pub mod decide;
pub mod engine;
pub mod executor;
pub mod model;
pub mod ring;
pub mod sensor;
pub mod spec;
pub mod sys;
pub mod wire;
