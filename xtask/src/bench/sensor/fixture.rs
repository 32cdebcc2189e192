//! The process that is restarted and counted (`fixture.c`), and the file of stamps that it shares with us.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::repo::output;

const SOURCE: &str = include_str!("fixture.c");
/// In memory: a store of the fixture never waits for a disk.
const MEMORY_DIR: &str = "/dev/shm";

/// The slot of `fixture.c`, in words of 64 bits.
const WORDS: usize = 32;
const RING: usize = 14;
const STARTS_AT: usize = 4;
const ENDS_AT: usize = STARTS_AT + RING;
const WORD_BYTES: usize = size_of::<u64>();
const PAGE_BYTES: u64 = 4_096;

/// The compiled program. Removed when it is dropped.
pub struct Fixture {
    dir: TempDir,
}

impl Fixture {
    /// Static where the C library can be had so: then hardly anything lies between exec and main().
    pub fn compile() -> Result<Fixture> {
        let dir =
            tempfile::Builder::new().prefix("defib-bench-").tempdir_in(MEMORY_DIR).context("a folder")?;
        let source = dir.path().join("fixture.c");
        fs::write(&source, SOURCE).context("the fixture's source")?;
        let fixture = Fixture { dir };
        let compile = |flags: &[&str]| {
            output(Command::new("cc").args(flags).arg("-O2").arg("-o").arg(fixture.program()).arg(&source))
        };
        if compile(&["-static"]).is_err() {
            println!("bench sensor: no static C library, the new process is linked at its start");
            compile(&[]).context("the fixture is compiled with `cc`, which Rust links with, too")?;
        }
        Ok(fixture)
    }

    pub fn program(&self) -> PathBuf {
        self.dir.path().join("fixture")
    }

    /// A new file of empty slots.
    pub fn slots(&self, name: &str, count: usize) -> Result<Slots> {
        let path = self.dir.path().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        let bytes = (count * WORDS * WORD_BYTES) as u64;
        // Whole pages, since that is what the fixture maps.
        file.set_len(bytes.next_multiple_of(PAGE_BYTES)).context("the size of the slots")?;
        Ok(Slots { file, path, count })
    }
}

/// Read with pread: the kernel keeps file and mapping the same.
pub struct Slots {
    file: File,
    path: PathBuf,
    count: usize,
}

/// What the instances that had this slot have written, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// Of the latest instance.
    pub pid: u32,
    pub starts_ns: Vec<u64>,
    pub ends_ns: Vec<u64>,
}

impl Slots {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn read(&self, number: usize) -> Result<Slot> {
        let mut bytes = [0; WORDS * WORD_BYTES];
        let at = (number * WORDS * WORD_BYTES) as u64;
        self.file.read_exact_at(&mut bytes, at).context("a slot")?;
        let words: Vec<u64> = bytes
            .chunks_exact(WORD_BYTES)
            .map(|chunk| chunk.try_into().map(u64::from_ne_bytes))
            .collect::<Result<_, _>>()
            .context("a slot")?;
        Slot::of_words(&words).with_context(|| format!("slot {number}"))
    }

    /// Asks the process of this slot to end.
    pub fn end(&self, number: usize) -> Result<()> {
        let raw = i32::try_from(self.read(number)?.pid).ok();
        let pid = raw.and_then(Pid::from_raw).with_context(|| format!("slot {number} has no process"))?;
        kill_process(pid, Signal::USR1).with_context(|| format!("the process of slot {number}"))
    }

    /// Whether every slot has seen so many starts.
    pub fn have_started(&self, starts: usize) -> Result<bool> {
        for number in 0..self.count {
            if self.read(number)?.starts_ns.len() < starts {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Slot {
    fn of_words(words: &[u64]) -> Result<Slot> {
        let stamps = |count: u64, at: usize| {
            let count = usize::try_from(count)?;
            ensure!(count <= RING, "more than {RING} instances: older stamps are overwritten");
            Ok(words[at..at + count].to_vec())
        };
        Ok(Slot {
            pid: u32::try_from(words[0]).context("a pid")?,
            starts_ns: stamps(words[1], STARTS_AT)?,
            ends_ns: stamps(words[2], ENDS_AT)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::{SOON, eventually};

    #[test]
    fn a_slot_tells_its_instances() {
        let fixture = Fixture::compile().unwrap();
        let slots = fixture.slots("slots", 20).unwrap();
        let run = || {
            let mut command = Command::new(fixture.program());
            command.arg("run").arg(slots.path()).arg("17").spawn().unwrap()
        };
        let mut last_ns = 0;
        for instance in 1..=2 {
            let mut child = run();
            eventually("it has started", SOON, || {
                (slots.read(17).unwrap().starts_ns.len() == instance).then_some(())
            });
            assert_eq!(slots.read(17).unwrap().pid, child.id());
            slots.end(17).unwrap();
            assert!(child.wait().unwrap().success());
            let slot = slots.read(17).unwrap();
            assert_eq!(slot.ends_ns.len(), instance);
            let (started, ended) = (slot.starts_ns[instance - 1], slot.ends_ns[instance - 1]);
            assert!(last_ns < started && started < ended, "{slot:?}");
            last_ns = ended;
        }
        assert_eq!(slots.read(16).unwrap(), Slot::default());
        assert!(!slots.have_started(1).unwrap());
    }
}
