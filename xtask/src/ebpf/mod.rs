//! `cargo xtask build-ebpf` and `cargo xtask verify-ebpf`: the object with the programs for the kernel.
//!
//! The object is committed, so that defib builds with stable Rust alone. Beside it lies what it was built from and
//! with; the gate builds it again and compares.

mod compile;
mod record;
mod shape;
mod toolchain;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::repo::Repo;
use record::{Inputs, Record};
use shape::Shape;
use toolchain::{Identity, Toolchain};

/// What `cargo xtask` may do about a missing toolchain.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Install {
    Allowed,
    Refused,
}

impl Install {
    /// The gate installs on a throw-away machine; nobody's own machine is changed unasked.
    pub fn of_gate() -> Install {
        if toolchain::is_root() && toolchain::has_apt() { Install::Allowed } else { Install::Refused }
    }
}

#[derive(Args)]
pub struct EbpfArgs {
    /// Install what is missing: rust-src by rustup, LLVM by apt-get (as root), bpf-linker by cargo
    #[arg(long)]
    install_toolchain: bool,
}

impl EbpfArgs {
    pub fn install(&self) -> Install {
        if self.install_toolchain { Install::Allowed } else { Install::Refused }
    }
}

/// Builds the object and writes it and its record into `probe-ebpf/prebuilt`.
pub fn build(repo: &Repo, install: Install) -> Result<()> {
    let toolchain = toolchain::ready(install, recorded_llvm_major(repo))?;
    let inputs = Inputs::of(repo)?;
    let object = compile::compile(repo, &toolchain, &inputs)?;
    // Sources that change during the build would be recorded with an object that is not theirs.
    if Inputs::of(repo)? != inputs {
        bail!("build-ebpf: the sources changed during the build: run cargo xtask build-ebpf again");
    }
    Shape::read(&object).context("build-ebpf: the object that was built cannot be read")?;
    let record = Record::new(inputs, toolchain.identity, &object);
    record.write(repo, &object)?;
    println!(
        "build-ebpf: {} of {} bytes, sha256 {}",
        record::OBJECT,
        record.object.size,
        record.object.sha256
    );
    Ok(())
}

/// Checks that the committed object is the one that its source gives.
pub fn verify(repo: &Repo, install: Install) -> Result<()> {
    let record = Record::read(repo)?;
    let inputs = Inputs::of(repo)?;
    record.check_inputs(&inputs)?;
    let committed = record.read_object(repo)?;
    println!("verify-ebpf: source and object are those of {}", record::RECORD);
    let toolchain = toolchain::ready(install, record.toolchain.llvm_major())?;
    let built = compile::compile(repo, &toolchain, &inputs)?;
    compare(&record, &toolchain, &committed, &built)
}

fn compare(record: &Record, toolchain: &Toolchain, committed: &[u8], built: &[u8]) -> Result<()> {
    let others = record.toolchain.differences(&toolchain.identity);
    if others.is_empty() {
        if committed != built {
            bail!(
                "verify-ebpf: the same toolchain builds another object from this source than {}: \
                 run cargo xtask build-ebpf\n  {}",
                record::OBJECT,
                shape::bytes_differ(committed, built).join("\n  ")
            );
        }
        println!("verify-ebpf: the build gives the same {} bytes", built.len());
        return Ok(());
    }
    println!(
        "verify-ebpf: not built with this toolchain, so by sections and symbols:\n  {}",
        others.join("\n  ")
    );
    let committed = Shape::read(committed).with_context(|| format!("cannot read {}", record::OBJECT))?;
    let built = Shape::read(built).context("cannot read the object that was built")?;
    let differences = committed.differences(&built);
    if !differences.is_empty() {
        bail!(
            "verify-ebpf: the source gives another object than {}: run cargo xtask build-ebpf\n  {}",
            record::OBJECT,
            differences.join("\n  ")
        );
    }
    println!("verify-ebpf: {built}: the same as committed");
    Ok(())
}

/// Which LLVM is wanted while no nightly is there to say so.
fn recorded_llvm_major(repo: &Repo) -> Option<u32> {
    Record::read(repo).ok().and_then(|record| record.toolchain.llvm_major())
}
