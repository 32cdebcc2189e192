//! A runtime of the test's own, and pods for it.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use probe_core::model::id::{ContainerId, ContainerIx, InstanceId, PodUid, Ticket};
use probe_core::model::pod::{
    ChildOomPolicy, ContainerSpec, PodSpec, RestartPolicy, Role, TerminationMessagePolicy,
};
use probe_core::model::runtime::{
    ExecResult, ExitStatus, RuntimeCmd, RuntimeEvent, StartError, StartRequest,
};
use probe_core::sensor::Sensor;
use probe_core::sys::spawn::Spawner;
use tempfile::TempDir;

use crate::runtime::{ProcessRuntime, RuntimeConfig, leftovers};

/// Nothing here takes long; a test that waits this long has failed.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// Fields are dropped in order: the runtime, then what a failed test left running, then its folder.
pub struct World {
    pub runtime: ProcessRuntime,
    _leftovers: Leftovers,
    pub home: TempDir,
    pub spawner_pid: u32,
    events: mpsc::Receiver<RuntimeEvent>,
    /// Events that nobody has asked for yet.
    passed: RefCell<Vec<RuntimeEvent>>,
}

struct Leftovers(PathBuf);

impl Drop for Leftovers {
    fn drop(&mut self) {
        // The test has its verdict already; this only tidies up after one that failed.
        let _ended = leftovers::end(&self.0);
    }
}

impl World {
    pub fn new() -> World {
        let home = tempfile::Builder::new().permissions(mode(0o755)).tempdir().unwrap();
        World::in_home(home)
    }

