//! The clocks of the machine. Nothing else in defib reads one: time is a value that is passed down.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::model::time::{Mono, Now, Wall};

const NS_PER_S: i64 = 1_000_000_000;

/// Both clocks, read one after the other (vDSO, no system call).
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// CLOCK_MONOTONIC: for deadlines and durations.
pub fn mono() -> Mono {
    let ns = read_ns(ClockId::Monotonic);
    Mono::from_ns(u64::try_from(ns).unwrap_or(0))
}

/// CLOCK_BOOTTIME in nanoseconds: what the kernel dates process starts with. Goes on while the machine is suspended.
pub fn boot_ns() -> u64 {
    u64::try_from(read_ns(ClockId::Boottime)).unwrap_or(0)
}

/// CLOCK_REALTIME: for showing to people.
pub fn wall() -> Wall {
    Wall::from_ns(read_ns(ClockId::Realtime))
}

/// CPU time of all threads of this process so far.
pub fn process_cpu() -> Duration {
    Duration::from_nanos(u64::try_from(read_ns(ClockId::ProcessCPUTime)).unwrap_or(0))
}

/// CPU time of the calling thread so far.
pub fn thread_cpu() -> Duration {
    Duration::from_nanos(u64::try_from(read_ns(ClockId::ThreadCPUTime)).unwrap_or(0))
}

fn read_ns(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(NS_PER_S).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward() {
        let first = now();
        let second = now();
        assert!(second.mono >= first.mono);
        assert!(first.mono > Mono::ZERO);
        let cpu = thread_cpu();
        assert!(process_cpu() >= cpu && thread_cpu() >= cpu);
        assert!(first.wall.as_s() > 1_700_000_000, "the machine's date is {:?}", first.wall);
    }
}
