//! The build of the eBPF object: the same bytes wherever the checkout, Cargo's home and the toolchain lie.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::record::{Inputs, is_input};
use super::toolchain::{Toolchain, cargo_home};
use crate::repo::{Repo, run as run_command};

const PACKAGE: &str = "probe-ebpf/kernel";
const TARGET: &str = "bpfel-unknown-none";
/// Cargo's target folder of this build.
const TARGET_DIR: &str = "target/ebpf";
/// What the linker writes, below the target folder.
const LINKED: &str = "release/defib";
/// The same without DWARF.
const STRIPPED: &str = "target/ebpf/defib.bpf.o";

/// Names that stand for folders of the build machine. LLVM puts the text of each source line that it can read into the
/// type information, so none of them may exist anywhere.
const REPO_NAME: &str = "/defib.source";
const CARGO_NAME: &str = "/cargo.home";
const REGISTRY_NAME: &str = "/crates.io";
const SYSROOT_NAME: &str = "/rust.sysroot";

/// Settings of Cargo that change where packages come from, not what is built.
const CARGO_ENV_KEPT: &[&str] =
    &["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];

/// Builds the object and returns its bytes.
pub fn compile(repo: &Repo, toolchain: &Toolchain, inputs: &Inputs) -> Result<Vec<u8>> {
    // Cargo does not see that another bpf-linker or LLVM would link differently.
    let stale = repo.path(TARGET_DIR).join(TARGET);
    if stale.exists() {
        fs::remove_dir_all(&stale).with_context(|| format!("cannot clear {}", stale.display()))?;
    }
    // The folders of the registries have to be there before their names can be replaced.
    run_command(cargo(repo, toolchain).args(["fetch", "--quiet", "--locked", "--target", TARGET]))?;
    let flags = flags(&folders(repo, toolchain)?);
    run_command(
        cargo(repo, toolchain)
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
            .args(["build", "--quiet", "--release", "--locked", "-Z", "build-std=core", "--target", TARGET])
            .arg("--target-dir")
            .arg(repo.path(TARGET_DIR)),
    )?;
    let linked = stale.join(LINKED);
    check_sources(repo, inputs, &linked.with_extension("d"))?;
    // bpf-linker makes the type information out of DWARF and has no option that drops it afterwards.
    let stripped = repo.path(STRIPPED);
    run_command(Command::new(&toolchain.objcopy).arg("--strip-debug").arg(&linked).arg(&stripped))?;
    let object = fs::read(&stripped).with_context(|| format!("cannot read {STRIPPED}"))?;
    let mut private = folders(repo, toolchain)?.into_iter().map(|(folder, _)| folder).collect::<Vec<_>>();
    private.extend(env::home_dir());
    private.extend(env::var_os("RUSTUP_HOME").map(PathBuf::from));
    let leaks = leaks(&object, &private);
    ensure!(
        leaks.is_empty(),
        "the object names folders of this machine, so another machine would build another one: {}: \
         replace them in xtask/src/ebpf/compile.rs",
        leaks.join(", ")
    );
    Ok(object)
}

/// Cargo of the nightly in the package's folder, without settings of whoever calls.
fn cargo(repo: &Repo, toolchain: &Toolchain) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", &toolchain.nightly, "cargo"]).current_dir(repo.path(PACKAGE));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(changes_build) {
            command.env_remove(name);
        }
    }
    // A wrapper may also stand in Cargo's configuration; the empty name means none.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    command
}

fn changes_build(name: &str) -> bool {
    let kept = CARGO_ENV_KEPT.iter().any(|prefix| name.starts_with(prefix));
    (name.starts_with("CARGO") && !kept)
        || name.starts_with("RUSTC")
        || ["RUSTFLAGS", "RUSTUP_TOOLCHAIN", "AYA_BPF_TARGET_ARCH"].contains(&name)
}

/// Folders that the object must not name, and what it names instead. A later one goes before an earlier one.
fn folders(repo: &Repo, toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let cargo_home = cargo_home()?;
    let mut folders = vec![
        (repo.path(""), REPO_NAME),
        (cargo_home.clone(), CARGO_NAME),
        (toolchain.sysroot.clone(), SYSROOT_NAME),
    ];
    // The folder's name depends on where the registry, or its mirror, is.
    let registries = cargo_home.join("registry/src");
    if registries.is_dir() {
        let unreadable = || format!("cannot read {}", registries.display());
        for entry in fs::read_dir(&registries).with_context(unreadable)? {
            folders.push((entry.with_context(unreadable)?.path(), REGISTRY_NAME));
        }
    }
    // Cargo and rustc may name a folder as it was given or as it really is.
    let mut all = Vec::new();
    for (folder, name) in folders {
        let real = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        // Without the slash at the end, which `path("")` leaves there.
        let given: PathBuf = folder.components().collect();
        all.push((given.clone(), name));
        if real != given {
            all.push((real, name));
        }
    }
    Ok(all)
}

