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

/// Waits for the end of its input, then lets processes run where they could before: pairs of CPUs and a process. Some may
/// have ended.
const RESTORE: &str = r#"
read -r _
failed=0
while [ $# -gt 1 ]; do
    "$0" --cpu-list --pid "$1" "$2" || [ ! -e "/proc/$2" ] || failed=1
    shift 2
done
exit $failed
"#;
const TASKSET: &str = "taskset";

/// Those that were moved can run where they could before when this is dropped, and when this process ends in any other way:
/// nobody would look for them until the next boot.
pub struct Moved {
    restorer: Option<Child>,
    /// With the CPUs where they could run before.
    processes: Vec<(Pid, CpuSet)>,
}

impl Moved {
    /// Off this CPU. Without the right to do that, without such daemons, or without a way back, nothing is moved.
    ///
    /// # Errors
    /// What brings them back cannot be started.
    pub fn off(cpu: usize) -> io::Result<Moved> {
        Moved::these_off(cpu, daemons(Path::new("/proc")), TASKSET)
    }

    fn these_off(cpu: usize, processes: Vec<Pid>, taskset: &str) -> io::Result<Moved> {
        let other_cpus = |before: &CpuSet| {
            let mut after = *before;
            after.unset(cpu);
            (before.is_set(cpu) && after.count() > 0).then_some(after)
        };
        let with_cpus = |pid: Pid| Some((pid, sched_getaffinity(Some(pid)).ok()?));
        // Where they are already: whether that is allowed.
        let is_allowed = |(pid, before): &(Pid, CpuSet)| sched_setaffinity(Some(*pid), before).is_ok();
        let mut movable: Vec<_> = processes.into_iter().filter_map(with_cpus).filter(is_allowed).collect();
        movable.retain(|(_, before)| other_cpus(before).is_some());
        if movable.is_empty() {
            return Ok(Moved { restorer: None, processes: movable });
        }
        // The way back is tried before anything is moved: not every taskset can do this.
        if !restorer(taskset, &movable, Stdio::null())?.wait()?.success() {
            eprintln!(
                "the kernel's memory daemons stay on CPU {cpu}, and tail lateness may include them: `{taskset} --cpu-list \
                 --pid`, which would bring them back, does not work here; install util-linux"
            );
            return Ok(Moved { restorer: None, processes: Vec::new() });
        }
        let restorer = Some(restorer(taskset, &movable, Stdio::piped())?);
        movable.retain(|(pid, before)| {
            other_cpus(before).is_some_and(|after| sched_setaffinity(Some(*pid), &after).is_ok())
        });
        Ok(Moved { restorer, processes: movable })
    }

    pub fn count(&self) -> usize {
        self.processes.len()
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        // Waiting ends its input.
        if let Some(Err(error)) = self.restorer.as_mut().map(Child::wait) {
            eprintln!("cannot wait for what brings the kernel's memory daemons back: {error}");
        }
        for (pid, before) in &self.processes {
            if let Some(warning) = still_moved(*pid, before) {
                eprintln!("{warning}");
            }
        }
    }
}

/// What is wrong with a process that cannot run where it could before, and the cure. None where it can, or has ended.
fn still_moved(pid: Pid, before: &CpuSet) -> Option<String> {
    let now = sched_getaffinity(Some(pid)).ok().filter(|now| now != before)?;
    let (id, now, before) = (pid.as_raw_nonzero(), list(&now), list(before));
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    Some(format!(
        "{} ({id}) still runs on CPUs {now} only; as root: {TASKSET} --cpu-list --pid {before} {id}",
        name.trim()
    ))
}

/// Brings them back at the end of `input`, of which this process has the other side: the kernel ends it with the process,
/// whatever that dies of. A group of its own, since Ctrl-C is for all of a group. What fails is told on standard error: there
/// may be nobody else left to tell it.
fn restorer(taskset: &str, processes: &[(Pid, CpuSet)], input: Stdio) -> io::Result<Child> {
    let pairs = processes.iter().flat_map(|(pid, cpus)| [list(cpus), pid.as_raw_nonzero().to_string()]);
    let mut command = Command::new("sh");
    command.args(["-c", RESTORE, taskset]).args(pairs).process_group(0);
    command.stdin(input).stdout(Stdio::null()).spawn()
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

    fn sleep() -> Command {
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
    }

    fn first_of(cpus: &CpuSet) -> usize {
        (0..CpuSet::MAX_CPU).find(|cpu| cpus.is_set(*cpu)).unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn they_are_brought_back_when_whoever_moved_them_is_killed() {
        let moved = sleep().spawn().unwrap();
        let mut one = CpuSet::new();
        one.set(first_of(&sched_getaffinity(Some(pid(&moved))).unwrap()));
        let (pipe_end, input) = io::pipe().unwrap();
        let mut restorer = restorer(TASKSET, &[(pid(&moved), one)], pipe_end.into()).unwrap();
        let mut mover = sleep().stdin(input).spawn().unwrap();
        assert_eq!(getpgid(Some(pid(&restorer))), Ok(pid(&restorer)), "Ctrl-C would end it too");
        assert_eq!(restorer.try_wait().unwrap(), None, "it does not wait");
        kill_process(pid(&mover), Signal::TERM).unwrap();
        mover.wait().unwrap();
        assert!(restorer.wait().unwrap().success());
        assert_eq!(sched_getaffinity(Some(pid(&moved))), Ok(one));
        end(moved);
    }

    #[test]
    fn they_are_brought_back_at_the_end() {
        let process = sleep().spawn().unwrap();
        let before = sched_getaffinity(Some(pid(&process))).unwrap();
        let moved = Moved::these_off(first_of(&before), vec![pid(&process)], TASKSET).unwrap();
        // There is no other CPU to go to where there is one alone.
        let can_move = before.count() > 1;
        assert_eq!(moved.count(), usize::from(can_move));
        assert_eq!(sched_getaffinity(Some(pid(&process))) == Ok(before), !can_move);
        drop(moved);
        assert_eq!(sched_getaffinity(Some(pid(&process))), Ok(before));
        end(process);
    }

    #[test]
    fn they_stay_where_nothing_could_bring_them_back() {
        let process = sleep().spawn().unwrap();
        let before = sched_getaffinity(Some(pid(&process))).unwrap();
        for taskset in ["false", "/nonexistent/taskset"] {
            let moved = Moved::these_off(first_of(&before), vec![pid(&process)], taskset).unwrap();
            assert_eq!(moved.count(), 0, "with {taskset}");
            assert_eq!(sched_getaffinity(Some(pid(&process))), Ok(before), "with {taskset}");
        }
        end(process);
    }

    #[test]
    fn one_that_is_still_moved_is_told_with_the_cure() {
        let process = sleep().spawn().unwrap();
        let id = pid(&process);
        let here = sched_getaffinity(Some(id)).unwrap();
        assert_eq!(still_moved(id, &here), None);
        let mut more = here;
        more.set(CpuSet::MAX_CPU - 1);
        let told = still_moved(id, &more).unwrap();
        let cure = format!("taskset --cpu-list --pid {} {}", list(&more), id.as_raw_nonzero());
        assert!(told.starts_with("sleep (") && told.ends_with(&cure), "{told}");
        end(process);
        assert_eq!(still_moved(id, &more), None, "it has ended");
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
