//! Every way to die, under every kind of registration.

use std::fs;

use probe_ebpf::{Member, Tracepoint};

use super::fixture::{CORE, Container, Fixture, is_root};
use super::told::{Programs, TRACEPOINTS, Told};

/// What a container is registered by.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum By {
    Cgroup,
    Init,
    Both,
}

/// What the status of the main process must be by wait(2), so that a case is what its name says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Fate {
    Code(u32),
    /// With a core or without.
    Signal(i32),
    /// With a core, where the kernel writes cores to the working folder.
    Core(i32),
    /// Depends on which thread was the last, or on the kernel.
    Any,
}

/// Way of die.c, fate of the main process, and how many children it has.
type Case<'a> = (&'a str, Fate, usize);

/// Runs each case under each registration, on both programs.
fn check(cases: &[Case<'_>]) {
    for tracepoint in TRACEPOINTS {
        let mut programs = Programs::load(tracepoint);
        for case in cases {
            for by in [By::Cgroup, By::Init, By::Both] {
                check_one(&mut programs, tracepoint, *case, by);
            }
        }
    }
}

fn check_one(programs: &mut Programs, tracepoint: Tracepoint, case: Case<'_>, by: By) {
    let (way, fate, children) = case;
    let label = format!("`{way}` by {by:?}, {tracepoint:?}");
    let container = Container::new();
    let fixture = Fixture::start_in(container.dir(), way);
    let key = programs.new_key();
    let member = match by {
        By::Cgroup => container.member(),
        By::Init => fixture.member(None),
        By::Both => fixture.member(Some(container.id())),
    };
    programs.loaded.registry.register(key, member).unwrap();
    let ended = fixture.run();
    check_fate(&label, ended.main.status, fate);
    assert_eq!(ended.children.len(), children, "{label}");

    let init_key = if by == By::Cgroup { 0 } else { key };
    let cgroup_key = if by == By::Init { 0 } else { key };
    let mut expected = vec![Told { process: ended.main, init_key, cgroup_key }];
    if by != By::Init {
        let told = |process| Told { process, init_key: 0, cgroup_key };
        expected.extend(ended.children.iter().copied().map(told));
    }
    programs.check(&label, &ended, &expected);
    forget(programs, key, member);
}

/// The next container may get the same pid or cgroup id.
fn forget(programs: &Programs, key: u64, member: Member) {
    programs.loaded.registry.unregister(key, member);
}

fn check_fate(label: &str, status: u32, fate: Fate) {
    match fate {
        Fate::Code(code) => assert_eq!(status, code << 8, "{label}"),
        Fate::Signal(signal) => assert_eq!(status & !CORE, signal.cast_unsigned(), "{label}"),
        Fate::Core(signal) => {
            assert_eq!(status & !CORE, signal.cast_unsigned(), "{label}");
            // Elsewhere a program takes the cores, and may refuse them.
            let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
            if pattern.starts_with("core") {
                assert_ne!(status & CORE, 0, "{label}: no core");
            }
        }
        Fate::Any => {}
    }
}

#[test]
fn exit_codes() {
    if !is_root("exit_codes") {
        return;
    }
    check(&[
        ("code 0", Fate::Code(0), 0),
        ("code 1", Fate::Code(1), 0),
        ("code 255", Fate::Code(255), 0),
        ("code -1", Fate::Code(255), 0),
        ("code 256", Fate::Code(0), 0),
        ("raw 9", Fate::Code(9), 0),
        ("group 7", Fate::Code(7), 0),
    ]);
}

#[test]
fn fatal_signals() {
    if !is_root("fatal_signals") {
        return;
    }
    let signals = [
        libc::SIGTERM,
        libc::SIGKILL,
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGABRT,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSYS,
        libc::SIGTRAP,
        libc::SIGALRM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGPIPE,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGSTKFLT,
        libc::SIGRTMIN() + 3,
        libc::SIGRTMAX(),
    ];
    let ways: Vec<(String, Fate)> =
        signals.iter().map(|signal| (format!("signal {signal}"), Fate::Signal(*signal))).collect();
    let cases: Vec<Case<'_>> = ways.iter().map(|(way, fate)| (way.as_str(), *fate, 0)).collect();
    check(&cases);
}

#[test]
fn cores() {
    if !is_root("cores") {
        return;
    }
    check(&[
        ("core fault", Fate::Core(libc::SIGSEGV), 0),
        ("core abort", Fate::Core(libc::SIGABRT), 0),
        ("core signal 3", Fate::Core(libc::SIGQUIT), 0),
        ("core signal 15", Fate::Signal(libc::SIGTERM), 0),
        ("core threads 8 thread fault", Fate::Core(libc::SIGSEGV), 0),
        ("core leader-raw fault", Fate::Core(libc::SIGSEGV), 0),
        ("fault", Fate::Signal(libc::SIGSEGV), 0),
        ("abort", Fate::Signal(libc::SIGABRT), 0),
    ]);
}

#[test]
fn leader_ends_first() {
    if !is_root("leader_ends_first") {
        return;
    }
    check(&[
        ("leader-raw group 7", Fate::Code(7), 0),
        ("leader-pthread group 7", Fate::Code(7), 0),
        // Older kernels give the leader's status, newer ones the last thread's: whatever wait(2) says.
        ("leader-raw raw 9", Fate::Any, 0),
        ("leader-pthread raw 9", Fate::Any, 0),
        ("leader-raw signal 15", Fate::Signal(libc::SIGTERM), 0),
        ("leader-raw exec", Fate::Code(5), 0),
    ]);
}

#[test]
fn threads_of_one_process() {
    if !is_root("threads_of_one_process") {
        return;
    }
    check(&[
        ("threads 8 code 5", Fate::Code(5), 0),
        ("threads 8 signal 9", Fate::Signal(libc::SIGKILL), 0),
        ("thread group 5", Fate::Code(5), 0),
        ("thread signal 15", Fate::Signal(libc::SIGTERM), 0),
        ("thread exec", Fate::Code(5), 0),
        ("threads 8 thread exec", Fate::Code(5), 0),
        ("threads 8 exec", Fate::Code(5), 0),
        ("together raw", Fate::Any, 0),
        ("together group", Fate::Any, 0),
        ("together mixed", Fate::Code(17), 0),
    ]);
}

/// Two threads that exit at once may both see that no thread is alive, which the counting program must not tell twice.
/// Without its note of ends a few of a hundred pairs are told twice.
#[test]
fn threads_that_race() {
    if !is_root("threads_that_race") {
        return;
    }
    check(&[
        ("each 500 pair", Fate::Code(0), 500),
        ("each 50 together raw", Fate::Code(0), 50),
        ("each 50 together group", Fate::Code(0), 50),
        ("each 50 together mixed", Fate::Code(0), 50),
        ("each 50 threads 8 thread exec", Fate::Code(0), 50),
    ]);
}

#[test]
fn children() {
    if !is_root("children") {
        return;
    }
    check(&[
        ("bomb 1000", Fate::Code(0), 1000),
        ("orphan", Fate::Code(0), 2),
        ("vfork exit", Fate::Code(0), 1),
        ("vfork exec", Fate::Code(0), 1),
        ("each 3 signal 9", Fate::Code(0), 3),
    ]);
}
