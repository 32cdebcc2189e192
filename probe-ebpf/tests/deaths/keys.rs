//! Whose deaths are told: registration by cgroup and by main process, and what must not count.

use probe_ebpf::Member;

use super::fixture::{Container, Ended, Fixture, cgroup_id, is_root};
use super::told::{Programs, TRACEPOINTS, Told};

/// Each step on both programs, every one with tables of its own.
fn for_both(test: &str, step: impl Fn(&mut Programs)) {
    if !is_root(test) {
        return;
    }
    for tracepoint in TRACEPOINTS {
        step(&mut Programs::load(tracepoint));
    }
}

fn register(programs: &Programs, key: u64, member: Member) {
    programs.loaded.registry.register(key, member).unwrap();
}

/// Deaths and losses so far. Marks are those of any victim on the machine, other tests' too.
fn counted(programs: &Programs) -> (u64, u64) {
    let counts = programs.counts();
    (counts.deaths, counts.lost)
}

/// The main process alone, under these keys.
fn told(ended: &Ended, init_key: u64, cgroup_key: u64) -> [Told; 1] {
    [Told { process: ended.main, init_key, cgroup_key }]
}

#[test]
fn nested_cgroups_count() {
    for_both("nested_cgroups_count", |programs| {
        // Further down than the programs look: they look from the root downwards.
        let deep = ["d"; 40].join("/");
        for path in ["main", "a/b", deep.as_str()] {
            let container = Container::new();
            let key = programs.new_key();
            register(programs, key, container.member());
            let ended = Fixture::start_in(&container.below(path), "code 3").run();
            programs.check(path, &ended, &told(&ended, 0, key));
        }
    });
}

#[test]
fn innermost_registration_counts() {
    for_both("innermost_registration_counts", |programs| {
        let container = Container::new();
        let (outer, inner) = (programs.new_key(), programs.new_key());
        register(programs, outer, container.member());
        let below = container.below("a");
        register(programs, inner, Member { cgroup_id: Some(cgroup_id(&below)), ..container.member() });
        for (dir, key) in [(below, inner), (container.below("a/b"), inner), (container.below("c"), outer)] {
            let ended = Fixture::start_in(&dir, "code 3").run();
            programs.check(&dir.display().to_string(), &ended, &told(&ended, 0, key));
        }
    });
}

#[test]
fn cgroup_below_the_registered_one_is_told() {
    for_both("cgroup_below_the_registered_one_is_told", |programs| {
        let container = Container::new();
        let (outer, inner) = (programs.new_key(), programs.new_key());
        register(programs, outer, container.member());
        let (main, probe) = (container.below("main"), container.below("probe"));
        let nested = container.below("nested");
        register(programs, inner, Member { cgroup_id: Some(cgroup_id(&nested)), ..container.member() });
        // Of the way from the innermost registered cgroup to the process's own, the first step.
        let cases = [
            (container.dir().to_owned(), 0),
            (main.clone(), cgroup_id(&main)),
            (container.below("probe/7/own"), cgroup_id(&probe)),
            (nested, 0),
            (container.below("nested/probe/7"), cgroup_id(&container.below("nested/probe"))),
        ];
        for (dir, expected) in cases {
            Fixture::start_in(&dir, "code 3").run();
            let told: Vec<u64> = programs.collect().iter().map(|death| death.cgroup_child_id).collect();
            assert_eq!(told, [expected], "{}", dir.display());
        }
        // The main process of a container without a cgroup.
        let fixture = Fixture::start("code 3");
        let key = programs.new_key();
        register(programs, key, fixture.member(None));
        fixture.run();
        let told: Vec<u64> = programs.collect().iter().map(|death| death.cgroup_child_id).collect();
        assert_eq!(told, [0]);
    });
}

#[test]
fn main_process_may_be_elsewhere() {
    for_both("main_process_may_be_elsewhere", |programs| {
        // The main process of one container in the cgroup of another: both are told in the one record.
        let container = Container::new();
        let (by_cgroup, by_init) = (programs.new_key(), programs.new_key());
        register(programs, by_cgroup, container.member());
        let fixture = Fixture::start_in(container.dir(), "code 3");
        register(programs, by_init, fixture.member(None));
        let ended = fixture.run();
        programs.check("two containers", &ended, &told(&ended, by_init, by_cgroup));
    });
}

