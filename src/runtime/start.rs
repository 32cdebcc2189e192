//! From `Start` to `Started`: folders, record, cgroup, birth, go.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::sync::Arc;

use probe_core::model::pod::{ChildOomPolicy, ContainerSpec};
use probe_core::model::runtime::{RuntimeEvent, StartError};
use probe_core::sensor::{Container, Key, Member};
use probe_core::sys::cgroup::{CgroupError, Group, OomWatch, Tree};
use probe_core::sys::spawn::{BindFile, Birth, ChildSpec, Newborn};
use probe_core::sys::{clock, pidfd, procfs};
use thiserror::Error;

use super::birth::{self, Go};
use super::cleanup;
use super::grouping::ended;
use super::instance::{self, Instance, Main, Phase};
use super::launch::{LaunchError, c_string};
use super::process::Shared;
use super::record::{Born, Record};

/// Everybody may write last words, whoever the container runs as.
const TERMINATION_FILE_MODE: u32 = 0o666;

#[derive(Error, Debug)]
enum Failure {
    #[error(transparent)]
    Config(#[from] LaunchError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot {operation}: {source}")]
    Io { operation: &'static str, source: io::Error },
    #[error("{0}")]
    Run(String),
}

impl Failure {
    fn kind(&self) -> StartError {
        match self {
            Failure::Config(_) => StartError::Config,
            Failure::Cgroup(_) | Failure::Io { .. } => StartError::Create,
            Failure::Run(_) => StartError::Run,
        }
    }
}

/// Starts the instance. It ends as running, or as never ran with nothing left behind.
pub async fn run(shared: Rc<Shared>, instance: Rc<Instance>) {
    let error = match try_start(&shared, &instance).await {
        Ok(()) => return,
        Err(error) => error,
    };
    cleanup::undo(&shared, &instance).await;
    instance.phase.send_replace(Phase::NeverRan);
    shared.tell(RuntimeEvent::StartFailed {
        instance: instance.id,
        error: error.kind(),
        message: error.to_string().into(),
        at: clock::now(),
    });
}

async fn try_start(shared: &Shared, instance: &Instance) -> Result<(), Failure> {
    let spec = prepare(shared, instance)?;
    let record =
        Record::begin(&shared.config.state_dir, instance.id, instance.group.as_ref(), &instance.files.log)
            .map_err(io("write the instance's record"))?;
    *instance.record.borrow_mut() = Some(record.path().to_owned());
    let Newborn { pid, pidfd, control } = bear(shared, instance).await?;
    shared.children.borrow_mut().insert(pid);
    let pidfd = Arc::new(pidfd);
    let start_ticks = start_ticks(pid);
    // Set before anything can fail, so that undoing finds the process. A start time of 0 is nobody's: a child
    // that never ran has left nothing to look for.
    let known_ticks = *start_ticks.as_ref().unwrap_or(&0);
    let _first = instance.main.set(Main { pid, start_ticks: known_ticks, pidfd: Arc::clone(&pidfd) });
    let start_ticks = start_ticks?;
    record.finish(Born { pid, start_ticks }).map_err(io("write the instance's record"))?;
    shared.tell(RuntimeEvent::Created { instance: instance.id, at: clock::now() });
    // Before it may run, so that no death of it is missed.
    let container = announcement(shared, instance, Member { pid, start_ticks, cgroup_id: None }, &pidfd);
    // Once for a container, not for each of its instances.
    if instance.id.restart_count == 0
        && is_blind(instance.spec(), container.oom.is_some(), shared.sensor.names_victims())
    {
        tracing::warn!(
            pod = &*instance.pod.name,
            container = &*instance.spec().name,
            "on-child-oom has no effect: kills for memory are not seen in a container without a memory limit; \
             set resources.limits.memory, or run the eBPF sensor (defib doctor)"
        );
    }
    let key = shared.sensor.announce(container);
    let went = match birth::go(control, &spec).await {
        Ok(Go::Running) => Ok(()),
        Ok(Go::Failed(failure)) => Err(Failure::Run(failure.message(&spec))),
        Err(error) => Err(io("start the process")(error)),
    };
    if went.is_err() {
        shared.sensor.forget(key);
        return went;
    }
    shared.tell(RuntimeEvent::Started { instance: instance.id, pid, at: clock::now() });
    watch(shared, instance, key, pidfd).await;
    instance.phase.send_replace(Phase::Running);
    Ok(())
}

/// Whether an annotation asks to act on a killed child, and nobody would learn of one.
fn is_blind(spec: &ContainerSpec, has_counter: bool, names_victims: bool) -> bool {
    let acts = matches!(spec.on_child_oom, ChildOomPolicy::RestartContainer | ChildOomPolicy::RestartPod);
    acts && !has_counter && !names_victims
}

fn announcement(shared: &Shared, instance: &Instance, main: Member, pidfd: &Arc<OwnedFd>) -> Container {
    let group = instance.group.as_ref();
    Container {
        instance: instance.id,
        pidfd: Arc::clone(pidfd),
        // A folder that cannot be looked at leaves the main process, which is known by its pid.
        member: Member { cgroup_id: group.and_then(|group| group.id().ok()), ..main },
        execs: group.map(Group::execs),
        oom: oom_watch(instance),
        uncounted: shared.host.tree.as_ref().map(Tree::uncounted).unwrap_or_default(),
        kills_together: group.is_some_and(Group::kills_together),
    }
}

/// Folders and files, before the container counts as created.
fn prepare(shared: &Shared, instance: &Instance) -> Result<ChildSpec, Failure> {
    instance.launch.check_working_dir()?;
    let files = &instance.files;
    files.prepare(instance.id.restart_count).map_err(io("prepare the log folder"))?;
    let mut spec = instance.launch.main(&files.log)?;
    if shared.host.may_mount {
        fs::write(&files.termination, "")
            .and_then(|()| {
                fs::set_permissions(&files.termination, fs::Permissions::from_mode(TERMINATION_FILE_MODE))
            })
            .map_err(io("make the termination message file"))?;
        spec.bind = Some(BindFile {
            source: c_string("the state directory", files.termination.as_os_str())?,
            target: c_string(
                "terminationMessagePath",
                std::ffi::OsStr::new(&*instance.spec().termination_message_path),
            )?,
        });
    }
    if let Some(group) = &instance.group {
        for tasks in group.main().v1_tasks {
            spec.v1_tasks.push(c_string("a cgroup", tasks.as_os_str())?);
        }
    }
    Ok(spec)
}

/// The cgroup and a process in it that waits for its description.
async fn bear(shared: &Shared, instance: &Instance) -> Result<Newborn, Failure> {
    let cgroup: Option<OwnedFd> = match &shared.host.tree {
        Some(tree) => {
            let name = instance::cgroup_name(instance.spec(), instance.id);
            let group = tree.make(instance.id.pod, &name, instance::limits(instance.spec()))?;
            Some(group.main().open()?)
        }
        None => None,
    };
    let birth = Birth { cgroup: cgroup.as_ref().map(AsFd::as_fd), output: None, namespace_of: None };
    shared.nursery.request(birth).await.map_err(io("make a process"))
}

fn start_ticks(pid: u32) -> Result<u64, Failure> {
    let stat = procfs::stat(pid).map_err(io("read /proc"))?;
    let gone = || io("find the new process")(io::ErrorKind::NotFound.into());
    Ok(stat.ok_or_else(gone)?.start_ticks)
}

/// From here on the sensor reaps it. A sensor that is full is replaced by killing the container: one that runs
/// unwatched would never be restarted.
async fn watch(shared: &Shared, instance: &Instance, key: Key, pidfd: Arc<OwnedFd>) {
    let error = match shared.sensor.watch(key) {
        Ok(exit) => {
            let _first = instance.exit.set(exit);
            return;
        }
        Err(error) => error,
    };
    tracing::error!(%error, "a container that cannot be watched is killed");
    if let Err(error) = pidfd::signal(pidfd.as_fd(), libc::SIGKILL) {
        tracing::error!(instance = ?instance.id, %error, "cannot kill it");
    }
    if let Err(error) = ended(&pidfd).await {
        tracing::error!(instance = ?instance.id, %error, "cannot wait for it");
    }
    match pidfd::reap(pidfd.as_fd()) {
        Ok(Some(status)) => {
            let (oom_killed, at) = (false, clock::now());
            shared.tell(RuntimeEvent::Exited { instance: instance.id, status, oom_killed, at });
        }
        other => tracing::error!(instance = ?instance.id, ?other, "its exit status is lost"),
    }
}

/// A container whose kills for memory cannot be watched runs all the same.
fn oom_watch(instance: &Instance) -> Option<OomWatch> {
    let watch = instance.group.as_ref().map_or(Ok(None), Group::oom_watch);
    watch.unwrap_or_else(|error| {
        tracing::warn!(instance = ?instance.id, %error, "kills for memory are not seen");
        None
    })
}

fn io(operation: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Io { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn an_annotation_without_effect() {
        let asked = |on_child_oom| {
            let spec = samples::spec(1, "p", &["m"]).containers.swap_remove(0);
            ContainerSpec { on_child_oom, ..spec }
        };
        for restart in [ChildOomPolicy::RestartContainer, ChildOomPolicy::RestartPod].map(asked) {
            assert!(is_blind(&restart, false, false));
            assert!(!is_blind(&restart, true, false) && !is_blind(&restart, false, true));
        }
        for other in [ChildOomPolicy::Ignore, ChildOomPolicy::Event].map(asked) {
            assert!(!is_blind(&other, false, false), "nothing is to be done");
        }
    }
}
