//! Everything eBPF in one room: the programs (`kernel/`, committed as an object in `prebuilt/`), what both sides agree
//! on ([`abi`]), and the host side that loads them and reads what they tell.
//!
//! ```text
//! sched_process_exit ─► is it a registered container's? ─► ring buffer ─► Reader::take_death
//! oom/mark_victim ────► MARKS, by pid ──────────────────────────────────► Reader::take_mark
//!                       CONTAINERS, INITS ◄────────────────────────────── Registry
//! ```
//!
//! Kernel floor 5.8, with BTF. Nothing here knows pods, cgroup paths or what a death means: that is the sensor's
//! matter (`probe-core/src/sensor`).

pub mod abi;
pub mod btf;
pub mod format;
mod loader;
mod reader;
mod registry;

pub use loader::{Lack, LoadError, LoadOptions, Loaded, ProgramCost, Tracepoint, load};
pub use reader::{ReadError, Reader};
pub use registry::{Member, RegisterError, Registry};

/// The programs, as `cargo xtask build-ebpf` made them.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../prebuilt/defib.bpf.o");
