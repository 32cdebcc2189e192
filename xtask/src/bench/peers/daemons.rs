//! The kernel's memory daemons, kept off the measured core while contestants run.
//!
//! They run for milliseconds in the kernel without giving way, several times a second, and wake on a core that is
//! idle now and then: the less a contestant burdens its core, the more of them it would meet.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Beginnings of their names (`mm/damon/core.c`, `mm/vmscan.c`, `mm/compaction.c`, `mm/khugepaged.c`, `mm/ksm.c`). None
/// of them works for a single process: what the kernel does on a contestant's behalf stays on its core.
const DAEMONS: [&str; 5] = ["kdamond", "kswapd", "kcompactd", "khugepaged", "ksmd"];

/// Waits for the end of its input, then lets processes run where they could before: pairs of CPUs and a process.
const RESTORE: &str =
    "read -r _; while [ $# -gt 1 ]; do taskset --cpu-list --pid \"$1\" \"$2\"; shift 2; done";

/// Those that were moved can run where they could before when this is dropped, and when this process ends in any other way:
/// nobody would look for them until the next boot.
pub struct Moved {
    restorer: Option<Child>,
    count: usize,
}

impl Moved {
    /// Off this CPU. Without the right to do that, or without such daemons, nothing is moved.
    ///
    /// # Errors
    /// What brings them back cannot be started.
    pub fn off(cpu: usize) -> io::Result<Moved> {
        let other_cpus = |before: &CpuSet| {
            let mut after = *before;
            after.unset(cpu);
            (before.is_set(cpu) && after.count() > 0).then_some(after)
        };
        let with_cpus = |pid: Pid| Some((pid, sched_getaffinity(Some(pid)).ok()?));
        let mut movable: Vec<_> = daemons(Path::new("/proc")).into_iter().filter_map(with_cpus).collect();
        movable.retain(|(_, before)| other_cpus(before).is_some());
        if movable.is_empty() {
            return Ok(Moved { restorer: None, count: 0 });
        }
        let restorer = Some(restorer(&movable, Stdio::piped())?);
        let is_moved = |(pid, before): &&(Pid, CpuSet)| {
            other_cpus(before).is_some_and(|after| sched_setaffinity(Some(*pid), &after).is_ok())
        };
        Ok(Moved { restorer, count: movable.iter().filter(is_moved).count() })
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        // Waiting ends its input.
        if let Some(Err(error)) = self.restorer.as_mut().map(Child::wait) {
            eprintln!("the kernel's memory daemons may not run where they did before: {error}");
        }
    }
}

/// Brings them back at the end of `input`, of which this process has the other side: the kernel ends it with the process,
/// whatever that dies of. A group of its own, since Ctrl-C is for all of a group.
fn restorer(processes: &[(Pid, CpuSet)], input: Stdio) -> io::Result<Child> {
    let pairs = processes.iter().flat_map(|(pid, cpus)| [list(cpus), pid.as_raw_nonzero().to_string()]);
    let mut command = Command::new("sh");
    command.args(["-c", RESTORE, "sh"]).args(pairs).process_group(0);
    // Those that cannot be moved have not been moved.
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// As taskset reads it.
fn list(cpus: &CpuSet) -> String {
    let set = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu));
    set.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",")
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
    use rustix::process::{Signal, getpgid, kill_process};

    use super::*;

    #[test]
    fn they_are_brought_back_when_whoever_moved_them_is_killed() {
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("1000");
            command
        };
        let pid = |child: &Child| Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let mut moved = sleep().spawn().unwrap();
        let all = sched_getaffinity(Some(pid(&moved))).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        let (end, input) = io::pipe().unwrap();
        let mut restorer = restorer(&[(pid(&moved), one)], end.into()).unwrap();
        let mut mover = sleep().stdin(input).spawn().unwrap();
        assert_eq!(getpgid(Some(pid(&restorer))), Ok(pid(&restorer)), "Ctrl-C would end it too");
        assert_eq!(restorer.try_wait().unwrap(), None, "it does not wait");
        kill_process(pid(&mover), Signal::TERM).unwrap();
        mover.wait().unwrap();
        restorer.wait().unwrap();
        assert_eq!(sched_getaffinity(Some(pid(&moved))), Ok(one));
        moved.kill().unwrap();
        moved.wait().unwrap();
    }

    #[test]
    fn cpus_are_listed_as_taskset_reads_them() {
        let mut cpus = CpuSet::new();
        cpus.set(0);
        cpus.set(11);
        assert_eq!(list(&cpus), "0,11");
    }

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
