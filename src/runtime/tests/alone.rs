//! Cases that need a process of their own: they count its descriptors, give up its rights, or kill it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use probe_core::model::id::InstanceId;
use probe_core::model::runtime::{ExecResult, ExitStatus, RuntimeCmd};
use probe_core::sys::procfs;

use super::ends::{FAMILY, family_pids, is_alive};
use super::world::{World, lines_of, shell, signalled};
use crate::runtime::host::Missing;

/// Names the case that runs in this process, and what it was told.
const CASE: &str = "DEFIB_TEST_ALONE";
const HOME: &str = "DEFIB_TEST_HOME";
const NOBODY: u32 = 65534;

fn command(case: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "--test-threads=1"]);
    command.arg(format!("runtime::tests::alone::{case}")).env(CASE, case);
    command
}

/// Runs `body` in a process of its own: this one starts the test binary again for the one case.
fn alone(case: &str, body: impl FnOnce()) {
    if std::env::var(CASE).as_deref() == Ok(case) {
        body();
        return;
    }
    let output = command(case).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// This thread, and every thread and process that it makes from now on.
fn become_nobody() {
    if rustix::process::geteuid().is_root() {
        let group = rustix::process::Gid::from_raw(NOBODY);
        rustix::thread::set_thread_groups(&[group]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        let user = rustix::process::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
    }
}

/// Descriptors of this process, its children, and records, once the runtime has done all it was asked for.
fn inventory(world: &World, last: InstanceId) -> (usize, usize, usize) {
    // Commands are taken one by one: the answer to one more, about nobody, says that the others are over.
    world.clean_up(last);
    let own = std::process::id();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let children = procfs::all().unwrap().iter().filter(|stat| stat.parent == own).count();
    let records = std::fs::read_dir(world.path("state/instances")).unwrap().count();
    (descriptors, children, records)
}

#[test]
fn two_hundred_cycles_leave_nothing() {
    alone("two_hundred_cycles_leave_nothing", || {
        let world = World::new();
        let pod = world.pod(shell("sleep 1000 & exec sleep 1000"));
        let cycle = |restart_count| {
            let (id, _) = world.start(&pod, restart_count);
            let run = world.exec(id, &["/bin/echo", "hi"], None);
            assert_eq!(run, ExecResult::Exited { status: ExitStatus::Code(0), output: "hi\n".into() });
            world.submit(RuntimeCmd::Stop { instance: id, grace: Duration::from_secs(60) });
            assert_eq!(world.exited(id), signalled(15));
            world.clean_up(id);
            id
        };
        let first = inventory(&world, cycle(0));
        let last = (1..200).map(cycle).last().unwrap();
        assert_eq!(inventory(&world, last), first);
        assert_eq!(super::ends::cgroups_of(&pod), Vec::<std::path::PathBuf>::new());
        let logs = std::fs::read_dir(world.path("state/pods").join(format!("default_pod_{}/main", pod.uid)));
        let logs = logs.unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(logs.filter(|name| name.contains(".log")).count(), 2);
    });
}

#[test]
fn without_root_sessions_take_the_place_of_cgroups() {
    alone("without_root_sessions_take_the_place_of_cgroups", || {
        become_nobody();
        let world = World::new();
        let missing = world.runtime.missing();
        assert!(matches!(missing[0], Missing::Cgroups(_)), "{missing:?}");
        assert!(missing.contains(&Missing::OtherUsers) && missing.contains(&Missing::MemoryLimits));
        assert!(missing.iter().all(|missing| !missing.to_string().is_empty()));

        // Everything the main process left, an orphan in another session too.
        let pod = world.pod(shell(&format!("{FAMILY}; while [ $(wc -l < pids) -lt 3 ]; do :; done; exit 7")));
        let (id, _) = world.start(&pod, 0);
        assert_eq!(world.exited(id), ExitStatus::Code(7));
        let family = family_pids(&world.path("pids"));
        world.clean_up(id);
        assert!(!family.iter().any(|&pid| is_alive(pid)), "{family:?}");

        // The tree of an exec run that takes too long.
        std::fs::remove_file(world.path("pids")).unwrap();
        let (id, main) = world.start(&world.pod(shell("exec sleep 1000")), 0);
        let script = format!("{FAMILY}; sleep 1000");
        world.submit_exec(id, 1, &["/bin/sh", "-c", &script], Some(Duration::from_secs(1)));
        let family = family_pids(&world.path("pids"));
        assert_eq!(world.exec_done(1), ExecResult::TimedOut);
        assert!(!family.iter().any(|&pid| is_alive(pid)), "{family:?}");
        assert!(is_alive(main));

        // A stop that is not obeyed.
        let (stubborn, _) =
            world.start(&world.pod(shell("trap '' TERM; echo up > up; while :; do sleep 1000; done")), 0);
        lines_of(&world.path("up"), 1);
        world.submit(RuntimeCmd::Stop { instance: stubborn, grace: Duration::from_millis(10) });
        assert_eq!(world.exited(stubborn), signalled(9));
        world.submit(RuntimeCmd::Stop { instance: id, grace: Duration::from_secs(60) });
        world.exited(id);
        world.clean_up(id);
        world.clean_up(stubborn);

        // Another user is refused.
        let mut other = shell("exit 0");
        other.run_as_user = Some(0);
        let id = world.submit_start(&world.pod(other), 0);
        let (_, message) = world.start_failed(id);
        assert!(message.starts_with("runAsUser 0: only root may"), "{message}");
    });
}

/// Not a case of its own: the agent that the next ones kill.
#[test]
fn agent_to_be_killed() {
    if std::env::var(CASE).as_deref() != Ok("agent_to_be_killed") {
        return;
    }
    let home = std::env::var(HOME).unwrap();
    if home.ends_with("nobody") {
        become_nobody();
    }
    let world = World::in_home(tempfile::tempdir_in(&home).unwrap());
    let pod = world.pod(shell(&format!("{FAMILY}; exec sleep 1000")));
    let (_, pid) = world.start(&pod, 0);
    family_pids(&world.path("pids"));
    println!("ready {pid} {}", world.home.path().display());
    std::thread::park();
}

fn check_leftovers(home: &Path) {
    let mut command = command("agent_to_be_killed");
    let mut agent = command.env(HOME, home).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let ready =
        lines.map(Result::unwrap).find_map(|line| line.split_once("ready ").map(|(_, rest)| rest.to_owned()));
    let ready = ready.expect("the agent comes up");
    let (pid, world_dir) = ready.split_once(' ').unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let mut pids = family_pids(&Path::new(world_dir).join("pids"));
    pids.push(pid.parse().unwrap());
    assert!(pids.iter().all(|&pid| is_alive(pid)), "containers outlive the agent");
    let state = Path::new(world_dir).join("state");
    assert_eq!(crate::runtime::leftovers::end(&state).unwrap(), 1);
    assert!(!pids.iter().any(|&pid| is_alive(pid)), "{pids:?}");
    assert_eq!(std::fs::read_dir(state.join("instances")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(state.join("pods")).unwrap().count(), 0);
    assert_eq!(crate::runtime::leftovers::end(&state).unwrap(), 0);
}

#[test]
fn what_a_killed_agent_left_is_ended() {
    let home = tempfile::tempdir().unwrap();
    check_leftovers(home.path());
}

#[test]
fn what_a_killed_agent_without_root_left_is_ended() {
    let home = tempfile::Builder::new().suffix("nobody").tempdir().unwrap();
    std::fs::set_permissions(home.path(), super::world::mode(0o777)).unwrap();
    check_leftovers(home.path());
}
