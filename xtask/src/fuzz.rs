//! `cargo xtask fuzz`: hostile bytes for what reads bytes of others, with cargo-fuzz.
//!
//! A target is a few lines in `fuzz/`; what must hold is in `probe-core/tests/corpus`, so that `cargo test` holds
//! the committed corpus to it without any of this. A run starts from the corpus, and what it finds goes to
//! `fuzz/target/grown`; `--keep` then folds what reaches new code back into the corpus.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::repo::{Repo, run as run_command};

/// The cargo-fuzz that is installed where there is none.
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// Another toolchain than rustup's `nightly`, as for the eBPF object.
const NIGHTLY_ENV: &str = "DEFIB_NIGHTLY";
/// One input may hold a target up for so long. The slowest of the corpus takes a hundredth of it.
const INPUT_TIMEOUT_S: u32 = 10;
/// Memory of a target, most of which is the sanitizer's.
const RSS_LIMIT_MIB: u32 = 2_048;
/// A committed corpus is small, so that every `cargo test` can replay it.
const CORPUS_MAX_BYTES: u64 = 1024 * 1024;

#[derive(Args)]
pub struct FuzzArgs {
    /// Only these targets [default: all, one after the other]
    #[arg(value_enum)]
    targets: Vec<Target>,
    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Fold what was found into the committed corpus, and reduce it to what reaches code of its own
    #[arg(long)]
    keep: bool,
    /// Install what is missing: nightly Rust by rustup, cargo-fuzz by cargo
    #[arg(long)]
    install: bool,
}

#[derive(ValueEnum, Copy, Clone, PartialEq, Eq, Debug)]
enum Target {
    /// Any bytes, in any pieces, as the answer to an HTTP probe
    #[value(name = "http_answer")]
    HttpAnswer,
    /// Any bytes, or pods of known fields with odd values, as a manifest
    #[value(name = "manifest")]
    Manifest,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::HttpAnswer => "http_answer",
            Target::Manifest => "manifest",
        }
    }

    /// Longest input: enough for every bound of the code to be passed.
    fn len_max(self) -> u32 {
        match self {
            // A slot's buffer of 16 KiB, and more than that.
            Target::HttpAnswer => 20_000,
            Target::Manifest => 16_384,
        }
    }
}

/// Runs the targets; a finding is an error.
pub fn run(repo: &Repo, args: &FuzzArgs) -> Result<()> {
    let nightly = std::env::var(NIGHTLY_ENV).unwrap_or_else(|_| "nightly".to_owned());
    ready(&nightly, args.install)?;
    let all = Target::value_variants().iter().copied();
    for target in all.filter(|target| args.targets.is_empty() || args.targets.contains(target)) {
        let folders = Folders::of(repo, target)?;
        println!("xtask fuzz: {} for {} s", target.name(), args.seconds);
        run_command(&mut fuzz_command(repo, &nightly, target, &folders, args.seconds)).with_context(
            || {
                format!(
                    "{}: the input is in fuzz/artifacts/{0}; after the fix it belongs into fuzz/corpus/{0}",
                    target.name()
                )
            },
        )?;
        if args.keep {
            keep(repo, &nightly, target, &folders)?;
        }
    }
    Ok(())
}

struct Folders {
    /// Committed.
    corpus: PathBuf,
    /// What runs on this machine have found beside it.
    grown: PathBuf,
    dictionary: PathBuf,
}

impl Folders {
    fn of(repo: &Repo, target: Target) -> Result<Folders> {
        let grown = repo.path("fuzz/target/grown").join(target.name());
        fs::create_dir_all(&grown).with_context(|| format!("cannot make {}", grown.display()))?;
        Ok(Folders {
            corpus: repo.path("fuzz/corpus").join(target.name()),
            grown,
            dictionary: repo.path("fuzz/dict").join(format!("{}.dict", target.name())),
        })
    }
}

/// `cargo fuzz run`. libFuzzer writes into the first folder and reads from both.
fn fuzz_command(repo: &Repo, nightly: &str, target: Target, folders: &Folders, seconds: u32) -> Command {
    let mut command = cargo_fuzz(repo, nightly, "run", target);
    command.args([&folders.grown, &folders.corpus]).arg("--").args([
        format!("-dict={}", folders.dictionary.display()),
        format!("-max_total_time={seconds}"),
        format!("-max_len={}", target.len_max()),
        format!("-timeout={INPUT_TIMEOUT_S}"),
        format!("-rss_limit_mb={RSS_LIMIT_MIB}"),
        "-print_final_stats=1".to_owned(),
    ]);
    command
}

