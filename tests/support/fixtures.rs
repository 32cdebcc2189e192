//! What `cargo xtask fixtures` has prepared. A test whose fixture is missing fails and names that command.

use std::path::PathBuf;
use std::process::Command;

use crate::repo_root;

/// Oldest Node.js that runs examples/kiada/app.js.
pub const NODE_MAJOR_MIN: u32 = 18;

/// The folder that holds the `envoy` command, to be put first on PATH.
pub fn envoy_bin_dir() -> PathBuf {
    let envoy = fixture("bin/envoy");
    envoy.parent().expect("a file lies in a folder").to_path_buf()
}

/// A statically linked busybox: every tool in one file that runs anywhere.
pub fn busybox() -> PathBuf {
    fixture("bin/busybox")
}

/// Go's own HTTP server with a voice: tests/servers/go.
pub fn go_server() -> PathBuf {
    fixture("bin/go-server")
}

/// The nginx of the system.
pub fn nginx() -> PathBuf {
    // Debian has it where only root's PATH looks.
    let places = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&places).chain([PathBuf::from("/usr/sbin")]);
    let found = places.map(|place| place.join("nginx")).find(|nginx| nginx.is_file());
    found.unwrap_or_else(|| panic!("{}", missing("nginx")))
}

/// Checks that `node` is on PATH and new enough.
pub fn require_node() {
    let version = Command::new("node").arg("--version").output().ok();
    let major = version
        .and_then(|done| String::from_utf8(done.stdout).ok())
        .and_then(|text| text.trim().trim_start_matches('v').split('.').next()?.parse::<u32>().ok());
    assert!(
        major.is_some_and(|major| major >= NODE_MAJOR_MIN),
        "{}",
        missing(&format!("node {NODE_MAJOR_MIN} or newer"))
    );
}

fn fixture(relative: &str) -> PathBuf {
    let path = repo_root().join(".fixtures").join(relative);
    assert!(path.exists(), "{}", missing(relative));
    std::path::absolute(path).expect("a path that is not empty")
}

fn missing(what: &str) -> String {
    format!("fixture missing: {what}. Prepare it with: cargo xtask fixtures")
}
