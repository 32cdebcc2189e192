//! Real children on this machine. As root the cgroup cases must run: a host without them fails the tests.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::model::id::PodUid;
use crate::model::runtime::ExitStatus;
use crate::sys::cgroup::{Limits, Tree};

/// One finished child.
struct Run {
    failure: Option<String>,
    status: ExitStatus,
    output: String,
}

fn text(value: impl AsRef<[u8]>) -> CString {
    CString::new(value.as_ref()).unwrap()
}

fn spec(home: &TempDir, argv: &[&str]) -> ChildSpec {
    ChildSpec {
        program: text(argv[0]),
        argv: argv.iter().map(text).collect(),
        env: vec![text("PATH=/usr/bin:/bin"), text("A=b c")],
        working_dir: text(home.path().as_os_str().as_bytes()),
        output: Output::Log(text(home.path().join("log").as_os_str().as_bytes())),
        v1_tasks: Vec::new(),
        identity: Identity { user: None, group: None },
        bind: None,
    }
}

fn shell(home: &TempDir, script: &str) -> ChildSpec {
    spec(home, &["/bin/sh", "-c", script])
}

fn run_in(home: &TempDir, spawner: &Spawner, spec: &ChildSpec, birth: Birth<'_>) -> Run {
    let mut newborn = spawner.spawn_blocking(birth).unwrap();
    newborn.control.write_all(&spec.encode().unwrap()).unwrap();
    let mut answer = Vec::new();
    newborn.control.read_to_end(&mut answer).unwrap();
    pidfd::wait_ended(newborn.pidfd.as_fd(), None).unwrap();
    Run {
        failure: SpawnFailure::decode(&answer).map(|failure| failure.message(spec)),
        status: pidfd::reap(newborn.pidfd.as_fd()).unwrap().unwrap(),
        output: fs::read_to_string(home.path().join("log")).unwrap_or_default(),
    }
}

fn run(home: &TempDir, spec: &ChildSpec) -> Run {
    run_in(home, &Spawner::fork_before_threads().unwrap(), spec, Birth::default())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn exits_are_the_real_ones() {
    let home = tempfile::tempdir().unwrap();
    let cases = [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 255", ExitStatus::Code(255)),
        ("kill -TERM $$", ExitStatus::Signal { number: 15, core_dumped: false }),
        ("kill -KILL $$", ExitStatus::Signal { number: 9, core_dumped: false }),
    ];
    for (script, expected) in cases {
        let run = run(&home, &shell(&home, script));
        assert_eq!((run.failure, run.status), (None, expected), "{script}");
    }
}

#[test]
fn nothing_of_the_agent_is_inherited() {
    let home = tempfile::tempdir().unwrap();
    // What an agent may have changed: one CPU, a blocked signal; std itself ignores SIGPIPE.
    let before = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set(0);
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    let spawner = Spawner::fork_before_threads().unwrap();
    rustix::thread::sched_setaffinity(None, &before).unwrap();
    let script = "cat /proc/self/status; cat /proc/self/stat; umask; readlink /proc/self/fd/0; \
                  echo fds $(ls /proc/self/fd | wc -l); echo oom $(cat /proc/self/oom_score_adj); \
                  echo env $(env | sort | tr '\\n' ';'); pwd; echo to stderr >&2";
    let mut spec = shell(&home, script);
    spec.env = vec![text("PATH=/usr/bin:/bin"), text("ONLY=this")];
    let run = run_in(&home, &spawner, &spec, Birth::default());
    assert_eq!(run.failure, None);
    let line = |start: &str| run.output.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert_eq!(line("SigBlk:"), "SigBlk:\t0000000000000000");
    assert_eq!(line("SigIgn:"), "SigIgn:\t0000000000000000");
    let all = fs::read_to_string("/proc/1/status").unwrap();
    let all = all.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap();
    assert_eq!(line("Cpus_allowed:"), all);
    assert_eq!(line("0022"), "0022");
    assert_eq!(line("/dev/null"), "/dev/null");
    // 0 to 2, and the folder that ls reads.
    assert_eq!(line("fds"), "fds 4");
    assert_eq!(line("oom"), "oom 0");
    assert!(line("env").contains("ONLY=this") && !line("env").contains("CARGO"), "{}", line("env"));
    assert_eq!(line("/tmp"), home.path().to_str().unwrap());
    assert_eq!(line("to stderr"), "to stderr");
    // Its parent is this process; session and group are its own.
    let stat = run.output.lines().find(|line| line.contains("(cat)")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let (parent, group, session) = (fields[1], fields[2], fields[3]);
    assert_eq!((group, session), (parent, parent), "the shell leads the session of its child");
    assert_ne!(session, std::process::id().to_string());
}

#[test]
fn failures_name_step_and_object() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let plain = home.path().join("plain");
    fs::write(&plain, "not a program").unwrap();
    for path in [&script, &plain] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let closed = home.path().join("closed");
    fs::write(&closed, "#!/bin/sh\n").unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let cases = [
        (
            "no-such-program".to_owned(),
            "exec: \"no-such-program\": executable file not found in $PATH".to_owned(),
        ),
        ("/no/such".to_owned(), "exec: \"/no/such\": stat /no/such: no such file or directory".to_owned()),
        (String::new(), "exec: \"\": executable file not found in $PATH".to_owned()),
        (path(&closed), format!("exec: \"{}\": permission denied", closed.display())),
        (path(&plain), format!("exec {}: exec format error", plain.display())),
        (
            path(&script),
            format!(
                "exec {}: no such file or directory (the interpreter that it names is missing)",
                script.display()
            ),
        ),
    ];
    for (program, expected) in cases {
        let run = run(&home, &spec(&home, &[&program]));
        assert_eq!(run.failure, Some(expected), "{program}");
    }
    let mut lost = shell(&home, "exit 0");
    lost.working_dir = text("/no/such/folder");
    let expected = "chdir to cwd (\"/no/such/folder\") failed: no such file or directory";
    assert_eq!(run(&home, &lost).failure.as_deref(), Some(expected));
    let mut unlogged = shell(&home, "exit 0");
    unlogged.output = Output::Log(text("/no/such/log"));
    let expected = "open log /no/such/log: no such file or directory";
    assert_eq!(run(&home, &unlogged).failure.as_deref(), Some(expected));
}

#[test]
fn a_bare_name_is_found_in_the_containers_path() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("own-program");
    fs::write(&program, "#!/bin/sh\necho found $0\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut spec = spec(&home, &["own-program"]);
    spec.env = vec![text(format!("PATH=/no/such:{}:/bin", home.path().display()))];
    let run = run(&home, &spec);
    assert_eq!(run.failure, None);
    assert_eq!(run.output, format!("found {}\n", program.display()));
}

#[test]
fn a_child_without_description_starts_nothing() {
    let spawner = Spawner::fork_before_threads().unwrap();
    let newborn = spawner.spawn_blocking(Birth::default()).unwrap();
    drop(newborn.control);
    pidfd::wait_ended(newborn.pidfd.as_fd(), None).unwrap();
    assert_eq!(pidfd::reap(newborn.pidfd.as_fd()).unwrap(), Some(ExitStatus::Code(127)));
}

#[test]
fn children_outlive_the_spawner() {
    let home = tempfile::tempdir().unwrap();
    let spawner = Spawner::fork_before_threads().unwrap();
    let mut newborn = spawner.spawn_blocking(Birth::default()).unwrap();
    newborn.control.write_all(&shell(&home, "exec sleep 1000").encode().unwrap()).unwrap();
    newborn.control.read_to_end(&mut Vec::new()).unwrap();
    let helper = spawner.pid();
    drop(spawner);
    assert_eq!(crate::sys::procfs::stat(helper).unwrap(), None, "the helper is gone and reaped");
    assert_eq!(pidfd::reap(newborn.pidfd.as_fd()).unwrap(), None, "the child runs");
    pidfd::signal(newborn.pidfd.as_fd(), libc::SIGKILL).unwrap();
    pidfd::wait_ended(newborn.pidfd.as_fd(), None).unwrap();
    pidfd::reap(newborn.pidfd.as_fd()).unwrap();
}

#[test]
fn users_as_far_as_allowed() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut spec = shell(&home, "id -u; id -g; id -G; echo again >> /dev/stdout");
    spec.identity = Identity { user: Some(65534), group: Some(4242) };
    let run = run(&home, &spec);
    if is_root() {
        assert_eq!(run.failure, None);
        assert_eq!(run.output, "65534\n4242\n4242\nagain\n");
    } else {
        assert_eq!(run.failure.as_deref(), Some("open log: operation not permitted"));
    }
}

