//! How containers end, and what is left of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use probe_core::model::limits::{LOG_FILE_MAX_BYTES, TERMINATION_MESSAGE_MAX_BYTES};
use probe_core::model::pod::{PodSpec, TerminationMessagePolicy};
use probe_core::model::runtime::{ExitStatus, RuntimeCmd};
use probe_core::sys::procfs;

use super::world::{Elsewhere, World, lines_of, shell, signalled};

const LONG: Duration = Duration::from_secs(3_600);

/// Folders of a pod in every cgroup file system.
pub fn cgroups_of(pod: &Arc<PodSpec>) -> Vec<PathBuf> {
    let name = format!("pod{}", pod.uid);
    let below = |root: PathBuf| root.join("defib/pods").join(&name);
    let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    roots.chain([PathBuf::from("/sys/fs/cgroup")]).map(below).filter(|path| path.exists()).collect()
}

pub fn is_alive(pid: u32) -> bool {
    procfs::stat(pid).unwrap().is_some_and(|stat| !stat.is_zombie())
}

#[test]
fn exits_are_the_real_ones() {
    let world = World::new();
    let cases = [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 1", ExitStatus::Code(1)),
        ("exit 255", ExitStatus::Code(255)),
        ("kill -TERM $$", signalled(15)),
        ("kill -KILL $$", signalled(9)),
    ];
    for (script, expected) in cases {
        assert_eq!(world.run(shell(script)).0, expected, "{script}");
    }
}

#[test]
fn a_stop_is_the_signal_then_the_kill() {
    let world = World::new();
    let obeys = world.start(&world.pod(shell("echo up > obeys; exec sleep 1000")), 0).0;
    let (stubborn, _) =
        world.start(&world.pod(shell("trap '' TERM; echo up > stubborn; while :; do sleep 1000; done")), 0);
    let mut interrupted =
        shell("trap 'exit 3' INT; echo up > interrupted; while :; do sleep 1000 & wait; done");
    interrupted.stop_signal = libc::SIGINT;
    let (interrupted, _) = world.start(&world.pod(interrupted), 0);
    for name in ["obeys", "stubborn", "interrupted"] {
        lines_of(&world.path(name), 1);
    }
    world.submit(RuntimeCmd::Stop { instance: obeys, grace: LONG });
    assert_eq!(world.exited(obeys), signalled(15));
    world.submit(RuntimeCmd::Stop { instance: interrupted, grace: LONG });
    assert_eq!(world.exited(interrupted), ExitStatus::Code(3));
    world.submit(RuntimeCmd::Stop { instance: stubborn, grace: LONG });
    // A longer grace changes nothing, a shorter one counts.
    world.submit(RuntimeCmd::Stop { instance: stubborn, grace: 2 * LONG });
    world.submit(RuntimeCmd::Stop { instance: stubborn, grace: Duration::from_millis(10) });
    assert_eq!(world.exited(stubborn), signalled(9));
    for id in [obeys, interrupted, stubborn] {
        world.clean_up(id);
    }
}

#[test]
fn a_stop_beside_the_start_is_kept() {
    let world = World::new();
    let pod = world.pod(shell("exec sleep 1000"));
    let id = world.submit_start(&pod, 0);
    world.submit(RuntimeCmd::Stop { instance: id, grace: LONG });
    assert_eq!(world.exited(id), signalled(15));
    world.clean_up(id);
}

/// Children, a grandchild in a session of its own whose parent ended, and one that only a kill ends.
pub const FAMILY: &str = "sleep 1000 & echo $! >> pids; \
    (setsid sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 1000; done' &); \
    (sh -c 'trap \"\" TERM HUP; echo $$ >> pids; exec sleep 1000' &)";