#[test]
fn others_cross_nothing() {
    for_both("others_cross_nothing", |programs| {
        let (container, other) = (Container::new(), Container::new());
        let key = programs.new_key();
        let inner = container.below("a");
        register(programs, key, Member { cgroup_id: Some(cgroup_id(&inner)), ..container.member() });
        let before = counted(programs);
        // Beside it, above it, in its sibling, and in the cgroup of the tests.
        for dir in [other.dir(), container.dir(), &container.below("b")] {
            Fixture::start_in(dir, "each 10 code 3").run();
        }
        Fixture::start("each 10 code 3").run();
        // One that was there and has left before its end.
        let left = Fixture::start_in(&inner, "code 3");
        left.enter(other.dir());
        left.run();
        assert_eq!(counted(programs), before);
        assert_eq!(programs.collect(), []);
        // One that comes late.
        let came = Fixture::start_in(other.dir(), "code 3");
        came.enter(&inner);
        let ended = came.run();
        programs.check("came late", &ended, &told(&ended, 0, key));
    });
}

#[test]
fn reused_pid_is_not_the_main_process() {
    for_both("reused_pid_is_not_the_main_process", |programs| {
        for (earlier, later) in [(1, 0), (0, 1)] {
            let container = Container::new();
            // As if another process had had this pid when it was registered.
            let shifted = |fixture: &Fixture, cgroup_id| {
                let member = fixture.member(cgroup_id);
                Member { start_ticks: member.start_ticks + later - earlier, ..member }
            };
            let fixture = Fixture::start_in(container.dir(), "code 3");
            let key = programs.new_key();
            register(programs, key, shifted(&fixture, None));
            let before = counted(programs);
            fixture.run();
            assert_eq!(counted(programs), before);
            assert_eq!(programs.collect(), []);

            let fixture = Fixture::start_in(container.dir(), "code 3");
            register(programs, key, shifted(&fixture, Some(container.id())));
            let ended = fixture.run();
            programs.check("reused", &ended, &told(&ended, 0, key));
        }
    });
}

#[test]
fn unregistered_is_silent() {
    for_both("unregistered_is_silent", |programs| {
        let container = Container::new();
        let fixture = Fixture::start_in(container.dir(), "each 3 code 3");
        let member = fixture.member(Some(container.id()));
        let key = programs.new_key();
        register(programs, key, member);
        programs.loaded.registry.unregister(key, member);
        fixture.run();
        assert_eq!(programs.collect(), []);
    });
}

#[test]
fn later_registration_stays() {
    for_both("later_registration_stays", |programs| {
        let container = Container::new();
        let fixture = Fixture::start_in(container.dir(), "code 3");
        let member = fixture.member(Some(container.id()));
        let (earlier, later) = (programs.new_key(), programs.new_key());
        register(programs, earlier, member);
        register(programs, later, member);
        // The container that had the numbers before is forgotten only now.
        programs.loaded.registry.unregister(earlier, member);
        let ended = fixture.run();
        programs.check("later", &ended, &told(&ended, later, later));
    });
}

#[test]
fn sleeper_is_woken() {
    for_both("sleeper_is_woken", |programs| {
        // Each time the ring buffer is empty: the first record after that has to wake.
        for _ in 0..20 {
            let fixture = Fixture::start("code 3");
            let key = programs.new_key();
            register(programs, key, fixture.member(None));
            let ended = std::thread::scope(|scope| {
                let running = scope.spawn(|| fixture.run());
                assert!(programs.wait(), "nobody was woken");
                running.join().unwrap()
            });
            programs.check("woken", &ended, &told(&ended, key, 0));
        }
    });
}

#[test]
fn loads_do_not_share_tables() {
    for_both("loads_do_not_share_tables", |programs| {
        let mut others = Programs::load(TRACEPOINTS[1]);
        let fixture = Fixture::start("code 3");
        let key = programs.new_key();
        register(programs, key, fixture.member(None));
        let ended = fixture.run();
        programs.check("own", &ended, &told(&ended, key, 0));
        assert_eq!(others.collect(), []);
    });
}
