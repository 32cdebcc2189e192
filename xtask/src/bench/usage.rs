//! What processes have used, from /proc.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use test_support::procs;

/// CPU time and memory of a set of processes, at one moment.
#[derive(Copy, Clone, Default, Debug)]
pub struct Usage {
    /// User and system time of all threads since the start of each process, in seconds.
    pub cpu_s: f64,
    /// Resident memory; shared pages count in each process.
    pub rss_bytes: u64,
    /// Resident memory; a page shared by n processes counts as one n-th in each.
    pub pss_bytes: u64,
}

/// The agent and those of its children that run the same binary (its spawner), but not its containers.
pub fn of_agent(agent: u32, binary: &Path) -> Result<Usage> {
    let mut total = of_process(agent).with_context(|| format!("defib (pid {agent}) is gone"))?;
    for child in procs::children(agent) {
        if fs::read_link(format!("/proc/{}/exe", child.pid)).is_ok_and(|exe| exe == binary) {
            let usage = of_process(child.pid)?;
            total.cpu_s += usage.cpu_s;
            total.rss_bytes += usage.rss_bytes;
            total.pss_bytes += usage.pss_bytes;
        }
    }
    Ok(total)
}

/// One process with all its threads.
pub fn of_process(pid: u32) -> Result<Usage> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let stat = read("stat")?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("unexpected form of /proc/{pid}/stat"))?;
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    Ok(Usage {
        cpu_s: ticks as f64 / ticks_per_s as f64,
        rss_bytes: kib_field(&read("status")?, "VmRSS:")? * 1024,
        pss_bytes: kib_field(&read("smaps_rollup")?, "Pss:")? * 1024,
    })
}

/// utime + stime: fields 14 and 15 of proc(5), counted after the name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kib_field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {name} in /proc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_counted_from_the_last_parenthesis() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 3 0 5 1 1";
        assert_eq!(cpu_ticks(stat), Some(42));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = of_process(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.pss_bytes > 0 && usage.pss_bytes <= usage.rss_bytes * 2);
    }
}
