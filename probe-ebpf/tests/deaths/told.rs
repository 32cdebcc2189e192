//! The programs with tables of their own, and everything that they have told.

use std::os::fd::AsFd;

use probe_ebpf::abi::{Counts, Death, PROCESS_EXIT_COUNTED, STATUS_KNOWN, TICK_NS};
use probe_ebpf::{LoadOptions, Loaded, Tracepoint, load};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::fixture::{Ended, Fixture, Reaped, WATCHDOG};

/// Both programs at `sched_process_exit`. On a kernel before 6.16 they are the same one.
pub const TRACEPOINTS: [Tracepoint; 2] = [Tracepoint::Best, Tracepoint::Counted];

/// Key of the process whose record is the last one that a collection looks at.
const SENTINEL: u64 = u64::MAX;

/// One load.
pub struct Programs {
    pub loaded: Loaded,
    keys: u64,
    /// Of the deaths that were counted so many were collected.
    collected: u64,
}

/// A record, as far as the referees can tell it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Told {
    pub process: Reaped,
    pub init_key: u64,
    pub cgroup_key: u64,
}

impl Programs {
    pub fn load(tracepoint: Tracepoint) -> Programs {
        Programs::load_with(LoadOptions { tracepoint, drop_percent: 0 })
    }

    pub fn load_with(options: LoadOptions) -> Programs {
        let loaded = load(options).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        if options.tracepoint == Tracepoint::Counted {
            assert_eq!(loaded.exit_program, PROCESS_EXIT_COUNTED);
        }
        Programs { loaded, keys: 0, collected: 0 }
    }

    /// One that nothing is registered under.
    pub fn new_key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    pub fn counts(&self) -> Counts {
        self.loaded.reader.counts().unwrap()
    }

    /// Everything that was told of processes that have been waited for, oldest first. It is all there when the record
    /// of a process that ends now is: a process can be waited for only after its threads have passed the tracepoint,
    /// and the ring buffer keeps the order.
    pub fn collect(&mut self) -> Vec<Death> {
        let sentinel = Fixture::start("code 0");
        let member = sentinel.member(None);
        self.loaded.registry.register(SENTINEL, member).unwrap();
        let pid = sentinel.run().main.pid;
        let mut deaths = Vec::new();
        loop {
            match self.loaded.reader.take_death() {
                Some(death) if death.init_key == SENTINEL => {
                    assert_eq!(death.pid, pid, "{death:?}");
                    break;
                }
                Some(death) => deaths.push(death),
                None => assert!(self.wait(), "no record of the sentinel; so far: {deaths:?}"),
            }
        }
        assert_eq!(self.loaded.reader.take_death(), None, "after the sentinel");
        self.loaded.registry.unregister(SENTINEL, member);
        let counts = self.counts();
        assert_eq!(counts.deaths - self.collected, deaths.len() as u64 + 1, "{counts:?} {deaths:?}");
        assert_eq!(counts.lost, 0);
        self.collected = counts.deaths;
        deaths
    }

    /// Sleeps until a record is there; false when the watchdog bites.
    pub fn wait(&self) -> bool {
        let timeout = Timespec::try_from(WATCHDOG).unwrap();
        let mut fds = [PollFd::from_borrowed_fd(self.loaded.reader.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    }

    /// Collects, and compares with what the referees have seen: `expected`, in any order.
    pub fn check(&mut self, label: &str, ended: &Ended, expected: &[Told]) {
        let deaths = self.collect();
        let mut found: Vec<Told> = deaths.iter().map(Told::of).collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        let only_in = |these: &[Told], those: &[Told]| -> Vec<Told> {
            these.iter().filter(|told| !those.contains(told)).copied().collect()
        };
        // The whole lists of a thousand would not be read by anybody.
        assert!(
            found == expected,
            "{label}: {} records, {} expected; not expected: {:?}; missing: {:?}; told twice: {:?}",
            found.len(),
            expected.len(),
            only_in(&found, &expected),
            only_in(&expected, &found),
            found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect::<Vec<_>>()
        );
        for death in &deaths {
            check_rest(label, death, ended);
        }
    }
}

impl Told {
    fn of(death: &Death) -> Told {
        Told {
            process: Reaped { pid: death.pid, status: death.status },
            init_key: death.init_key,
            cgroup_key: death.cgroup_key,
        }
    }
}

/// What does not depend on the way of dying.
fn check_rest(label: &str, death: &Death, ended: &Ended) {
    assert_eq!((death.flags, death.reserved), (STATUS_KNOWN, 0), "{label}: {death:?}");
    assert_eq!(&death.comm, b"die\0\0\0\0\0\0\0\0\0\0\0\0\0", "{label}: {death:?}");
    assert!((ended.began_ns..=ended.ended_ns).contains(&death.at_ns), "{label}: {death:?} {ended:?}");
    let start_ticks = death.start_boot_ns / TICK_NS;
    if death.pid == ended.main.pid {
        assert_eq!(start_ticks, ended.start_ticks, "{label}: {death:?}");
    } else {
        assert!(start_ticks >= ended.start_ticks, "{label}: a child is not older: {death:?}");
    }
}
