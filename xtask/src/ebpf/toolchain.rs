//! What builds the eBPF object: a nightly Rust with the source of core, LLVM, and bpf-linker linked with that LLVM.
//!
//! Everything that is missing is told at once, each with the command that installs it; with `--install-toolchain`
//! exactly those commands are run.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::Install;
use crate::repo::{output, run as run_command};

/// Another toolchain than rustup's `nightly`, for example a dated one.
const NIGHTLY_ENV: &str = "DEFIB_NIGHTLY";
/// The bpf-linker that is installed where there is none.
const LINKER_VERSION: &str = "0.13.0";
/// Each install can make one more thing visible: LLVM's version is known when the nightly is there.
const INSTALL_ROUNDS_MAX: usize = 3;

/// Everything that is needed, found.
pub struct Toolchain {
    /// Name for `rustup run`.
    pub nightly: String,
    pub sysroot: PathBuf,
    pub linker: PathBuf,
    pub objcopy: PathBuf,
    pub identity: Identity,
}

/// Two toolchains of one identity build the same bytes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// First line of `rustc -vV`.
    pub rustc: String,
    pub rustc_commit_hash: String,
    pub rustc_commit_date: String,
    /// Which machine's compiler it is.
    pub rustc_host: String,
    /// The one in rustc: it writes the bitcode.
    pub rustc_llvm: String,
    /// The one of bpf-linker: it writes the object.
    pub llvm: String,
    pub bpf_linker: String,
}

impl Identity {
    /// Each part that is another in `present`.
    pub fn differences(&self, present: &Identity) -> Vec<String> {
        let rustc = |identity: &Identity| format!("{} {}", identity.rustc, identity.rustc_commit_hash);
        let parts = [
            ("rustc", rustc(self), rustc(present)),
            ("host", self.rustc_host.clone(), present.rustc_host.clone()),
            ("LLVM of rustc", self.rustc_llvm.clone(), present.rustc_llvm.clone()),
            ("LLVM", self.llvm.clone(), present.llvm.clone()),
            ("bpf-linker", self.bpf_linker.clone(), present.bpf_linker.clone()),
        ];
        let differing = parts.into_iter().filter(|(_, recorded, present)| recorded != present);
        differing
            .map(|(what, recorded, present)| format!("{what}: recorded {recorded}, here {present}"))
            .collect()
    }

    pub fn llvm_major(&self) -> Option<u32> {
        major(&self.rustc_llvm)
    }

    #[cfg(test)]
    pub fn for_test(rustc: &str) -> Identity {
        Identity {
            rustc: format!("rustc {rustc}"),
            rustc_commit_hash: "e50aa6f".to_owned(),
            rustc_commit_date: "2026-05-19".to_owned(),
            rustc_host: "x86_64-unknown-linux-gnu".to_owned(),
            rustc_llvm: "22.1.4".to_owned(),
            llvm: "22.1.8".to_owned(),
            bpf_linker: LINKER_VERSION.to_owned(),
        }
    }
}

/// What `rustc -vV` says.
#[derive(PartialEq, Eq, Debug)]
struct Rustc {
    line: String,
    commit_hash: String,
    commit_date: String,
    host: String,
    llvm: String,
    llvm_major: u32,
}

impl Rustc {
    fn parse(text: &str) -> Result<Rustc> {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).with_context(|| format!("`rustc -vV` says nothing about {name}: {text}"))
        };
        let llvm = field("LLVM version")?;
        Ok(Rustc {
            line: text.lines().next().unwrap_or_default().to_owned(),
            commit_hash: field("commit-hash")?,
            commit_date: field("commit-date")?,
            host: field("host")?,
            llvm_major: major(&llvm).with_context(|| format!("`rustc -vV` names no LLVM version: {llvm}"))?,
            llvm,
        })
    }
}

/// A part that is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Missing {
    Rustup,
    Nightly {
        name: String,
    },
    RustSrc {
        name: String,
    },
    /// None: nothing tells which LLVM the nightly has.
    Llvm {
        major: Option<u32>,
    },
    /// `instead`: what was found and cannot be used.
    Linker {
        major: Option<u32>,
        instead: Option<String>,
    },
}

/// One command of a cure.
#[derive(PartialEq, Eq, Debug)]
struct Cure {
    /// A folder that has to come first in PATH.
    path_first: Option<String>,
    argv: Vec<String>,
}

impl Cure {
    fn new(argv: &[&str]) -> Cure {
        Cure { path_first: None, argv: argv.iter().map(|arg| (*arg).to_owned()).collect() }
    }

    fn is_apt(&self) -> bool {
        self.argv[0] == "apt-get"
    }

