//! How containers start, and how they fail to.

use probe_core::model::pod::{EnvField, EnvValue, EnvVar};
use probe_core::model::runtime::{ExitStatus, StartError};

use super::world::{World, container, mode, shell};

#[test]
fn the_environment_is_path_hostname_and_the_spec() {
    let world = World::new();
    let mut spec = shell("env | sort > env; echo $0 $1 > args");
    let literal =
        |name: &str, value: &str| EnvVar { name: name.into(), value: EnvValue::Literal(value.into()) };
    let field = |name: &str, field| EnvVar { name: name.into(), value: EnvValue::Field(field) };
    spec.env = vec![
        literal("A", "1"),
        literal("B", "$(A)2 $(NOT_SET) $$(A)"),
        field("NAME", EnvField::PodName),
        field("NAMESPACE", EnvField::PodNamespace),
        field("POD_UID", EnvField::PodUid),
        field("POD_IP", EnvField::PodIp),
        field("NODE", EnvField::NodeName),
    ];
    spec.args = vec!["zero".into(), "$(B)".into()];
    let pod = world.pod(spec);
    let (id, _) = world.start(&pod, 0);
    assert_eq!(world.exited(id), ExitStatus::Code(0));
    world.clean_up(id);
    let path = std::env::var("PATH").unwrap();
    let expected = format!(
        "A=1\nB=12 $(NOT_SET) $(A)\nHOSTNAME=pod-host\nNAME=pod\nNAMESPACE=default\nNODE=node-1\nPATH={path}\n\
         POD_IP=127.0.0.1\nPOD_UID={}\nPWD={}\n",
        pod.uid,
        world.home.path().display()
    );
    let own =
        |line: &&str| !line.starts_with("_=") && !line.starts_with("OLDPWD=") && !line.starts_with("SHLVL=");
    let env: String = world.read("env").lines().filter(own).map(|line| format!("{line}\n")).collect();
    assert_eq!(env, expected);
    assert_eq!(world.read("args"), "zero 12 $(NOT_SET) $(A)\n");
}

#[test]
fn relative_names_resolve_against_the_manifests_folder() {
    let world = World::new();
    std::fs::create_dir(world.path("inner")).unwrap();
    std::fs::write(world.path("program"), "#!/bin/sh\npwd > where\n").unwrap();
    std::fs::set_permissions(world.path("program"), mode(0o755)).unwrap();
    let mut spec = container(&["./program"]);
    spec.working_dir = Some("inner".into());
    assert_eq!(world.run(spec).0, ExitStatus::Code(0));
    assert_eq!(world.read("inner/where").trim(), world.path("inner").display().to_string());
}

#[test]
fn defib_is_the_running_binary() {
    let world = World::new();
    let mut spec = shell("echo $0 > exe");
    spec.args = vec!["$(DEFIB)".into()];
    world.run(spec);
    assert_eq!(world.read("exe").trim(), std::env::current_exe().unwrap().display().to_string());
}

#[test]
fn failed_starts_say_why_and_leave_nothing() {
    let world = World::new();
    let missing_dir = {
        let mut spec = shell("exit 0");
        spec.working_dir = Some("/no/such/dir".into());
        spec
    };
    let nul = container(&["/bin/echo", "a\0b"]);
    let cases = [
        (
            container(&["no-such-program"]),
            StartError::Run,
            "exec: \"no-such-program\": executable file not found in $PATH",
        ),
        (
            container(&["/no/such/program"]),
            StartError::Run,
            "exec: \"/no/such/program\": stat /no/such/program: no such file or directory",
        ),
        (container(&["/etc/passwd"]), StartError::Run, "exec: \"/etc/passwd\": permission denied"),
        (missing_dir, StartError::Config, "working directory /no/such/dir: no such directory"),
        (nul, StartError::Config, "the command holds a NUL byte"),
    ];
    for (spec, error, message) in cases {
        let pod = world.pod(spec);
        let id = world.submit_start(&pod, 0);
        assert_eq!(world.start_failed(id), (error, message.to_owned()));
        // A clean-up is answered all the same.
        assert_eq!(world.clean_up(id), None);
        assert_eq!(super::ends::cgroups_of(&pod), Vec::<std::path::PathBuf>::new(), "{message}");
    }
    assert_eq!(std::fs::read_dir(world.path("state/instances")).unwrap().count(), 0);
}

#[test]
fn users_and_groups() {
    let world = World::new();
    std::fs::set_permissions(world.home.path(), mode(0o777)).unwrap();
    let mut spec = shell("id -u > ids; id -g >> ids; id -G >> ids; echo seen > /dev/stderr");
    spec.run_as_user = Some(65534);
    spec.run_as_group = Some(4242);
    let pod = world.pod(spec);
    let id = world.submit_start(&pod, 0);
    if rustix::process::geteuid().is_root() {
        assert_eq!(world.exited(id), ExitStatus::Code(0));
        world.clean_up(id);
        assert_eq!(world.read("ids"), "65534\n4242\n4242\n");
    } else {
        assert_eq!(world.start_failed(id).0, StartError::Config);
    }
}

#[test]
fn a_container_is_in_its_own_cgroups() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let mut spec = shell("cat /proc/self/cgroup > cgroup");
    spec.memory_limit_bytes = Some(64 << 20);
    spec.cpu_limit_millicores = Some(500);
    let pod = world.pod(spec);
    let (id, _) = world.start(&pod, 3);
    assert_eq!(world.exited(id), ExitStatus::Code(0));
    world.clean_up(id);
    let cgroups = world.read("cgroup");
    let path = format!("/defib/pods/pod{}/main.3", pod.uid);
    assert!(cgroups.contains(&format!("0::{path}/main\n")), "{cgroups}");
    assert!(!cgroups.contains(":memory:") || cgroups.contains(&format!(":memory:{path}\n")), "{cgroups}");
}

#[test]
fn too_much_memory_is_death() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let mut spec = shell("exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.memory_limit_bytes = Some(32 << 20);
    assert_eq!(world.run(spec).0, super::world::signalled(9));
}

#[test]
fn a_lost_spawner_is_named() {
    let world = World::new();
    let spawner = probe_core::sys::pidfd::open(world.spawner_pid).unwrap();
    probe_core::sys::pidfd::signal(std::os::fd::AsFd::as_fd(&spawner), libc::SIGKILL).unwrap();
    for restart_count in 0..2 {
        let id = world.submit_start(&world.pod(shell("exit 0")), restart_count);
        let expected = format!(
            "cannot make a process: the spawner (pid {}) is gone: restart the agent",
            world.spawner_pid
        );
        assert_eq!(world.start_failed(id), (StartError::Create, expected));
    }
}
