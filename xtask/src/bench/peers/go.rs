//! The kubelet-style prober, built by a Go toolchain from PATH or from PyPI.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::{Repo, output, run as run_command};

const SOURCE: &str = "benches/peers/kubelet";
const BINARY: &str = "target/peers/kubelet";
const VENV: &str = "target/peers/go-venv";
const REQUIREMENTS: &str = "xtask/fixtures/go.txt";

/// The binary, and which toolchain made it.
pub struct Built {
    pub binary: PathBuf,
    pub version: String,
}

pub fn build(repo: &Repo) -> Result<Built> {
    let go = toolchain(repo).context(
        "the Go toolchain could not be had: put `go` on PATH (Debian: apt-get install golang-go), or let Python 3 \
         with venv (Debian: apt-get install python3-venv) reach PyPI",
    )?;
    let binary = repo.path(BINARY);
    run_command(
        Command::new(&go)
            .current_dir(repo.path(SOURCE))
            // The module needs nothing but the standard library: no network, no other toolchain.
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod")
            .args(["build", "-o"])
            .arg(&binary)
            .arg("."),
    )?;
    let version = output(Command::new(&go).arg("version"))?.trim().to_owned();
    Ok(Built { binary, version })
}

fn toolchain(repo: &Repo) -> Result<PathBuf> {
    if output(Command::new("go").arg("version")).is_ok() {
        return Ok(PathBuf::from("go"));
    }
    let venv = repo.path(VENV);
    let go = venv.join("bin/go");
    if output(Command::new(&go).arg("version")).is_ok() {
        return Ok(go);
    }
    println!("bench peers: installing Go into {VENV}");
    fs::create_dir_all(repo.path("target/peers")).context("cannot make target/peers")?;
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run_command(
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"])
            .args(["--require-hashes", "--requirement"])
            .arg(repo.path(REQUIREMENTS)),
    )?;
    Ok(go)
}