pub fn family_pids(world_file: &Path) -> Vec<u32> {
    lines_of(world_file, 3).iter().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn leftovers_end_with_the_container() {
    let world = World::new();
    let pod = world.pod(shell(&format!("{FAMILY}; while [ $(wc -l < pids) -lt 3 ]; do :; done; exit 7")));
    let (id, _) = world.start(&pod, 0);
    assert_eq!(world.exited(id), ExitStatus::Code(7));
    let family = family_pids(&world.path("pids"));
    assert!(family.iter().all(|&pid| is_alive(pid)), "they outlive the main process: {family:?}");
    world.clean_up(id);
    assert!(!family.iter().any(|&pid| is_alive(pid)), "{family:?}");
    assert_eq!(cgroups_of(&pod), Vec::<PathBuf>::new());
}

#[test]
fn one_that_left_its_cgroup_ends_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    for (name, ending, grace, expected) in [
        ("stubborn", "trap '' TERM; while :; do sleep 1000; done", Duration::from_millis(10), signalled(9)),
        ("obeys", "exec sleep 1000", LONG, signalled(15)),
    ] {
        let elsewhere = Elsewhere::new();
        // With children there, and on stubborn's side one in a session of its own.
        let child = if name == "stubborn" { "setsid sleep 1000 &" } else { "(trap '' TERM; sleep 1000) &" };
        let script = format!("{}; {child} echo $! > {name}; {ending}", elsewhere.enter());
        let (id, main) = world.start(&world.pod(shell(&script)), 0);
        let child: u32 = lines_of(&world.path(name), 1)[0].parse().unwrap();
        assert!(elsewhere.pids().lines().any(|pid| pid.parse() == Ok(main)), "{name} has left");
        world.submit(RuntimeCmd::Stop { instance: id, grace });
        assert_eq!(world.exited(id), expected, "{name}");
        world.clean_up(id);
        assert!(!is_alive(child), "{name}: its child");
        assert_eq!(elsewhere.pids(), "", "{name}");
    }
}

#[test]
fn last_words() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let file = TerminationMessagePolicy::File;
    let fallback = TerminationMessagePolicy::FallbackToLogsOnError;
    let long = "x".repeat(TERMINATION_MESSAGE_MAX_BYTES);
    let cases = [
        ("echo bye > /dev/termination-log; exit 1", file, Some("bye\n")),
        ("echo logged; exit 1", file, None),
        ("echo logged; exit 1", fallback, Some("logged\n")),
        ("echo logged; exit 0", fallback, None),
        ("echo logged; echo bye > /dev/termination-log; exit 1", fallback, Some("bye\n")),
        ("head -c 9000 /dev/zero | tr '\\0' x > /dev/termination-log", file, Some(long.as_str())),
    ];
    for (script, policy, expected) in cases {
        let mut spec = shell(script);
        spec.termination_message_policy = policy;
        assert_eq!(world.run(spec).1.as_deref(), expected, "{script}");
    }
    // The file is the container's own: another path, another user, another instance.
    let mut spec = shell("echo mine > last; cat last >&2");
    spec.termination_message_path = world.path("last").display().to_string().into();
    spec.run_as_user = Some(65534);
    assert_eq!(world.run(spec), (ExitStatus::Code(0), Some("mine\n".to_owned())));
    assert_eq!(world.read("last"), "");
}

#[test]
fn logs_are_kept_small_and_of_two_instances() {
    let world = World::new();
    let pod = world.pod(shell("head -c 12582912 /dev/zero; echo end >&2"));
    for restart_count in 0..3 {
        let (id, _) = world.start(&pod, restart_count);
        world.exited(id);
        world.clean_up(id);
    }
    let dir = world.path("state/pods").join(format!("default_pod_{}/main", pod.uid));
    let size = |name: &str| std::fs::metadata(dir.join(name)).ok().map(|found| found.len());
    assert_eq!(size("0.log"), None);
    for restart_count in 1..3 {
        let log = format!("{restart_count}.log");
        assert_eq!(size(&log), Some(0));
        assert_eq!(size(&format!("{log}.1")), Some(12_582_912 + 4 - LOG_FILE_MAX_BYTES));
        assert_eq!(size(&format!("{log}.2")), Some(LOG_FILE_MAX_BYTES));
    }
    world.submit(RuntimeCmd::ForgetPod { pod: pod.uid });
    drop(world.runtime);
    assert!(!dir.exists(), "a forgotten pod has no logs");
}
