//! Memory and cpu limits, in the words of either version.

use std::io;
use std::path::Path;

use super::{CgroupError, write_control};

/// Kubernetes' period, and the smallest quota that the kernel takes, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// `resources.limits` of one container; None is no limit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millicores: Option<u64>,
    /// With a memory limit on v2: when one process is killed for memory, all of them are (`memory.oom.group`).
    pub kills_together: bool,
}

impl Limits {
    /// Nothing is limited.
    pub const NONE: Limits = Limits { memory_bytes: None, cpu_millicores: None, kills_together: true };
}

/// v2: `memory.max` with no swap beside it.
pub(super) fn memory_v2(dir: &Path, bytes: u64, kills_together: bool) -> Result<(), CgroupError> {
    set(dir, "memory.max", &bytes.to_string())?;
    set_if_there(dir, "memory.swap.max", "0")?;
    set_if_there(dir, "memory.oom.group", if kills_together { "1" } else { "0" })
}

/// v1: memory, then memory and swap together at the same value (the kernel wants this order).
pub(super) fn memory_v1(dir: &Path, bytes: u64) -> Result<(), CgroupError> {
    set(dir, "memory.limit_in_bytes", &bytes.to_string())?;
    set_if_there(dir, "memory.memsw.limit_in_bytes", &bytes.to_string())
}

pub(super) fn cpu_v2(dir: &Path, millicores: u64) -> Result<(), CgroupError> {
    set(dir, "cpu.max", &format!("{} {CPU_PERIOD_US}", quota_us(millicores)))
}

pub(super) fn cpu_v1(dir: &Path, millicores: u64) -> Result<(), CgroupError> {
    set(dir, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
    set(dir, "cpu.cfs_quota_us", &quota_us(millicores).to_string())
}

fn quota_us(millicores: u64) -> u64 {
    (millicores.saturating_mul(CPU_PERIOD_US) / 1_000).max(CPU_QUOTA_MIN_US)
}

fn set(dir: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    write_control("set a limit in", &dir.join(file), value)
}

/// Swap accounting and OOM groups depend on the kernel's build and age.
fn set_if_there(dir: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    match set(dir, file, value) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas() {
        for (millicores, expected_us) in [(1_000, 100_000), (250, 25_000), (4_000, 400_000), (1, 1_000)] {
            assert_eq!(quota_us(millicores), expected_us, "{millicores}m");
        }
    }

    /// Control files as plain files: `files` are there before, `expected` is what they hold then.
    fn check(files: &[&str], apply: impl Fn(&Path) -> Result<(), CgroupError>, expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        apply(dir.path()).unwrap();
        let found: Vec<String> =
            files.iter().map(|file| std::fs::read_to_string(dir.path().join(file)).unwrap()).collect();
        assert_eq!(found, expected, "{files:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), files.len(), "no file was made");
    }

    #[test]
    fn the_words_of_both_versions() {
        check(&["memory.max"], |dir| memory_v2(dir, 64, true), &["64"]);
        for (kills_together, group) in [(true, "1"), (false, "0")] {
            check(
                &["memory.max", "memory.swap.max", "memory.oom.group"],
                |dir| memory_v2(dir, 64, kills_together),
                &["64", "0", group],
            );
        }
        check(&["memory.limit_in_bytes"], |dir| memory_v1(dir, 64), &["64"]);
        check(
            &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
            |dir| memory_v1(dir, 64),
            &["64", "64"],
        );
        check(&["cpu.max"], |dir| cpu_v2(dir, 250), &["25000 100000"]);
        check(&["cpu.cfs_period_us", "cpu.cfs_quota_us"], |dir| cpu_v1(dir, 1_500), &["100000", "150000"]);
        let dir = tempfile::tempdir().unwrap();
        let error = memory_v2(dir.path(), 64, true).unwrap_err();
        assert!(error.to_string().contains("memory.max"), "{error}");
    }
}
