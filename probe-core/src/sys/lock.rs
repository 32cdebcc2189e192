//! One agent per state directory: a lock that the kernel drops with its holder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;

/// Longest pid text that is read from a lock file.
const HOLDER_MAX_BYTES: u64 = 32;

/// The state directory cannot be taken.
#[derive(Error, Debug)]
pub enum LockError {
    #[error(
        "state directory {} is in use by the defib agent with pid {holder}: \
         stop it, or give this one a directory of its own with --state-dir",
        .dir.display()
    )]
    Held { dir: PathBuf, holder: String },
    #[error("cannot make or lock {}: {source}: choose a directory you may write with --state-dir", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The state directory, held until this value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    file: File,
    /// The directory and its lock file, if the directory is new.
    made: Option<(PathBuf, PathBuf)>,
}

impl StateLock {
    /// Makes the directory (mode 0700 when new) and takes `<dir>/lock`, which then holds our pid.
    pub fn take(dir: &Path) -> Result<StateLock, LockError> {
        let path = dir.join("lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        let is_new =
            make_private_dir(dir).map_err(|source| LockError::Io { path: dir.to_owned(), source })?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held { dir: dir.to_owned(), holder: holder(&mut file) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        let made = is_new.then(|| (dir.to_owned(), path));
        Ok(StateLock { file, made })
    }

    /// Ends the hold, and removes the directory if this hold made it and nothing else is in it.
    pub fn give_back(mut self) {
        let Some((dir, path)) = self.made.take() else { return };
        let is_alone = fs::read_dir(&dir).is_ok_and(|entries| entries.count() == 1);
        if is_alone && fs::remove_file(path).is_ok() {
            let _used_meanwhile = fs::remove_dir(dir);
        }
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // Closing is not enough while a fork of this process still has a copy of the descriptor.
        let _closing_anyway = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Whether it is new.
fn make_private_dir(dir: &Path) -> io::Result<bool> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(HOLDER_MAX_BYTES).read_to_string(&mut text);
    match (read, text.trim()) {
        (Ok(_), pid) if !pid.is_empty() => pid.to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_learns_who_is_first() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        let first = StateLock::take(&dir).unwrap();
        let refused = StateLock::take(&dir).unwrap_err();
        assert!(
            matches!(&refused, LockError::Held { holder, .. } if *holder == std::process::id().to_string())
        );
        assert!(refused.to_string().contains("in use by the defib agent with pid"), "{refused}");
        drop(first);
        StateLock::take(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_served_nothing_goes_again() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("new");
        StateLock::take(&dir).unwrap().give_back();
        assert!(!dir.exists());
        let lock = StateLock::take(&dir).unwrap();
        fs::write(dir.join("resource-version"), "1").unwrap();
        lock.give_back();
        assert!(dir.join("lock").exists(), "something is in it");
        StateLock::take(&dir).unwrap().give_back();
        assert!(dir.exists(), "it was there before");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let home = tempfile::NamedTempFile::new().unwrap();
        let refused = StateLock::take(home.path()).unwrap_err();
        assert!(refused.to_string().contains(&home.path().display().to_string()), "{refused}");
    }
}