#[test]
fn a_file_is_bound_for_one_container_only() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (source, target) = (home.path().join("own"), home.path().join("termination"));
    fs::write(&source, "").unwrap();
    let mut spec = shell(&home, "echo last words > termination");
    let as_text = |path: &Path| text(path.as_os_str().as_bytes());
    spec.bind = Some(BindFile { source: as_text(&source), target: as_text(&target) });
    assert_eq!(run(&home, &spec).failure, None);
    assert_eq!(fs::read_to_string(&source).unwrap(), "last words\n");
    assert_eq!(fs::read_to_string(&target).unwrap(), "", "the host's file stays empty");
}

#[test]
fn a_child_is_born_in_its_cgroups_with_its_limits() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let tree = Tree::detect().expect("root without cgroups");
    assert!(tree.limits_memory() && tree.limits_cpu());
    let limits = Limits { memory_bytes: Some(64 << 20), cpu_millicores: Some(500), kills_together: true };
    let pod = PodUid(0x5afe_0001);
    let group = tree.make(pod, "c.0", limits).unwrap();
    let place = group.main();
    let folder = place.open().unwrap();
    let mut spec = shell(&home, "cat /proc/self/cgroup");
    spec.v1_tasks = place.v1_tasks.iter().map(|path| text(path.as_os_str().as_bytes())).collect();
    let birth = Birth { cgroup: Some(folder.as_fd()), ..Birth::default() };
    let run = run_in(&home, &Spawner::fork_before_threads().unwrap(), &spec, birth);
    assert_eq!(run.failure, None);
    let instance = format!("/defib/pods/pod{pod}/c.0");
    assert!(run.output.contains(&format!("0::{instance}/main\n")), "{}", run.output);
    let limit_file = match group.v1_dirs() {
        [] => group.dir().join("memory.max"),
        [memory, ..] => {
            for controller in ["memory", "cpu"] {
                assert!(run.output.contains(&format!(":{controller}:{instance}\n")), "{}", run.output);
            }
            memory.join("memory.limit_in_bytes")
        }
    };
    assert_eq!(fs::read_to_string(limit_file).unwrap().trim(), (64 << 20).to_string());
    group.remove().unwrap();
    assert!(!group.dir().parent().unwrap().exists(), "the pod's folder goes with its last instance");
    assert!(group.v1_dirs().iter().all(|dir| !dir.exists()));
}
