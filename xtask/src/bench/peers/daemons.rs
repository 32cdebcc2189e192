//! The kernel's memory daemons, kept off the measured core while contestants run.
//!
//! They run for milliseconds in the kernel without giving way, several times a second, and wake on a core that is
//! idle now and then: the less a contestant burdens its core, the more of them it would meet.

use std::fs;
use std::path::Path;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Beginnings of their names (`mm/damon/core.c`, `mm/vmscan.c`, `mm/compaction.c`, `mm/khugepaged.c`, `mm/ksm.c`). None
/// of them works for a single process: what the kernel does on a contestant's behalf stays on its core.
const DAEMONS: [&str; 5] = ["kdamond", "kswapd", "kcompactd", "khugepaged", "ksmd"];

/// Where those that were moved could run before; they can again when this is dropped.
pub struct Moved(Vec<(Pid, CpuSet)>);

impl Moved {
    /// Off this CPU. Without the right to do that, or without such daemons, nothing is moved.
    pub fn off(cpu: usize) -> Moved {
        let move_off = |pid: Pid| {
            let before = sched_getaffinity(Some(pid)).ok()?;
            let mut after = before;
            after.unset(cpu);
            let may = before.is_set(cpu) && after.count() > 0;
            (may && sched_setaffinity(Some(pid), &after).is_ok()).then_some((pid, before))
        };
        Moved(daemons(Path::new("/proc")).into_iter().filter_map(move_off).collect())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (pid, before) in &self.0 {
            let _gone = sched_setaffinity(Some(*pid), before);
        }
    }
}

/// Children of kthreadd, which is process 2, with such a name.
fn daemons(proc: &Path) -> Vec<Pid> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let is_daemon = |path: &Path| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let (front, rest) = stat.rsplit_once(')')?;
        let name = front.split_once('(')?.1;
        let parent = rest.split_whitespace().nth(1)?;
        Some(parent == "2" && DAEMONS.iter().any(|daemon| name.starts_with(daemon)))
    };
    entries
        .filter(|entry| is_daemon(&entry.path()) == Some(true))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_daemons_of_the_kernel_are_moved() {
        let proc = tempfile::tempdir().unwrap();
        let stats = [
            (2, "2 (kthreadd) S 0 0"),
            (70, "70 (kswapd0) S 2 0"),
            (76, "76 (kdamond.0) I 2 0"),
            (80, "80 (kworker/u8:0-kvfree_rcu) I 2 0"),
            (90, "90 (kswapd) x) S 1 90"),
        ];
        for (pid, stat) in stats {
            let dir = proc.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("stat"), stat).unwrap();
        }
        let mut found: Vec<i32> =
            daemons(proc.path()).into_iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        found.sort_unstable();
        assert_eq!(found, [70, 76]);
    }
}
