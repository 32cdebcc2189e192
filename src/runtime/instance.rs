//! One instance of a container, from its `Start` to its `Gone`.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use probe_core::model::id::InstanceId;
use probe_core::model::pod::{ContainerSpec, PodSpec};
use probe_core::model::time::Mono;
use probe_core::sensor::ExitCell;
use probe_core::sys::cgroup::{Group, Limits};
use probe_core::sys::procfs;
use tokio::sync::{Mutex, watch};

use super::files::Files;
use super::launch::Launch;
use super::logs::LogState;

pub struct Instance {
    pub id: InstanceId,
    pub pod: Arc<PodSpec>,
    pub files: Files,
    pub launch: Launch,
    /// None where there are no cgroups: the session of the main process takes their place.
    pub group: Option<Group>,
    pub main: OnceCell<Main>,
    /// The main process was seen outside its cgroup, and what it started there may be, too.
    pub has_strayed: Cell<bool>,
    pub exit: OnceCell<ExitCell>,
    /// The record's file, once it is complete.
    pub record: RefCell<Option<PathBuf>>,
    pub phase: watch::Sender<Phase>,
    /// When everything is killed; None while nobody asked for the end.
    pub kill_at: watch::Sender<Option<Mono>>,
    /// Exec runs that have not ended.
    pub execs: watch::Sender<usize>,
    pub execs_so_far: Cell<u64>,
    pub log: Mutex<LogState>,
}

/// The container's own process.
pub struct Main {
    pub pid: u32,
    pub start_ticks: u64,
    pub pidfd: Arc<OwnedFd>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    Starting,
    Running,
    /// The start failed; all is cleaned up.
    NeverRan,
    /// Cleaning up.
    Ending,
}

impl Instance {
    pub fn new(
        id: InstanceId,
        pod: Arc<PodSpec>,
        files: Files,
        launch: Launch,
        group: Option<Group>,
    ) -> Instance {
        Instance {
            id,
            pod,
            files,
            launch,
            group,
            main: OnceCell::new(),
            has_strayed: Cell::new(false),
            exit: OnceCell::new(),
            record: RefCell::new(None),
            phase: watch::Sender::new(Phase::Starting),
            kill_at: watch::Sender::new(None),
            execs: watch::Sender::new(0),
            execs_so_far: Cell::new(0),
            log: Mutex::new(LogState::default()),
        }
    }

    pub fn spec(&self) -> &ContainerSpec {
        &self.pod.containers[self.id.container.at()]
    }

    /// Looks where the main process is, as long as that can be seen: not any more when it has ended.
    pub fn note_strays(&self) {
        let (Some(group), Some(main)) = (&self.group, self.main.get()) else { return };
        // One that moved into a cgroup of its own below this one counts too: that costs only a longer look.
        let is_listed =
            group.main().pids().is_ok_and(|pids| pids.lines().any(|pid| pid.parse() == Ok(main.pid)));
        let is_alive = || procfs::stat(main.pid).is_ok_and(|stat| stat.is_some_and(|stat| !stat.is_zombie()));
        if !is_listed && is_alive() {
            self.has_strayed.set(true);
        }
    }

    /// Resolves when the start has succeeded or failed.
    pub async fn started(&self) -> Phase {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let seen = phase.wait_for(|phase| *phase != Phase::Starting).await.map(|phase| *phase);
        seen.unwrap_or(Phase::NeverRan)
    }

    /// Resolves when the instance is being cleaned up, or never ran.
    pub async fn ending(&self) {
        let mut phase = self.phase.subscribe();
        let _sender_lives = phase.wait_for(|phase| matches!(phase, Phase::Ending | Phase::NeverRan)).await;
    }

    /// Resolves when no exec run is left.
    pub async fn execs_done(&self) {
        let mut execs = self.execs.subscribe();
        let _sender_lives = execs.wait_for(|running| *running == 0).await;
    }

    /// Moves the moment of killing forward, never back.
    pub fn kill_by(&self, at: Mono) {
        self.kill_at.send_if_modified(|kill_at| {
            let sooner = kill_at.is_none_or(|old| at < old);
            if sooner {
                *kill_at = Some(at);
            }
            sooner
        });
    }
}

/// `<container>.<restart count>`.
pub fn cgroup_name(container: &ContainerSpec, id: InstanceId) -> String {
    format!("{}.{}", container.name, id.restart_count)
}

/// `resources.limits`.
pub fn limits(container: &ContainerSpec) -> Limits {
    Limits {
        memory_bytes: container.memory_limit_bytes,
        cpu_millicores: container.cpu_limit_millicores,
        kills_together: container.oom_kills_together,
    }
}
