//! What a pinned core was busy with, and what a process used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::usage::{self, Usage};
use crate::clock::{Stopwatch, pause};

/// A core on which nothing runs is not busier than this; the tick and the housekeeping of the kernel are.
pub const QUIET_MAX: f64 = 0.03;
/// The first looks at a core, and how many there are at most.
const BASELINE: Duration = Duration::from_secs(1);
const BASELINES_MAX: u32 = 15;

/// The begin of a window on one core.
pub struct Core {
    cpu: usize,
    ticks: Ticks,
    watch: Stopwatch,
}

/// Since the machine started, in ticks of USER_HZ.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Ticks {
    /// Idle or waiting for a disk.
    idle: u64,
    /// Taken by the hypervisor for somebody else.
    stolen: u64,
}

/// What the core did in a window.
#[derive(Copy, Clone, Debug)]
pub struct Busy {
    pub wall_s: f64,
    /// Wall time less what was idle or waited for a disk. Idle is exact, while user, system and interrupt time
    /// are samples of the tick on many kernels, which alias with a loop of a millisecond.
    pub busy_s: f64,
    /// Of `busy_s`: what the hypervisor gave to another machine.
    pub stolen_s: f64,
}

impl Busy {
    pub fn share(&self) -> f64 {
        self.busy_s / self.wall_s
    }
}

impl Core {
    pub fn watch(cpu: usize) -> Result<Core> {
        Ok(Core { cpu, ticks: read(cpu)?, watch: Stopwatch::start() })
    }

    pub fn busy(&self) -> Result<Busy> {
        let wall_s = self.watch.elapsed().as_secs_f64();
        let now = read(self.cpu)?;
        let hz = rustix::param::clock_ticks_per_second() as f64;
        let idle_s = now.idle.saturating_sub(self.ticks.idle) as f64 / hz;
        let stolen_s = now.stolen.saturating_sub(self.ticks.stolen) as f64 / hz;
        Ok(Busy { wall_s, busy_s: (wall_s - idle_s).max(0.0), stolen_s })
    }

    /// The share of the core that is busy while no contestant runs. What is left of an earlier contestant may take a
    /// while to go: the core is looked at until it is as quiet as [`QUIET_MAX`] twice in a row, or for so many times
    /// that it will not be. The caller judges what is returned.
    pub fn baseline(cpu: usize) -> Result<f64> {
        let mut earlier = f64::INFINITY;
        let mut share = f64::INFINITY;
        for _ in 0..BASELINES_MAX {
            let core = Core::watch(cpu)?;
            pause(BASELINE);
            share = core.busy()?.share();
            if share.max(earlier) <= QUIET_MAX {
                return Ok(f64::midpoint(share, earlier));
            }
            earlier = share;
        }
        Ok(share)
    }
}

pub fn of_process(pid: u32) -> Result<Usage> {
    usage::of_process(pid)
}

fn read(cpu: usize) -> Result<Ticks> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    ticks(&text, cpu).with_context(|| format!("/proc/stat has no cpu{cpu}"))
}

/// The fields idle, iowait and steal of proc_stat(5).
fn ticks(stat: &str, cpu: usize) -> Option<Ticks> {
    let name = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let stolen = fields.get(7).copied().unwrap_or_default();
    Some(Ticks { idle: fields.get(3)? + fields.get(4)?, stolen })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_iowait_and_steal_are_found_by_place() {
        let stat = "cpu  1 2 3 4 5 6\ncpu0 10 20 30 400 5 6 7 80 9\ncpu10 1 1 1 1 1 1\n";
        assert_eq!(ticks(stat, 0), Some(Ticks { idle: 405, stolen: 80 }));
        assert_eq!(ticks(stat, 10), Some(Ticks { idle: 2, stolen: 0 }));
        assert_eq!(ticks(stat, 1), None);
    }
}
