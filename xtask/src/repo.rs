//! The repository: where it is, what is in it, and how commands are run in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The checkout that this xtask was built from.
    pub fn open() -> Result<Repo> {
        let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest_dir.parent().context("xtask is not inside a workspace")?;
        Ok(Repo { root: root.to_path_buf() })
    }

    #[cfg(test)]
    pub fn at(root: &Path) -> Repo {
        Repo { root: root.to_path_buf() }
    }

    /// `relative` as an absolute path.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Files that are committed or could be: tracked ones and new ones that no ignore rule covers,
    /// relative to the root, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        let listed = output(Command::new("git").current_dir(&self.root).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files: Vec<String> =
            listed.split('\0').filter(|f| !f.is_empty()).map(str::to_owned).collect();
        files.retain(|file| self.path(file).is_file());
        files.sort_unstable();
        files.dedup();
        Ok(files)
    }

    /// Cargo, started at the root.
    pub fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        command
    }
}

/// Runs `command` with its output on this terminal; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs `command` and returns its standard output; an exit code other than 0 is an error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let done = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !done.status.success() {
        bail!("`{shown}` failed: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    String::from_utf8(done.stdout).with_context(|| format!("`{shown}` printed something that is not UTF-8"))
}

fn show(command: &Command) -> String {
    let mut shown = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    shown
}
