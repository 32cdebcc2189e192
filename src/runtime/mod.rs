//! The process runtime: containers as local processes, behind `probe_core::model::runtime`.
//!
//! One thread with a tokio runtime of its own; every command becomes a task there, so that a container that
//! hangs delays nobody. Files of the story:
//!
//! ```text
//! process    the thread: commands in, events out
//! launch     a container's spec as program, environment, folder, user
//! start      folders, cgroup, birth, record, go
//! stop       signal, grace, kill
//! exec       a command beside the container
//! cleanup    kill what is left, wait until it is gone, say the last words
//! leftovers  what a killed agent left, found by its records
//! ```

mod birth;
mod cleanup;
mod exec;
mod files;
mod grouping;
mod host;
mod instance;
mod launch;
mod leftovers;
mod logs;
mod process;
mod record;
mod start;
mod stop;
mod termination;
#[cfg(test)]
mod tests;
mod watched;

pub use process::ProcessRuntime;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use probe_core::model::runtime::RuntimeEvent;

/// Takes an event; called on the runtime's thread. It may wait for a full queue of an executor.
pub type Deliver = Arc<dyn Fn(RuntimeEvent) + Send + Sync>;

/// What the runtime is told at start.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Held under [`probe_core::sys::lock::StateLock`] by the caller.
    pub state_dir: PathBuf,
    /// For `spec.nodeName` in the environment of containers.
    pub node_name: Box<str>,
    /// PATH of the agent, which containers get.
    pub path: OsString,
    /// The running binary: what `$(DEFIB)` in a command expands to.
    pub self_exe: PathBuf,
}

impl RuntimeConfig {
    /// With PATH and binary of this process.
    ///
    /// # Errors
    /// When the path of the running binary cannot be found.
    pub fn of_this_process(state_dir: PathBuf, node_name: Box<str>) -> std::io::Result<RuntimeConfig> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(RuntimeConfig { state_dir, node_name, path, self_exe: std::env::current_exe()? })
    }
}