    fn run(&self) -> Result<()> {
        println!("xtask: {self}");
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).env("DEBIAN_FRONTEND", "noninteractive");
        if let Some(first) = &self.path_first {
            let rest = env::var_os("PATH").unwrap_or_default();
            let path = env::join_paths([PathBuf::from(first)].into_iter().chain(env::split_paths(&rest)))
                .with_context(|| format!("cannot put {first} into PATH"))?;
            command.env("PATH", path);
        }
        run_command(&mut command)
    }
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = &self.path_first {
            write!(f, "PATH={first}:$PATH ")?;
        }
        write!(f, "{}", self.argv.join(" "))
    }
}

impl Missing {
    /// The commands that install it, in order. None where no command can.
    fn cures(&self) -> Vec<Cure> {
        match self {
            Missing::Rustup | Missing::Llvm { major: None } | Missing::Linker { major: None, .. } => {
                Vec::new()
            }
            Missing::Nightly { name } => vec![Cure::new(&[
                "rustup",
                "toolchain",
                "install",
                name,
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ])],
            Missing::RustSrc { name } => {
                vec![Cure::new(&["rustup", "component", "add", "rust-src", "--toolchain", name])]
            }
            Missing::Llvm { major: Some(major) } => vec![
                // The lists of a fresh machine may be missing or old.
                Cure::new(&["apt-get", "update", "--quiet"]),
                Cure::new(&[
                    "apt-get",
                    "install",
                    "--yes",
                    "--quiet",
                    "--no-install-recommends",
                    &format!("llvm-{major}-dev"),
                ]),
            ],
            Missing::Linker { major: Some(major), instead } => {
                let mut cure = Cure::new(&[
                    "cargo",
                    "install",
                    "bpf-linker",
                    "--version",
                    LINKER_VERSION,
                    "--locked",
                    "--no-default-features",
                    "--features",
                    &format!("llvm-{major}"),
                ]);
                if instead.is_some() {
                    cure.argv.push("--force".to_owned());
                }
                // Its build takes the LLVM whose llvm-config it meets first.
                cure.path_first = Some(debian_llvm(*major).display().to_string());
                vec![cure]
            }
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Rustup => write!(f, "rustup: see https://rustup.rs")?,
            Missing::Nightly { name } => write!(f, "Rust toolchain {name} ({NIGHTLY_ENV} names another)")?,
            Missing::RustSrc { name } => write!(f, "source of core for {name}")?,
            Missing::Llvm { major: None } => write!(f, "llvm-N-dev, N as `rustc -vV` of the nightly says")?,
            Missing::Llvm { major: Some(major) } => {
                write!(f, "LLVM {major} with llvm-config and llvm-objcopy")?
            }
            Missing::Linker { major: None, .. } => write!(f, "bpf-linker for the LLVM of the nightly")?,
            Missing::Linker { major: Some(major), instead } => {
                write!(f, "bpf-linker for LLVM {major}")?;
                if let Some(instead) = instead {
                    write!(f, " ({instead})")?;
                }
            }
        }
        let cures: Vec<String> = self.cures().iter().map(Cure::to_string).collect();
        if !cures.is_empty() {
            write!(f, ": {}", cures.join(" && "))?;
        }
        Ok(())
    }
}

/// Finds the toolchain; where it is not whole, installs what is missing or tells all of it.
///
/// `llvm_major` is the LLVM to ask for while no nightly is there that says it.
pub fn ready(install: Install, llvm_major: Option<u32>) -> Result<Toolchain> {
    let name = env::var(NIGHTLY_ENV).unwrap_or_else(|_| "nightly".to_owned());
    let mut before = Vec::new();
    for _ in 0..INSTALL_ROUNDS_MAX {
        let missing = match find(&name, llvm_major)? {
            Ok(toolchain) => return Ok(toolchain),
            Err(missing) => missing,
        };
        if install == Install::Refused || missing == before {
            bail!("{}", told(&missing));
        }
        install_all(&missing)?;
        before = missing;
    }
    bail!("{}", told(&before))
}

/// The text about everything that is missing.
fn told(missing: &[Missing]) -> String {
    let mut text = "the toolchain of the eBPF object is not complete. Missing:".to_owned();
    for part in missing {
        text.push_str(&format!("\n  {part}"));
    }
    text.push_str("\nThese commands, or --install-toolchain, which runs them (apt-get as root), install it.");
    text
}

/// Runs all cures, or none: a half installed toolchain would help nobody.
fn install_all(missing: &[Missing]) -> Result<()> {
    for part in missing {
        let cures = part.cures();
        let known_later = matches!(part, Missing::Llvm { major: None } | Missing::Linker { major: None, .. });
        ensure!(
            !cures.is_empty() || known_later,
            "no command can install what is missing. {}",
            told(missing)
        );
        ensure!(
            !cures.iter().any(Cure::is_apt) || (is_root() && has_apt()),
            "--install-toolchain needs root and apt-get for one of these. {}",
            told(missing)
        );
    }
    for part in missing {
        for cure in part.cures() {
            cure.run().with_context(|| format!("cannot install what is missing: {part}"))?;
        }
    }
    Ok(())
}

