//! The node's resourceVersion: one u64 that never goes back, not even over a restart (design 9.1).
//!
//! A block of numbers is reserved in a file before any of them is used, so a crash loses numbers but
//! never repeats one.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Numbers reserved at once: at one change a microsecond the file is written once a second.
const BLOCK: u64 = 1 << 20;

/// Gives out the reserved range, one block after another.
pub struct VersionFile {
    path: PathBuf,
    reserved: u64,
}

impl VersionFile {
    /// Reads the file under `state_dir` and reserves the first block. Returns the number to start from.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no number.
    pub fn open(state_dir: &Path) -> anyhow::Result<(VersionFile, u64)> {
        let path = state_dir.join("resource-version");
        let start = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| {
                format!("{} does not hold a number; remove it to start again from 1", path.display())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let mut file = VersionFile { path, reserved: start };
        file.reserve(start)?;
        Ok((file, start))
    }

    /// Keeps at least half a block reserved beyond `used`. Writes only when it must.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn reserve(&mut self, used: u64) -> anyhow::Result<()> {
        if used + BLOCK / 2 < self.reserved {
            return Ok(());
        }
        let reserved = used + BLOCK;
        let temporary = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&temporary)?;
            writeln!(file, "{reserved}")?;
            fs::rename(&temporary, &self.path)
        };
        write().with_context(|| format!("write {}", self.path.display()))?;
        self.reserved = reserved;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, first) = VersionFile::open(dir.path()).unwrap();
        let used = first + BLOCK;
        file.reserve(used).unwrap();
        drop(file);
        let (_, second) = VersionFile::open(dir.path()).unwrap();
        assert!(second > used, "{second} after {used}");
    }

    #[test]
    fn a_spoilt_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("resource-version"), "x").unwrap();
        let Err(error) = VersionFile::open(dir.path()) else { panic!("accepted") };
        assert!(format!("{error:#}").contains("resource-version"), "{error:#}");
    }
}
