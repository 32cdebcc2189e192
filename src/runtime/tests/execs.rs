//! Commands beside a container.

use std::time::Duration;

use probe_core::model::limits::PROBE_OUTPUT_MAX_BYTES;
use probe_core::model::pod::{EnvValue, EnvVar};
use probe_core::model::runtime::{Blame, ExecResult, ExitStatus};

use super::ends::{FAMILY, family_pids, is_alive};
use super::world::{Elsewhere, World, lines_of, shell};

fn exited(code: u8, output: &str) -> ExecResult {
    ExecResult::Exited { status: ExitStatus::Code(code), output: output.into() }
}

#[test]
fn a_command_runs_like_the_container() {
    let world = World::new();
    let mut spec = shell("exec sleep 1000");
    spec.env = vec![EnvVar { name: "A".into(), value: EnvValue::Literal("from the spec".into()) }];
    let pod = world.pod(spec);
    let (id, pid) = world.start(&pod, 0);
    let run = |script: &str| world.exec(id, &["/bin/sh", "-c", script], None);
    assert_eq!(run("echo $A; pwd; echo oops >&2; echo out; exit 3"), {
        let home = world.home.path().display();
        exited(3, &format!("from the spec\n{home}\nout\noops\n"))
    });
    assert_eq!(run("cat"), exited(0, ""), "stdin is empty");
    // EXEC-03
    let ExecResult::Exited { output, .. } = run("head -c 100000 /dev/zero | tr '\\0' x") else { panic!() };
    assert_eq!(output.len(), PROBE_OUTPUT_MAX_BYTES);
    // Ends with its main process, whatever holds the pipes.
    assert_eq!(run("sleep 1000 & echo $! > background; echo done"), exited(0, "done\n"));
    let background: u32 = world.read("background").trim().parse().unwrap();
    assert!(is_alive(background), "it belongs to the container now");
    if rustix::process::geteuid().is_root() {
        let ExecResult::Exited { output, .. } = run("cat /proc/self/cgroup") else { panic!() };
        assert!(output.contains(&format!("/defib/pods/pod{}/main.0/probe/", pod.uid)), "{output}");
        let namespace = format!("test $(readlink /proc/self/ns/mnt) = $(readlink /proc/{pid}/ns/mnt)");
        assert_eq!(run(&namespace), exited(0, ""));
    }
    let ExecResult::Failed { error, blame } = world.exec(id, &["no-such-program"], None) else { panic!() };
    assert_eq!(
        (&*error, blame),
        (
            "failed to exec in container: exec: \"no-such-program\": executable file not found in $PATH",
            Blame::Command
        )
    );
    world.submit(probe_core::model::runtime::RuntimeCmd::Stop { instance: id, grace: Duration::ZERO });
    world.exited(id);
    world.clean_up(id);
    assert!(!is_alive(background), "and ends with it");
    let ExecResult::Failed { error, blame } = world.exec(id, &["true"], None) else { panic!() };
    let expected = "failed to exec in container: the container is not running";
    assert_eq!((&*error, blame), (expected, Blame::Elsewhere));
}

#[test]
fn a_timeout_kills_the_whole_tree() {
    let world = World::new();
    let (id, _) = world.start(&world.pod(shell("exec sleep 1000")), 0);
    let script = format!("{FAMILY}; sleep 1000");
    world.submit_exec(id, 1, &["/bin/sh", "-c", &script], Some(Duration::from_secs(1)));
    let family = family_pids(&world.path("pids"));
    assert_eq!(world.exec_done(1), ExecResult::TimedOut);
    assert!(!family.iter().any(|&pid| is_alive(pid)), "{family:?}");
    world.submit(probe_core::model::runtime::RuntimeCmd::Stop { instance: id, grace: Duration::ZERO });
    world.exited(id);
    world.clean_up(id);
}

#[test]
fn a_timeout_kills_those_who_left_the_cgroup() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let (id, _) = world.start(&world.pod(shell("exec sleep 1000")), 0);
    let timeout = Some(Duration::from_secs(1));
    // The run itself, a child of it, and an orphan in a session of its own.
    let moved = "echo $$ >> pids; sleep 1000";
    for (number, before, after) in
        [(1, "", ""), (2, "sh -c '", "'; :"), (3, "(setsid sh -c '", "' &); sleep 1000")]
    {
        let elsewhere = Elsewhere::new();
        let script = format!("{before}{}; {moved}{after}", elsewhere.enter());
        world.submit_exec(id, number, &["/bin/sh", "-c", &script], timeout);
        let pid: u32 = lines_of(&world.path("pids"), 1)[0].parse().unwrap();
        assert!(elsewhere.pids().lines().any(|line| line.parse() == Ok(pid)), "{script}");
        assert_eq!(world.exec_done(number), ExecResult::TimedOut, "{script}");
        assert!(!is_alive(pid), "{script}");
        assert_eq!(elsewhere.pids(), "", "{script}");
        std::fs::remove_file(world.path("pids")).unwrap();
    }
    world.submit(probe_core::model::runtime::RuntimeCmd::Stop { instance: id, grace: Duration::ZERO });
    world.exited(id);
    world.clean_up(id);
}

#[test]
fn a_run_ends_with_its_container() {
    let world = World::new();
    let (id, _) = world.start(&world.pod(shell("exec sleep 1000")), 0);
    world.submit_exec(id, 1, &["/bin/sh", "-c", "trap '' TERM; echo $$ > run; sleep 1000"], None);
    let pid: u32 = lines_of(&world.path("run"), 1)[0].parse().unwrap();
    world.submit(probe_core::model::runtime::RuntimeCmd::Stop {
        instance: id,
        grace: Duration::from_secs(60),
    });
    world.exited(id);
    world.clean_up(id);
    let ExecResult::Failed { error, blame } = world.exec_done(1) else { panic!() };
    let expected = "failed to exec in container: the container has ended";
    assert_eq!((&*error, blame), (expected, Blame::Elsewhere));
    assert!(!is_alive(pid));
}
