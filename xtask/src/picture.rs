//! `cargo xtask picture`: runs the README's first command and puts what it printed into the README.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use test_support::World;

use crate::repo::{Repo, run as run_command};

const README: &str = "README.md";
const EXAMPLE: &str = "examples/wedge.yaml";
const BEGIN: &str = "<!-- made by: cargo xtask picture -->";
const END: &str = "<!-- end of the picture -->";
/// The example wedges after 8 s and is restarted some 6 s later.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Builds defib, waits for one whole restart of the example, and rewrites the README's picture.
pub fn run(repo: &Repo) -> Result<()> {
    run_command(repo.cargo().args(["build", "--release", "--quiet", "--bin", "defib"]))?;
    let world = World::of_binary(repo.path("target/release/defib"));
    let mut agent = world.run(&[EXAMPLE], &[]);
    let order = ["Started", "Unhealthy", "Unhealthy", "Unhealthy", "Killing", "Started"];
    let last = agent.wait_for_sequence(&order, RESTART_MAX).pop().context("a last event")?;
    let pods = world.defib(&["get", "pods"]);
    let mut picture = format!("$ cargo run --release -- run {EXAMPLE}\n");
    for line in agent.events().all().iter().take(last + 1) {
        picture.push_str(line.trim_end());
        picture.push('\n');
    }
    ensure!(pods.code == 0, "get pods failed: {}", pods.stderr);
    picture.push_str("\n$ defib get pods\n");
    picture.push_str(&pods.stdout);
    let code = agent.terminate();
    ensure!(code == 0, "defib ended with {code} after SIGTERM\n{}", agent.printed());

    let readme = fs::read_to_string(repo.path(README)).context("cannot read README.md")?;
    let readme = splice(&readme, &picture)?;
    fs::write(repo.path(README), readme).context("cannot write README.md")?;
    print!("{picture}");
    Ok(())
}

/// Replaces what stands between the two marks.
fn splice(readme: &str, picture: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).with_context(|| format!("README.md has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("README.md has no {END}"))?;
    Ok(format!("{before}{BEGIN}\n```text\n{}\n```\n{END}{after}", picture.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_picture_changes() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = splice(&old, "new\n\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n```text\nnew\n```\n{END}\nb\n"));
        assert_eq!(splice(&new, "new").unwrap(), new);
        assert!(splice("no marks", "new").is_err());
    }
}