/// Flags for rustc, as `CARGO_ENCODED_RUSTFLAGS` wants them.
fn flags(folders: &[(PathBuf, &'static str)]) -> OsString {
    // The crates would take the machine that compiles; no program looks at registers, so it makes no difference.
    let mut flags = OsString::from("-Clink-arg=--btf\x1f--cfg\x1fbpf_target_arch=\"x86_64\"");
    for (folder, name) in folders {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(folder);
        flags.push(format!("={name}"));
    }
    flags
}

/// The compiler read no file of the repository that is not hashed.
fn check_sources(repo: &Repo, inputs: &Inputs, dep_info: &Path) -> Result<()> {
    let text = fs::read_to_string(dep_info).with_context(|| format!("cannot read {}", dep_info.display()))?;
    let root = fs::canonicalize(repo.path("")).context("cannot find the root of the repository")?;
    for file in sources(&text) {
        let real = fs::canonicalize(&file).with_context(|| format!("cannot find the source {file}"))?;
        let Ok(relative) = real.strip_prefix(&root) else { continue };
        let path = relative.to_string_lossy();
        ensure!(
            inputs.files.contains_key(&*path),
            "{path} is compiled into the eBPF object and its hash is not recorded: {}",
            if is_input(&path) { "git ignores it" } else { "add it to INPUTS in xtask/src/ebpf/record.rs" }
        );
    }
    Ok(())
}

/// The files after the colon of a dep-info file; a space in a name is written `\ `.
fn sources(dep_info: &str) -> Vec<String> {
    let Some((_, files)) = dep_info.lines().next().and_then(|line| line.split_once(": ")) else {
        return Vec::new();
    };
    let marked = files.replace("\\ ", "\0");
    marked.split_whitespace().map(|file| file.replace('\0', " ")).collect()
}

/// Those folders that the object names.
fn leaks(object: &[u8], folders: &[PathBuf]) -> Vec<String> {
    let names = |folder: &Path| {
        let mut prefix = folder.as_os_str().as_encoded_bytes().to_vec();
        prefix.push(b'/');
        // The root folder begins every path.
        prefix.len() > 2 && object.windows(prefix.len()).any(|bytes| bytes == prefix)
    };
    let mut found: Vec<String> =
        folders.iter().filter(|folder| names(folder)).map(|folder| folder.display().to_string()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_user_do_not_reach_the_build() {
        let check = |name: &str, expected: bool| assert_eq!(changes_build(name), expected, "{name}");
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_RELEASE_DEBUG", "RUSTC_WRAPPER"] {
            check(name, true);
        }
        for name in
            ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN"]
        {
            check(name, true);
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "PATH", "RUSTUP_HOME"] {
            check(name, false);
        }
    }

    #[test]
    fn folders_are_replaced_in_order() {
        let flags = flags(&[(PathBuf::from("/a b"), REPO_NAME), (PathBuf::from("/a b/c"), CARGO_NAME)]);
        let flags: Vec<&str> = flags.to_str().unwrap().split('\x1f').collect();
        let expected = [
            "-Clink-arg=--btf",
            "--cfg",
            "bpf_target_arch=\"x86_64\"",
            "--remap-path-prefix=/a b=/defib.source",
            "--remap-path-prefix=/a b/c=/cargo.home",
        ];
        assert_eq!(flags, expected);
    }

    #[test]
    fn dep_info_names_the_sources() {
        let check = |text: &str, expected: &[&str]| assert_eq!(sources(text), expected, "{text}");
        check("/t/defib: /a/main.rs /a\\ b/abi.rs\n\n/a/main.rs:\n", &["/a/main.rs", "/a b/abi.rs"]);
        check("/t/defib:\n", &[]);
        check("", &[]);
    }

    #[test]
    fn folders_of_the_machine_are_found() {
        let folders = ["/", "/srv/me", "/srv/me", "/opt/x"].map(PathBuf::from);
        let check = |object: &[u8], expected: &[&str]| assert_eq!(leaks(object, &folders), expected);
        check(b"\0/srv/me/a.rs\0/opt/y/b.rs\0", &["/srv/me"]);
        check(b"\0/srv/mean/a.rs\0/defib.source/b.rs", &[]);
        check(b"", &[]);
    }
}
