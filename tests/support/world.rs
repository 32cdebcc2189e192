//! Everything one test has for itself: a network namespace, a folder, a state directory and a socket.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Agent, Delegated, NetNs, SOON, defib_binary, eventually, http, procs, repo_root, seccomp};

pub struct World {
    dir: TempDir,
    net: NetNs,
    binary: PathBuf,
    path_prefix: Vec<PathBuf>,
    user: User,
    /// Where defib is started, if not where the tests run.
    cgroups: Option<Delegated>,
    env: Vec<(String, String)>,
    cpu: Option<usize>,
    io_uring: IoUring,
    /// Uids of pods that were seen here, for [`World::assert_nothing_left`].
    pods_seen: Mutex<Vec<String>>,
}

/// Who runs defib.
#[derive(Copy, Clone, PartialEq, Eq)]
enum User {
    /// Whoever runs the tests.
    Same,
    /// uid and gid.
    Other(u32),
}

/// What the kernel says to io_uring.
#[derive(Copy, Clone, PartialEq, Eq)]
enum IoUring {
    AsTheHost,
    Forbidden,
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Exit code; 128 + signal for a death by signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    pub fn new() -> World {
        World::of_binary(defib_binary())
    }

    /// As [`World::new`], with another build of defib.
    pub fn of_binary(binary: PathBuf) -> World {
        World {
            dir: tempfile::Builder::new().prefix("defib-test-").tempdir().expect("a temporary folder"),
            net: NetNs::new(),
            binary,
            path_prefix: Vec::new(),
            user: User::Same,
            cgroups: None,
            env: Vec::new(),
            cpu: None,
            io_uring: IoUring::AsTheHost,
            pods_seen: Mutex::default(),
        }
    }

    /// As [`World::new`], but defib runs as an ordinary user, from a copy that this user can reach. Files
    /// of the checkout may be out of its reach: see [`World::copy`].
    pub fn of_user(uid: u32) -> World {
        let mut world = World::new();
        let copy = world.dir().join("defib");
        fs::copy(&world.binary, &copy).expect("a copy of defib");
        chown(world.dir(), Some(uid), Some(uid)).expect("chown (root rights are needed)");
        world.binary = copy;
        world.user = User::Other(uid);
        world
    }

    /// As [`World::of_user`], with a cgroup that is the user's own. defib starts inside.
    pub fn of_user_with_cgroups(uid: u32) -> World {
        let mut world = World::of_user(uid);
        world.cgroups = Some(Delegated::to(uid));
        world
    }

    /// Sets a variable in the environment of everything that is started from now on.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> World {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts `dir` first on the PATH of everything that is started from now on.
    #[must_use]
    pub fn with_path(mut self, dir: PathBuf) -> World {
        self.path_prefix.push(dir);
        self
    }

    /// Lets the agent run on this CPU only.
    #[must_use]
    pub fn pinned_to(mut self, cpu: usize) -> World {
        self.cpu = Some(cpu);
        self
    }

    /// A seccomp filter forbids io_uring to all that is started from now on.
    #[must_use]
    pub fn without_io_uring(mut self) -> World {
        self.io_uring = IoUring::Forbidden;
        self
    }

