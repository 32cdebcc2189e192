//! What the end-to-end tests and benchmarks share. A test reads like this:
//!
//! ```no_run
//! use test_support::{World, SOON};
//!
//! let world = World::new();
//! let mut agent = world.run(&["examples/liveness-exec.yaml"], &[]);
//! agent.wait_for("Started container liveness", SOON);
//! assert_eq!(world.defib(&["get", "pods"]).code, 0);
//! assert_eq!(agent.terminate(), 0);
//! world.assert_nothing_left();
//! ```
//!
//! Helpers panic instead of returning results: the panic keeps the line, and shows what defib printed.
//! Nothing here sleeps to let something happen. Waiting is for a line, a process or a condition, with a
//! generous watchdog (design 9.11): a watchdog that barks is a failure, its length is never a promise.

mod agent;
mod delegated;
pub mod fixtures;
mod freezer;
pub mod http;
mod lines;
mod netns;
pub mod pace;
pub mod procs;
mod seccomp;
pub mod server;
mod watch;
pub mod watched;
mod world;

pub use agent::Agent;
pub use delegated::Delegated;
pub use freezer::Freezer;
pub use lines::Lines;
pub use netns::NetNs;
pub use watch::{AFTER_A_WHILE, SOON, eventually, pass};
pub use world::{Done, World};

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn repo_root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("this package lies two folders below the root")
}

/// The defib binary that Cargo built beside the running test.
pub fn defib_binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    let deps = test.parent().expect("a test lies in a folder");
    let binary = deps.parent().expect("target/<profile>/deps").join("defib");
    assert!(binary.is_file(), "{} is missing: cargo build", binary.display());
    binary
}