/// The outer error is one of this machine, the inner one is what to install.
fn find(name: &str, llvm_major: Option<u32>) -> Result<Result<Toolchain, Vec<Missing>>> {
    let mut missing = Vec::new();
    let rustc = match nightly(name) {
        Ok(rustc) => Some(rustc),
        Err(part) => {
            missing.extend(part);
            None
        }
    };
    let rustc = rustc.map(|(text, sysroot)| Rustc::parse(&text).map(|rustc| (rustc, sysroot))).transpose()?;
    if rustc.as_ref().is_some_and(|(_, sysroot)| !sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
    {
        missing.push(Missing::RustSrc { name: name.to_owned() });
    }
    let major = rustc.as_ref().map(|(rustc, _)| rustc.llvm_major).or(llvm_major);
    let llvm = major.and_then(llvm);
    if llvm.is_none() {
        missing.push(Missing::Llvm { major });
    }
    let linker = linker(major)?;
    if let Err(instead) = &linker {
        missing.push(Missing::Linker { major, instead: instead.clone() });
    }
    let (Some((rustc, sysroot)), Some(llvm), Ok(linker), true) = (rustc, llvm, linker, missing.is_empty())
    else {
        return Ok(Err(missing));
    };
    Ok(Ok(Toolchain {
        nightly: name.to_owned(),
        sysroot,
        linker: linker.path,
        objcopy: llvm.objcopy,
        identity: Identity {
            rustc: rustc.line,
            rustc_commit_hash: rustc.commit_hash,
            rustc_commit_date: rustc.commit_date,
            rustc_host: rustc.host,
            rustc_llvm: rustc.llvm,
            llvm: llvm.version,
            bpf_linker: linker.version,
        },
    }))
}

/// What the nightly rustc says of itself, and its sysroot.
fn nightly(name: &str) -> Result<(String, PathBuf), Vec<Missing>> {
    let part = Missing::Nightly { name: name.to_owned() };
    if program("rustup").is_none() {
        return Err(vec![Missing::Rustup, part]);
    }
    // Only looking: rustup must not download a toolchain that nobody asked for.
    let ask = |args: &[&str]| {
        output(Command::new("rustup").env("RUSTUP_AUTO_INSTALL", "0").args(["run", name, "rustc"]).args(args))
            .ok()
    };
    let (Some(text), Some(sysroot)) = (ask(&["-vV"]), ask(&["--print", "sysroot"])) else {
        return Err(vec![part]);
    };
    Ok((text, PathBuf::from(sysroot.trim())))
}

struct Llvm {
    version: String,
    objcopy: PathBuf,
}

/// Where Debian puts this LLVM.
fn debian_llvm(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}/bin"))
}

/// The LLVM of this major version: Debian's, or one on PATH.
fn llvm(wanted: u32) -> Option<Llvm> {
    let debian = debian_llvm(wanted).join("llvm-config");
    let versioned = program(&format!("llvm-config-{wanted}"));
    let configs = [Some(debian), versioned, program("llvm-config")];
    configs.into_iter().flatten().find_map(|config| {
        let version = output(Command::new(&config).arg("--version")).ok()?.trim().to_owned();
        let bin = output(Command::new(&config).arg("--bindir")).ok()?;
        let objcopy = Path::new(bin.trim()).join("llvm-objcopy");
        (major(&version) == Some(wanted) && objcopy.is_file()).then_some(Llvm { version, objcopy })
    })
}

struct Linker {
    path: PathBuf,
    version: String,
}

/// The error says what was found instead, if anything.
fn linker(wanted: Option<u32>) -> Result<Result<Linker, Option<String>>> {
    let in_cargo_home = cargo_home()?.join("bin/bpf-linker");
    let Some(path) = program("bpf-linker").or_else(|| in_cargo_home.is_file().then_some(in_cargo_home))
    else {
        return Ok(Err(None));
    };
    // It does not start without its LLVM.
    let Ok(said) = output(Command::new(&path).arg("--version")) else {
        return Ok(Err(Some("the one that is there does not start".to_owned())));
    };
    let binary = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let linked = linked_llvm(&binary);
    if let (Some(linked), Some(wanted)) = (linked, wanted)
        && linked != wanted
    {
        return Ok(Err(Some(format!("the one that is there is for LLVM {linked}"))));
    }
    let version = said.trim().trim_start_matches("bpf-linker ").to_owned();
    Ok(Ok(Linker { path, version }))
}