    /// The test's own folder. Removed with the world.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join("defib.sock")
    }

    pub fn net(&self) -> &NetNs {
        &self.net
    }

    /// Writes a file into [`World::dir`] and returns its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.dir().join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path.to_str().expect("temporary folders have plain names").to_owned()
    }

    /// Copies a file of the checkout into [`World::dir`] and returns its path.
    pub fn copy(&self, relative: &str) -> String {
        let source = repo_root().join(relative);
        let content = fs::read_to_string(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        let name = source.file_name().and_then(|name| name.to_str()).expect("a plain file name");
        self.write(name, &content)
    }

    /// Starts `defib run FILES ARGS` in the background. Relative files count from the root of the checkout.
    pub fn run(&self, files: &[&str], args: &[&str]) -> Agent {
        let mut command = self.command();
        command.arg("run").args(files).arg("--state-dir").arg(self.state_dir()).args(args);
        let mut agent = Agent::start(self, command);
        // Verbs may follow at once, so it has to answer; unless it has ended, which is a test's own matter.
        let socket = self.socket();
        eventually("defib answers or has ended", SOON, || {
            (UnixStream::connect(&socket).is_ok() || agent.has_ended()).then_some(())
        });
        agent
    }

    /// Starts a verb that goes on by itself, such as a watch; its output is [`Agent::events`].
    pub fn start(&self, args: &[&str]) -> Agent {
        let mut command = self.command();
        command.args(args);
        Agent::start(self, command)
    }

    /// Spawns inside the network namespace, on the CPU that [`World::pinned_to`] named, under the filter of
    /// [`World::without_io_uring`].
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        let spawned = self.net.inside(|| {
            if let Some(cpu) = self.cpu {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only).expect("a CPU of this machine");
            }
            if self.io_uring == IoUring::Forbidden {
                seccomp::forbid_io_uring();
            }
            // A child starts with the affinity and the filters of the thread that made it.
            command.spawn()
        });
        spawned.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()))
    }

    /// Runs a verb to its end: `world.defib(&["get", "pods"])`.
    pub fn defib(&self, args: &[&str]) -> Done {
        self.defib_with_input(args, "")
    }

    /// As [`World::defib`], with `input` on standard input.
    pub fn defib_with_input(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(&mut command);
        let mut stdin = child.stdin.take().expect("its input is piped");
        // A command that ends without reading its input is a matter of its exit code.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("defib ends");
        Done {
            code: crate::agent::exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `defib get RESOURCE -o json` as a value; panics when it fails.
    pub fn get_json(&self, resource: &str) -> Value {
        let done = self.defib(&["get", resource, "-A", "-o", "json"]);
        assert_eq!(done.code, 0, "get {resource}: {}", done.stderr);
        let value: Value = serde_json::from_str(&done.stdout).expect("-o json prints JSON");
        if resource == "pods" {
            let uids = value["items"].as_array().into_iter().flatten();
            let uids = uids.filter_map(|pod| pod["metadata"]["uid"].as_str()).map(str::to_owned);
            self.pods_seen.lock().expect("no test panics in here").extend(uids);
        }
        value
    }

    /// The status of one container as the API shows it (`restartCount`, `state`, …); panics when there is
    /// no such pod or container.
    pub fn container_status(&self, pod: &str, container: &str) -> Value {
        let pods = self.get_json("pods");
        let named = |value: &&Value, name: &str| value["name"] == name || value["metadata"]["name"] == name;
        let pod = pods["items"].as_array().into_iter().flatten().find(|item| named(item, pod));
        let status = &pod.unwrap_or_else(|| panic!("no such pod in {pods}"))["status"];
        let lists = ["containerStatuses", "initContainerStatuses"];
        let mut statuses = lists.iter().filter_map(|list| status[*list].as_array()).flatten();
        statuses.find(|item| named(item, container)).unwrap_or_else(|| panic!("not in {status}")).clone()
    }

    /// One HTTP request to a server inside; an error means that no whole answer came.
    pub fn http(&self, method: &str, port: u16, path: &str) -> std::io::Result<http::Response> {
        self.net.inside(|| http::request(method, port, path))
    }

    /// Waits until no process of this world and no cgroup of a pod that [`World::get_json`] saw is left.
    /// Leftovers may take a moment to be reaped, so it looks until the watchdog barks.
    pub fn assert_nothing_left(&self) {
        let pods = self.pods_seen.lock().expect("no test panics in here").clone();
        let mut left = String::new();
        eventually("no process and no cgroup is left", SOON, || {
            let processes = procs::in_network_namespace(self.net.inode());
            let cgroups: Vec<PathBuf> = pods.iter().flat_map(|uid| procs::pod_cgroups(uid)).collect();
            let report = format!("{processes:?} {cgroups:?}");
            let is_new = report != left && !(processes.is_empty() && cgroups.is_empty());
            if is_new {
                eprintln!("still there: {report}");
                left = report;
            }
            (processes.is_empty() && cgroups.is_empty()).then_some(())
        });
    }

    /// Folders that are left below the cgroups of [`World::of_user_with_cgroups`].
    pub fn cgroups_below(&self) -> Vec<PathBuf> {
        self.cgroups.as_ref().map(Delegated::below).unwrap_or_default()
    }

    /// The defib that this world runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        let mut path = OsString::new();
        for dir in &self.path_prefix {
            path.push(dir);
            path.push(":");
        }
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.env_clear().env("PATH", path).env("HOME", self.dir()).env("DEFIB_SOCKET", self.socket());
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(repo_root());
        if let User::Other(uid) = self.user {
            command.current_dir(self.dir());
            match &self.cgroups {
                Some(cgroups) => command = cgroups.wrap(&command),
                None => drop(command.uid(uid).gid(uid)),
            }
        }
        command
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl Drop for World {
    /// After a failed test nothing of it may go on running.
    fn drop(&mut self) {
        for process in procs::in_network_namespace(self.net.inode()) {
            crate::agent::kill(process.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_do_not_meet() {
        let (one, other) = (World::new(), World::new());
        let bind = |world: &World| world.net().inside(|| std::net::TcpListener::bind("127.0.0.1:18080"));
        let _first = bind(&one).expect("the port is free in each world");
        let _second = bind(&other).expect("the port is free in each world");
        assert!(bind(&one).is_err(), "one listener for each port of a world");
    }

    #[test]
    fn what_is_left_is_seen_and_killed_with_the_world() {
        let world = World::new();
        let mut sleeper = world.net().inside(|| Command::new("sleep").arg("1000").spawn()).expect("sleep");
        // Until its exec the child may still be seen with the command line of this process.
        eventually("the sleeper is seen", SOON, || {
            let seen = procs::in_network_namespace(world.net().inode());
            (seen.len() == 1 && seen[0].command_line == "sleep 1000").then_some(())
        });
        drop(world);
        assert_eq!(crate::agent::exit_code(sleeper.wait().expect("it was killed")), 137);
    }

    #[test]
    fn another_user_runs_a_copy() {
        let world = World::of_user(65_534);
        let copy = world.copy("README.md");
        assert!(Path::new(&copy).is_file());
        let mut id = world.command();
        assert!(id.get_program() == world.dir().join("defib"));
        let done = id.arg("version").output().expect("the copy runs");
        assert!(done.status.success());
    }
}
