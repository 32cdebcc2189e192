//! Records that do not get through are counted.

use probe_ebpf::LoadOptions;

use super::fixture::{Container, Fixture, is_root};
use super::told::{Programs, TRACEPOINTS};

/// With so many of a hundred dropped, `received` says how many of `deaths` may come through.
fn check(drop_percent: u32, children: u64, received: impl Fn(u64, u64) -> bool) {
    for tracepoint in TRACEPOINTS {
        let label = format!("{drop_percent} % of {children}, {tracepoint:?}");
        let mut programs = Programs::load_with(LoadOptions { tracepoint, drop_percent });
        let container = Container::new();
        let fixture = Fixture::start_in(container.dir(), &format!("bomb {children}"));
        let key = programs.new_key();
        programs.loaded.registry.register(key, fixture.member(Some(container.id()))).unwrap();
        let ended = fixture.run();
        // All have been waited for, so every record that came through is there.
        let deaths: Vec<_> = std::iter::from_fn(|| programs.loaded.reader.take_death()).collect();
        let counts = programs.counts();
        assert_eq!(counts.deaths, children + 1, "{label}");
        assert_eq!(deaths.len() as u64 + counts.lost, counts.deaths, "{label}");
        assert!(received(deaths.len() as u64, counts.deaths), "{label}: {counts:?}");
        // What comes through is as true as ever, and comes once.
        let mut pids: Vec<u32> = deaths.iter().map(|death| death.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), deaths.len(), "{label}");
        for death in deaths {
            let processes = ended.children.iter().chain([&ended.main]);
            let referee = processes.into_iter().find(|process| process.pid == death.pid).unwrap();
            assert_eq!((death.status, death.cgroup_key), (referee.status, key), "{label}");
        }
    }
}

#[test]
fn everything_is_lost() {
    if is_root("everything_is_lost") {
        check(100, 100, |received, _| received == 0);
    }
}

/// That none or all of a thousand are dropped does not happen.
#[test]
fn a_tenth_is_lost() {
    if is_root("a_tenth_is_lost") {
        check(10, 1_000, |received, deaths| received > 0 && received < deaths);
    }
}

#[test]
fn nothing_is_lost() {
    if is_root("nothing_is_lost") {
        check(0, 1_000, |received, deaths| received == deaths);
    }
}