    pub fn in_home(home: TempDir) -> World {
        let spawner = Spawner::fork_before_threads().unwrap();
        let spawner_pid = spawner.pid();
        let (sender, events) = mpsc::sync_channel(4_096);
        // The test may be over before the runtime's thread has said everything.
        let deliver: super::super::Deliver = Arc::new(move |event| drop(sender.send(event)));
        let sensor = Arc::new(Sensor::start(Arc::clone(&deliver), None).unwrap());
        let config = RuntimeConfig::of_this_process(home.path().join("state"), "node-1".into()).unwrap();
        let runtime = ProcessRuntime::start(config, spawner, sensor, deliver).unwrap();
        if rustix::process::geteuid().is_root() {
            assert!(runtime.missing().is_empty(), "root without cgroups: {:?}", runtime.missing());
        }
        let _leftovers = Leftovers(home.path().join("state"));
        World { runtime, _leftovers, home, spawner_pid, events, passed: RefCell::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn submit(&self, command: RuntimeCmd) {
        self.runtime.submit(command).unwrap();
    }

    /// A pod of one container, with a uid of its own.
    pub fn pod(&self, container: ContainerSpec) -> Arc<PodSpec> {
        let mut uid = [0; 16];
        getrandom::fill(&mut uid).unwrap();
        Arc::new(PodSpec {
            uid: PodUid(u128::from_ne_bytes(uid)),
            namespace: "default".into(),
            name: "pod".into(),
            restart_policy: RestartPolicy::Always,
            termination_grace_s: 30,
            containers: vec![container],
            base_dir: self.home.path().to_owned(),
            hostname: "pod-host".into(),
            readiness_gates: Vec::new(),
            manifest_json: "{}".into(),
        })
    }

    pub fn submit_start(&self, pod: &Arc<PodSpec>, restart_count: u32) -> InstanceId {
        let instance = InstanceId { pod: pod.uid, container: ContainerIx(0), restart_count };
        let container_id = ContainerId([7; 32]);
        self.submit(RuntimeCmd::Start(Box::new(StartRequest {
            instance,
            container_id,
            pod: Arc::clone(pod),
        })));
        instance
    }

    /// Starts it and waits until it runs.
    pub fn start(&self, pod: &Arc<PodSpec>, restart_count: u32) -> (InstanceId, u32) {
        let id = self.submit_start(pod, restart_count);
        self.wait_for("Created", |event| match event {
            RuntimeEvent::Created { instance, .. } if *instance == id => Some(()),
            RuntimeEvent::StartFailed { message, .. } => panic!("{message}"),
            _ => None,
        });
        let pid = self.wait_for("Started", |event| match event {
            RuntimeEvent::Started { instance, pid, .. } if *instance == id => Some(*pid),
            RuntimeEvent::StartFailed { message, .. } => panic!("{message}"),
            _ => None,
        });
        (id, pid)
    }

    pub fn start_failed(&self, id: InstanceId) -> (StartError, String) {
        self.wait_for("StartFailed", |event| match event {
            RuntimeEvent::StartFailed { instance, error, message, .. } if *instance == id => {
                Some((*error, message.to_string()))
            }
            _ => None,
        })
    }

    pub fn exited(&self, id: InstanceId) -> ExitStatus {
        self.wait_for("Exited", |event| match event {
            RuntimeEvent::Exited { instance, status, .. } if *instance == id => Some(*status),
            _ => None,
        })
    }

    /// Cleans up and answers the termination message.
    pub fn clean_up(&self, id: InstanceId) -> Option<String> {
        self.submit(RuntimeCmd::Cleanup { instance: id });
        self.wait_for("Gone", |event| match event {
            RuntimeEvent::Gone { instance, termination_message } if *instance == id => {
                Some(termination_message.as_deref().map(str::to_owned))
            }
            _ => None,
        })
    }

    /// From start to nothing left: status and termination message.
    pub fn run(&self, container: ContainerSpec) -> (ExitStatus, Option<String>) {
        let (id, _) = self.start(&self.pod(container), 0);
        (self.exited(id), self.clean_up(id))
    }

    pub fn submit_exec(&self, id: InstanceId, ticket: u64, argv: &[&str], timeout: Option<Duration>) {
        let argv: Arc<[Box<str>]> = argv.iter().map(|arg| Box::from(*arg)).collect();
        self.submit(RuntimeCmd::Exec { instance: id, ticket: Ticket(ticket), argv, timeout });
    }

    pub fn exec_done(&self, number: u64) -> ExecResult {
        self.wait_for("ExecDone", |event| match event {
            RuntimeEvent::ExecDone { ticket, result, .. } if *ticket == Ticket(number) => {
                Some(result.clone())
            }
            _ => None,
        })
    }

    pub fn exec(&self, id: InstanceId, argv: &[&str], timeout: Option<Duration>) -> ExecResult {
        const TICKET: u64 = 1 << 40;
        self.submit_exec(id, TICKET, argv, timeout);
        self.exec_done(TICKET)
    }

    fn wait_for<T>(&self, what: &str, pick: impl Fn(&RuntimeEvent) -> Option<T>) -> T {
        let mut passed = self.passed.borrow_mut();
        if let Some((at, found)) = (0..).zip(passed.iter()).find_map(|(at, event)| Some((at, pick(event)?))) {
            passed.remove(at);
            return found;
        }
        loop {
            let event = self.events.recv_timeout(WATCHDOG);
            let event = event.unwrap_or_else(|_| panic!("{what} does not come; until now: {passed:?}"));
            match pick(&event) {
                Some(found) => return found,
                None => passed.push(event),
            }
        }
    }
}

/// A container that runs a shell script. `$$` reaches the shell: in a manifest it stands for one dollar.
pub fn shell(script: &str) -> ContainerSpec {
    container(&["/bin/sh", "-c", &script.replace("$$", "$$$$")])
}

pub fn container(command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        name: "main".into(),
        role: Role::Regular,
        image: "none".into(),
        command: command.iter().map(|arg| Box::from(*arg)).collect(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        run_as_user: None,
        run_as_group: None,
        memory_limit_bytes: None,
        cpu_limit_millicores: None,
        ports: Vec::new(),
        startup: None,
        readiness: None,
        liveness: None,
        post_start: None,
        pre_stop: None,
        stop_signal: libc::SIGTERM,
        termination_message_path: "/dev/termination-log".into(),
        termination_message_policy: TerminationMessagePolicy::File,
        on_child_oom: ChildOomPolicy::Event,
        oom_kills_together: true,
        spec_hash: 0,
    }
}

/// A cgroup beside all of defib's, for processes that leave theirs.
pub struct Elsewhere(PathBuf);

impl Elsewhere {
    pub fn new() -> Elsewhere {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists()).expect("a v2 tree");
        let mut number = [0; 8];
        getrandom::fill(&mut number).unwrap();
        let dir = root.join(format!("defib-test-{:016x}", u64::from_ne_bytes(number)));
        fs::create_dir(&dir).unwrap();
        Elsewhere(dir)
    }

    /// What a shell does to move there; all that it starts from then on is there too.
    pub fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }

    /// Those in it that have not ended.
    pub fn pids(&self) -> String {
        fs::read_to_string(self.0.join("cgroup.procs")).unwrap()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Only a failed test leaves somebody here, who is killed; the folder of one who still ends stays.
        let _killed = fs::write(self.0.join("cgroup.kill"), "1");
        let _removed = fs::remove_dir(&self.0);
    }
}

/// Waits until a file that a container writes has so many lines, and gives them.
pub fn lines_of(path: &Path, count: usize) -> Vec<String> {
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
    let folder = path.parent().unwrap();
    rustix::fs::inotify::add_watch(&inotify, folder, rustix::fs::inotify::WatchFlags::ALL_EVENTS).unwrap();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.ends_with('\n') && text.lines().count() >= count {
            return text.lines().map(str::to_owned).collect();
        }
        let mut fds = [rustix::event::PollFd::new(&inotify, rustix::event::PollFlags::IN)];
        let watchdog = rustix::event::Timespec { tv_sec: WATCHDOG.as_secs() as i64, tv_nsec: 0 };
        let changed = rustix::event::poll(&mut fds, Some(&watchdog)).unwrap();
        assert!(changed > 0, "{} has not {count} lines: {text:?}", path.display());
        let mut events = [0u8; 4096];
        rustix::io::read(&inotify, &mut events).unwrap();
    }
}

pub fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

pub fn signalled(number: u8) -> ExitStatus {
    ExitStatus::Signal { number, core_dumped: false }
}
