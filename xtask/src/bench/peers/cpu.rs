//! What a pinned core was busy with, and what a process used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::usage::{self, Usage};
use crate::clock::{Stopwatch, pause};

/// The begin of a window on one core.
pub struct Core {
    cpu: usize,
    idle_ticks: u64,
    watch: Stopwatch,
}

/// What the core did in a window.
#[derive(Copy, Clone, Debug)]
pub struct Busy {
    pub wall_s: f64,
    /// Wall time less what was idle or waited for a disk. Idle is exact, while user, system and interrupt time
    /// are samples of the tick on many kernels, which alias with a loop of a millisecond.
    pub busy_s: f64,
}

impl Core {
    pub fn watch(cpu: usize) -> Result<Core> {
        Ok(Core { cpu, idle_ticks: read_idle(cpu)?, watch: Stopwatch::start() })
    }

    pub fn busy(&self) -> Result<Busy> {
        let wall_s = self.watch.elapsed().as_secs_f64();
        let idle_ticks = read_idle(self.cpu)?.saturating_sub(self.idle_ticks);
        let idle_s = idle_ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Busy { wall_s, busy_s: (wall_s - idle_s).max(0.0) })
    }

    /// The share of the core that is busy while no contestant runs.
    pub fn baseline(cpu: usize, length: Duration) -> Result<f64> {
        let core = Core::watch(cpu)?;
        pause(length);
        let busy = core.busy()?;
        Ok(busy.busy_s / busy.wall_s)
    }
}

pub fn of_process(pid: u32) -> Result<Usage> {
    usage::of_process(pid)
}

fn read_idle(cpu: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    idle_ticks(&text, cpu).with_context(|| format!("/proc/stat has no cpu{cpu}"))
}

/// The fields idle and iowait of proc_stat(5).
fn idle_ticks(stat: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu} ");
    let fields = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let mut fields = fields.split_whitespace().skip(3);
    let idle: u64 = fields.next()?.parse().ok()?;
    let iowait: u64 = fields.next()?.parse().ok()?;
    Some(idle + iowait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_iowait_are_the_fourth_and_fifth() {
        let stat = "cpu  1 2 3 4 5 6\ncpu0 10 20 30 400 5 6 7\ncpu10 1 1 1 1 1 1\n";
        assert_eq!(idle_ticks(stat, 0), Some(405));
        assert_eq!(idle_ticks(stat, 10), Some(2));
        assert_eq!(idle_ticks(stat, 1), None);
    }
}