/// The smallest set of inputs that reaches what both folders reach becomes the corpus. Inputs named `seed-…` and
/// `found-…` are written by people and stay.
fn keep(repo: &Repo, nightly: &str, target: Target, folders: &Folders) -> Result<()> {
    let merged = repo.path("fuzz/target/merged").join(target.name());
    if merged.is_dir() {
        fs::remove_dir_all(&merged).with_context(|| format!("cannot empty {}", merged.display()))?;
    }
    fs::create_dir_all(&merged).with_context(|| format!("cannot make {}", merged.display()))?;
    let is_named = |name: &str| name.starts_with("seed-") || name.starts_with("found-");
    for (name, path) in files(&folders.corpus)?.into_iter().filter(|(name, _)| is_named(name)) {
        fs::copy(&path, merged.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    let mut command = cargo_fuzz(repo, nightly, "run", target);
    command.args([&merged, &folders.corpus, &folders.grown]).args([
        "--",
        "-merge=1",
        "-set_cover_merge=1",
        // How often an edge is taken would triple the inputs.
        "-use_counters=0",
        &format!("-max_len={}", target.len_max()),
        &format!("-rss_limit_mb={RSS_LIMIT_MIB}"),
    ]);
    run_command(&mut command)?;
    let inputs = files(&merged)?;
    let bytes: u64 = inputs.iter().filter_map(|(_, path)| path.metadata().ok()).map(|meta| meta.len()).sum();
    ensure!(
        bytes <= CORPUS_MAX_BYTES,
        "the corpus of {} would have {bytes} bytes, at most {CORPUS_MAX_BYTES} may be committed: see {}",
        target.name(),
        merged.display()
    );
    for (_, path) in files(&folders.corpus)? {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for (name, path) in &inputs {
        let to = folders.corpus.join(name);
        fs::copy(path, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    println!("xtask fuzz: {}: {} inputs of {bytes} bytes kept", target.name(), inputs.len());
    Ok(())
}

fn files(folder: &PathBuf) -> Result<Vec<(String, PathBuf)>> {
    let read = || -> std::io::Result<Vec<(String, PathBuf)>> {
        let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        Ok(entries.into_iter().map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect())
    };
    read().with_context(|| format!("cannot read {}", folder.display()))
}

fn cargo_fuzz(repo: &Repo, nightly: &str, verb: &str, target: Target) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(repo.path("fuzz"))
        .args([&format!("+{nightly}"), "fuzz", verb, "--fuzz-dir", "."])
        .arg(target.name());
    // Cargo sets these for xtask itself; they would choose its toolchain again.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command
}

/// Everything that is needed is there, or each missing part is told with the command that installs it.
fn ready(nightly: &str, install: bool) -> Result<()> {
    let answers = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env_remove("RUSTUP_TOOLCHAIN").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    ensure!(answers("rustup", &["--version"]), "rustup is missing: see https://rustup.rs");
    let mut cures: Vec<Vec<&str>> = Vec::new();
    if !answers("rustup", &["run", nightly, "rustc", "--version"]) {
        cures.push(vec!["rustup", "toolchain", "install", nightly, "--profile", "minimal"]);
    }
    if !answers("cargo", &["fuzz", "--version"]) {
        cures.push(vec!["cargo", "install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked"]);
    }
    if !answers("c++", &["--version"]) {
        bail!("a C++ compiler is missing, libFuzzer is built with it: as root, apt-get install g++");
    }
    for cure in &cures {
        let text = cure.join(" ");
        if !install {
            let all: Vec<String> = cures.iter().map(|cure| cure.join(" ")).collect();
            bail!(
                "fuzzing needs what is missing here. These commands install it, and --install runs them:\n  {}",
                all.join("\n  ")
            );
        }
        println!("xtask fuzz: {text}");
        run_command(Command::new(cure[0]).args(&cure[1..]))?;
    }
    Ok(())
}
