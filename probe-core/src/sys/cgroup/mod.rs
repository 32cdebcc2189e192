//! Control groups: `<root>/defib/{agent, pods/pod<uid>/<container>.<n>/{main, probe}}` (design 9.1) in the
//! v2 tree, and the instance's folder once more in each v1 controller that a limit needs.
//!
//! The v2 tree may be the only one, or lie beside v1 controllers (hybrid). Killing and waiting use the v2
//! tree in both.

mod group;
mod limits;
mod mounts;
mod oom;
mod tree;

pub use group::{Events, Execs, Group, KillMethod, Leaf, Place};
pub use limits::Limits;
pub use oom::{OomKills, OomWatch};
pub use tree::{NoCgroups, Tree, Uncounted, leaf_of};

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What failed on which file or folder of a cgroup file system.
#[derive(Error, Debug)]
#[error("cannot {operation} cgroup {}: {source}", .path.display())]
pub struct CgroupError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl CgroupError {
    fn new(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> CgroupError {
        CgroupError { operation, path: path.to_owned(), source: source.into() }
    }
}

/// Writes to a control file, which must exist: creating files is not possible there.
fn write_control(operation: &'static str, path: &Path, text: &str) -> Result<(), CgroupError> {
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| CgroupError::new(operation, path, source))
}
