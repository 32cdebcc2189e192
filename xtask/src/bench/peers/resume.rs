//! What of an interrupted run is kept when it goes on.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::contestants::Contestant;
use super::loads;
use super::rows::Row;
use crate::repo::{Repo, output};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where rows come from: those of two places do not mix.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The commit that was built, and a hash of all files where there were changes beside it.
    pub tree: String,
    /// The kernel's id of it: figures drift from boot to boot. Empty in rows that were written before it was told.
    #[serde(default)]
    pub boot: String,
}

impl Origin {
    pub fn here(repo: &Repo) -> Result<Origin> {
        let boot = fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
        Ok(Origin { tree: tree(repo)?, boot: boot.trim().to_owned() })
    }
}

fn tree(repo: &Repo) -> Result<String> {
    let git = |args: &[&str]| {
        output(Command::new("git").current_dir(repo.path(".")).args(args)).map(|text| text.trim().to_owned())
    };
    let head = git(&["rev-parse", "HEAD"])?;
    if git(&["status", "--porcelain"])?.is_empty() {
        return Ok(head);
    }
    Ok(format!("{head} with changes, {}", hash_of_files(repo)?))
}

/// Of everything that is committed or could be, new files included.
fn hash_of_files(repo: &Repo) -> Result<String> {
    let mut hash = Sha256::new();
    for file in repo.files()? {
        let content = fs::read(repo.path(&file)).with_context(|| format!("cannot read {file}"))?;
        hash.update(format!("{file}\0{}\0", content.len()));
        hash.update(content);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// The rows to go on with; the rest of the run is measured.
///
/// # Errors
/// They are of another tree, another boot or of more rounds.
pub fn kept(rows: Vec<Row>, origin: &Origin, rounds: u32, wanted: &[Contestant]) -> Result<Vec<Row>> {
    for Row { origin: Origin { tree, boot }, round, .. } in &rows {
        ensure!(*tree == origin.tree, "it is of {tree}, this would be of {}", origin.tree);
        ensure!(
            *boot == origin.boot,
            "the machine was started again since; begin a new one without --resume"
        );
        ensure!(*round <= rounds, "it has {round} rounds or more, this would have {rounds}");
    }
    Ok(whole_rounds(rows, wanted))
}

/// Without rounds that lack a contestant: figures drift from hour to hour, so all of a round are measured one after the
/// other. What was lost was lost, though: a row that tells of it stays, however long ago it was measured.
fn whole_rounds(mut rows: Vec<Row>, wanted: &[Contestant]) -> Vec<Row> {
    // Another load than the contestant's own was met: that says nothing, unless something was lost.
    rows.retain(|row| row.contestant != Contestant::Haproxy.name() || !row.is_off_rate() || row.has_losses());
    let is_whole = |of: &Row| {
        let load = loads::ALL.into_iter().find(|load| load.name == of.load);
        let mut expected = wanted.iter().filter(|one| load.is_some_and(|load| one.load(load).is_some()));
        expected.all(|one| rows.iter().any(|row| row.is_of(one.name(), &of.load, of.round)))
    };
    rows.iter().filter(|row| is_whole(row) || row.has_losses()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::rows;
    use super::*;

    const WANTED: [Contestant; 3] = [Contestant::Defib, Contestant::Haproxy, Contestant::Blackbox];

    fn row(contestant: Contestant, load: &str, round: u32) -> Row {
        Row { round, ..rows::row(contestant.name(), load, 10.0) }
    }

    #[test]
    fn a_round_that_lacks_a_contestant_is_measured_anew() {
        use Contestant::{Blackbox, Defib, Haproxy};
        let rows = vec![
            row(Defib, loads::HTTP_5K, 1),
            row(Haproxy, loads::HTTP_5K, 1),
            row(Blackbox, loads::HTTP_5K, 1),
            row(Defib, loads::HTTP_5K, 2),
            row(Haproxy, loads::HTTP_5K, 2),
            // Blackbox does not meet this load.
            row(Haproxy, loads::TCP_5K, 1),
            row(Defib, loads::TCP_5K, 1),
        ];
        let left = |rows: &[Row]| {
            let kept = whole_rounds(rows.to_vec(), &WANTED);
            rows.iter().map(|row| kept.contains(row)).collect::<Vec<bool>>()
        };
        assert_eq!(left(&rows), [true, true, true, false, false, true, true]);

        let mut off_rate = rows.clone();
        off_rate[1].rate_per_s = 4_000.0;
        assert_eq!(left(&off_rate), [false, false, false, false, false, true, true]);

        let mut lost = off_rate;
        lost[3].false_failures = 1;
        lost[1].missed_failures = 1;
        assert_eq!(left(&lost), [true, true, true, true, false, true, true]);
    }

    #[test]
    fn a_run_does_not_go_on_elsewhere() {
        let here = Origin { tree: "t".to_owned(), boot: "b".to_owned() };
        let rows = || vec![row(Contestant::Defib, loads::HTTP_1K, 3)];
        let refused = |rows, origin: &Origin, rounds| {
            kept(rows, origin, rounds, &WANTED).map_err(|error| error.to_string()).unwrap_err()
        };
        assert_eq!(kept(rows(), &here, 3, &WANTED).unwrap(), rows());
        assert!(refused(rows(), &here, 2).contains("3 rounds or more"));
        let other = Origin { tree: "t with changes".to_owned(), ..here.clone() };
        assert!(refused(rows(), &other, 3).contains("it is of t, this would be of t with changes"));
        assert!(refused(rows(), &Origin { boot: "c".to_owned(), ..here }, 3).contains("started again"));
    }

    #[test]
    fn two_trees_with_changes_differ() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::at(dir.path());
        let git = |args: &[&str]| output(Command::new("git").current_dir(dir.path()).args(args)).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("a", "1");
        git(&["init", "--quiet"]);
        git(&["add", "a"]);
        git(&["-c", "user.name=a", "-c", "user.email=a@a", "commit", "--quiet", "--message", "a"]);
        let clean = tree(&repo).unwrap();
        assert_eq!(clean, git(&["rev-parse", "HEAD"]).trim());
        write("a", "2");
        let changed = tree(&repo).unwrap();
        assert!(changed.starts_with(&format!("{clean} with changes, ")), "{changed}");
        write("b", "3");
        let with_new = tree(&repo).unwrap();
        assert_ne!(with_new, changed);
        write("b", "4");
        assert_ne!(tree(&repo).unwrap(), with_new);
        fs::remove_file(dir.path().join("b")).unwrap();
        assert_eq!(tree(&repo).unwrap(), changed);
    }
}
