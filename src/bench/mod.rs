//! `defib bench`: how long answers take on this machine, and how late their probes were.
//!
//! ```text
//! plan      what is asked: checked, and turned into first due times
//! server    the built-in server, a thread on a core of its own where there are two
//! drive     engines armed, waited for and stopped: the only part with a clock
//! collect   what came of each run, recorded on the engine's thread
//! interrupt what Ctrl-C does meanwhile
//! report    everything merged, as text and as JSON
//! hgrm svg  the same percentiles as a log for plotters and as a picture
//! ```

pub mod collect;
pub mod drive;
pub mod hgrm;
mod interrupt;
pub mod plan;
pub mod progress;
pub mod report;
pub mod server;
pub mod svg;
