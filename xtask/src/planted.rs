//! Bugs planted on purpose: does the simulation find each of them?
//!
//! Each one is a change of the real code, made in a copy of the tree. A bug that survives means that the
//! simulation does not look at that rule; a text that is not found means that this table is out of date.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::repo::Repo;

/// Seeds that a planted bug may take to show.
const SEEDS: u32 = 200;

struct Bug {
    name: &'static str,
    file: &'static str,
    /// Occurs exactly once in the file.
    find: &'static str,
    replace: &'static str,
}

const BUGS: [Bug; 5] = [
    Bug {
        name: "dropped generation check",
        file: "probe-core/src/executor/probes.rs",
        find: ".filter(|armed| armed.generation == outcome.generation && running == Some(armed.instance));",
        replace: ".filter(|armed| running == Some(armed.instance));",
    },
    Bug {
        name: "double start",
        file: "probe-core/src/executor/start.rs",
        find: "if !matches!(container.life, Life::Idle) || container",
        replace: "if matches!(container.life, Life::Running | Life::Killing(_)) || container",
    },
    Bug {
        name: "lost hold",
        file: "probe-core/src/executor/probes.rs",
        find: "context.out.push(Output::Probe(cmd));\n        }\n    }\n}\n\nimpl Pod {",
        replace: "drop(cmd);\n            let _ = context;\n        }\n    }\n}\n\nimpl Pod {",
    },
    Bug {
        name: "back-off off by one",
        file: "probe-core/src/decide/backoff.rs",
        find: "None => params.initial,",
        replace: "None => params.initial.saturating_mul(2).min(params.max),",
    },
    Bug {
        name: "slot reused early",
        file: "probe-core/src/engine/run.rs",
        find: "            Stage::Working => self.wind_down(io, now, Winding::Cancelled, effects),\n            Stage::Idle => self.end_idle(io, now, effects),",
        replace: "            Stage::Working => self.ended(io, now, effects),\n            Stage::Idle => self.end_idle(io, now, effects),",
    },
];

/// Plants each bug in turn and demands that some seed fails.
pub fn run(repo: &Repo) -> Result<()> {
    let copy = repo.path("target/planted/tree");
    for bug in &BUGS {
        copy_tree(repo, &copy)?;
        plant(bug, &copy)?;
        let caught = simulate(repo, &copy).with_context(|| format!("planted: {}", bug.name))?;
        match caught {
            Some(words) => println!("planted: {}: caught: {words}", bug.name),
            None => bail!("planted: {}: {SEEDS} seeds did not notice it", bug.name),
        }
    }
    Ok(())
}

/// Every file of the tree, so that the real one is never touched. Files that are the same are left alone:
/// what is built from them stays built.
fn copy_tree(repo: &Repo, copy: &Path) -> Result<()> {
    for file in repo.files()? {
        let (from, to) = (repo.path(&file), copy.join(&file));
        let content = fs::read(&from).with_context(|| format!("read {file}"))?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::write(&to, content).with_context(|| format!("write {}", to.display()))?;
    }
    Ok(())
}

fn plant(bug: &Bug, copy: &Path) -> Result<()> {
    let path = copy.join(bug.file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", bug.file))?;
    let found = text.matches(bug.find).count();
    ensure!(
        found == 1,
        "planted: {}: its text is {found} times in {}: bring xtask/src/planted.rs up to date",
        bug.name,
        bug.file
    );
    fs::write(&path, text.replace(bug.find, bug.replace)).with_context(|| format!("write {}", bug.file))
}

/// The words of the first seed that failed; None when all passed.
fn simulate(repo: &Repo, copy: &Path) -> Result<Option<String>> {
    let build = |command: &mut Command| {
        command
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", repo.path("target/planted/build"))
            .env("RUSTFLAGS", "--cap-lints=allow")
            .env("DEFIB_SIMULATION_SEEDS", SEEDS.to_string())
            .args(["test", "--release", "--test", "simulation"]);
    };
    let mut only_build = repo.cargo();
    build(&mut only_build);
    let built = only_build.args(["--no-run", "--quiet"]).status().context("start cargo")?;
    ensure!(built.success(), "the tree with the bug does not compile: bring xtask/src/planted.rs up to date");
    let mut command = repo.cargo();
    build(&mut command);
    let output = command.output().context("start cargo")?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.lines().find(|line| line.starts_with("seed ")).unwrap_or("the test failed");
    Ok(Some(words.to_owned()))
}