/// Major version of the LLVM library that a program names. None when it has LLVM within itself.
fn linked_llvm(binary: &[u8]) -> Option<u32> {
    const LIBRARY: &[u8] = b"libLLVM.so.";
    let at = binary.windows(LIBRARY.len()).position(|bytes| bytes == LIBRARY)? + LIBRARY.len();
    let digits: String =
        binary[at..].iter().map(|byte| char::from(*byte)).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// As Cargo finds it.
pub fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        return std::path::absolute(&home)
            .with_context(|| format!("CARGO_HOME is no path: {}", home.display()));
    }
    let home = env::home_dir().context("cannot find Cargo's home: set HOME or CARGO_HOME")?;
    Ok(home.join(".cargo"))
}

fn program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

pub fn has_apt() -> bool {
    program("apt-get").is_some()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
        commit-hash: e50aa6fba4e63ab34c72bf9acfd2c307c1155d1a\ncommit-date: 2026-05-19\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn rustc_tells_its_version() {
        let rustc = Rustc::parse(RUSTC).unwrap();
        assert_eq!(rustc.line, "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)");
        assert_eq!(rustc.commit_hash, "e50aa6fba4e63ab34c72bf9acfd2c307c1155d1a");
        assert_eq!(
            (rustc.commit_date.as_str(), rustc.host.as_str()),
            ("2026-05-19", "x86_64-unknown-linux-gnu")
        );
        assert_eq!((rustc.llvm.as_str(), rustc.llvm_major), ("22.1.4", 22));
        for lost in ["commit-hash", "commit-date", "host", "LLVM version"] {
            let error =
                Rustc::parse(&RUSTC.replace(&format!("{lost}: "), "other: ")).unwrap_err().to_string();
            assert!(error.contains(lost), "{error}");
        }
        assert!(Rustc::parse(&RUSTC.replace("22.1.4", "none")).is_err());
    }

    #[test]
    fn what_is_missing_is_told_with_its_command() {
        let name = || "nightly".to_owned();
        let check = |part: Missing, expected: &str| assert_eq!(part.to_string(), expected);
        check(Missing::Rustup, "rustup: see https://rustup.rs");
        check(
            Missing::Nightly { name: name() },
            "Rust toolchain nightly (DEFIB_NIGHTLY names another): \
             rustup toolchain install nightly --profile minimal --component rust-src",
        );
        check(
            Missing::RustSrc { name: name() },
            "source of core for nightly: rustup component add rust-src --toolchain nightly",
        );
        check(
            Missing::Llvm { major: Some(22) },
            "LLVM 22 with llvm-config and llvm-objcopy: apt-get update --quiet && \
             apt-get install --yes --quiet --no-install-recommends llvm-22-dev",
        );
        check(Missing::Llvm { major: None }, "llvm-N-dev, N as `rustc -vV` of the nightly says");
        let install = "PATH=/usr/lib/llvm-22/bin:$PATH cargo install bpf-linker --version 0.13.0 --locked \
                       --no-default-features --features llvm-22";
        check(
            Missing::Linker { major: Some(22), instead: None },
            &format!("bpf-linker for LLVM 22: {install}"),
        );
        check(
            Missing::Linker { major: Some(22), instead: Some("that one is old".to_owned()) },
            &format!("bpf-linker for LLVM 22 (that one is old): {install} --force"),
        );
        check(Missing::Linker { major: None, instead: None }, "bpf-linker for the LLVM of the nightly");
    }

    #[test]
    fn everything_is_told_at_once() {
        let parts = [Missing::RustSrc { name: "n".to_owned() }, Missing::Llvm { major: Some(22) }];
        let text = told(&parts);
        assert!(parts.iter().all(|part| text.contains(&format!("\n  {part}\n"))), "{text}");
        assert!(text.contains("--install-toolchain"), "{text}");
    }

    #[test]
    fn the_linked_llvm_is_read_from_the_binary() {
        let check = |binary: &[u8], expected: Option<u32>| assert_eq!(linked_llvm(binary), expected);
        check(b"\x7fELF\0libLLVM.so.22.1\0libc.so.6\0", Some(22));
        check(b"\0libLLVM.so.\0", None);
        check(b"\0libc.so.6\0", None);
        check(b"", None);
    }

    #[test]
    fn other_toolchains_are_named_part_by_part() {
        let recorded = Identity::for_test("1.97.0");
        assert!(recorded.differences(&recorded.clone()).is_empty());
        let here = Identity { llvm: "22.1.9".to_owned(), ..recorded.clone() };
        assert_eq!(recorded.differences(&here), ["LLVM: recorded 22.1.8, here 22.1.9"]);
        assert_eq!(recorded.differences(&Identity::for_test("1.98.0")).len(), 1);
        assert_eq!(recorded.llvm_major(), Some(22));
    }
}
