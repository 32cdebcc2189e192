//! `Cleanup`: what the main process left is killed, all of it is gone, the last words are read, nothing remains.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use probe_core::model::limits::{KILL_AGAIN, KILL_ATTEMPTS};
use probe_core::model::runtime::RuntimeEvent;
use probe_core::sys::cgroup::Group;
use probe_core::sys::pidfd;
use probe_core::sys::procfs::FileId;
use probe_core::sys::session::{Orphans, Session};

use super::grouping::{EndError, Grouping, ended};
use super::instance::{Instance, Phase};
use super::process::Shared;
use super::{logs, termination};

/// Ends the instance and answers `Gone`.
pub async fn run(shared: Rc<Shared>, instance: Rc<Instance>) {
    if instance.started().await == Phase::Running {
        instance.phase.send_replace(Phase::Ending);
        instance.kill_at.send_replace(None);
        kill_all(&shared, &instance).await;
        if let Some(main) = instance.main.get()
            && let Err(error) = ended(&main.pidfd).await
        {
            tracing::error!(instance = ?instance.id, pid = main.pid, %error, "cannot wait for the process");
        }
        instance.execs_done().await;
        // What an exec run left while it was being ended.
        kill_all(&shared, &instance).await;
    }
    let termination_message = termination::message(&instance);
    logs::finish(&instance).await;
    release(&shared, &instance);
    shared.tell(RuntimeEvent::Gone {
        instance: instance.id,
        termination_message: termination_message.map(Into::into),
    });
}

/// Takes back a start that failed: the child, if there is one, has ended or ends now.
pub async fn undo(shared: &Shared, instance: &Instance) {
    if let Some(main) = instance.main.get() {
        // It waits for a description that will not come, or has said why it failed and exits.
        let killed = pidfd::signal(main.pidfd.as_fd(), libc::SIGKILL);
        let reaped = match ended(&main.pidfd).await {
            Ok(()) => pidfd::reap(main.pidfd.as_fd()).map(|_status| ()),
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = killed.map(|_delivery| ()).and(reaped) {
            tracing::error!(instance = ?instance.id, pid = main.pid, %error, "a failed start leaves a process");
        }
    }
    kill_all(shared, instance).await;
    release(shared, instance);
}

/// Kills everything in the instance and waits until it is gone. Tried again for a while: being short of
/// descriptors passes.
pub async fn kill_all(shared: &Shared, instance: &Instance) {
    for attempt in 1..=KILL_ATTEMPTS {
        let Err(error) = try_kill_all(shared, instance).await else { return };
        if attempt == 1 || attempt == KILL_ATTEMPTS {
            tracing::error!(instance = ?instance.id, attempt, %error, "cannot end what is left of a container");
        }
        tokio::time::sleep(KILL_AGAIN).await;
    }
}

/// Kills what is there now and does not wait: the exits are the answer. False when that failed.
pub fn kill_once(shared: &Shared, instance: &Instance) -> bool {
    instance.note_strays();
    // Found before the main process is killed: then descent is no longer to be seen.
    let members = match instance.main.get() {
        Some(main) if instance.group.is_none() || instance.has_strayed.get() => {
            session(shared, instance, main.pid, main.start_ticks).members()
        }
        _ => Ok(Vec::new()),
    };
    let main = kill_main(instance);
    let rest = match &instance.group {
        Some(group) if group.exists() => group.kill().map_err(EndError::from),
        _ => Ok(()),
    };
    let killed = members
        .and_then(|members| members.into_iter().try_for_each(|member| member.kill().map(|_ended| ())))
        .map_err(|source| EndError::Io { operation: "kill a process", source });
    match main.and(rest).and(killed) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(instance = ?instance.id, %error, "cannot kill a container after its grace period");
            false
        }
    }
}

/// The main process by its own descriptor, wherever it is: it may have left its cgroup, as a login does.
fn kill_main(instance: &Instance) -> Result<(), EndError> {
    let Some(main) = instance.main.get() else { return Ok(()) };
    let killed = pidfd::signal(main.pidfd.as_fd(), libc::SIGKILL);
    killed.map(|_delivery| ()).map_err(|source| EndError::Io { operation: "kill a process", source })
}

async fn try_kill_all(shared: &Shared, instance: &Instance) -> Result<(), EndError> {
    // When it has ended already this finds nobody.
    kill_main(instance)?;
    if let Some(group) = instance.group.as_ref().filter(|group| group.exists()) {
        Grouping::Instance(group).end().await?;
    }
    if let Some(main) = instance.main.get()
        && (instance.group.is_none() || instance.has_strayed.get())
    {
        ended(&main.pidfd).await?;
        Grouping::Session(&session(shared, instance, main.pid, main.start_ticks)).end().await?;
    }
    Ok(())
}

fn session(shared: &Shared, instance: &Instance, leader: u32, leader_start_ticks: u64) -> Session {
    if instance.group.is_some() {
        // Orphans come to us only where there are no cgroups, so no process needs to be asked for marks.
        let (files, environ) = (Vec::new(), None);
        return Session { leader, leader_start_ticks, files, environ, orphans: Orphans::Ours };
    }
    let environ = instance.launch.environ_block();
    let is_unique = shared
        .instances
        .borrow()
        .values()
        .all(|other| other.id == instance.id || other.launch.environ_block() != environ);
    Session {
        leader,
        leader_start_ticks,
        files: FileId::of(&instance.files.log).into_iter().collect(),
        environ: is_unique.then_some(environ),
        orphans: Orphans::Ours,
    }
}

/// Cgroups, record and entries. What cannot be removed is named and left, and then its record stays: the next
/// agent looks for what may still run there.
fn release(shared: &Shared, instance: &Instance) {
    let removed = instance.group.as_ref().map_or(Ok(()), Group::remove);
    if let Err(error) = &removed {
        tracing::error!(instance = ?instance.id, %error, "a cgroup is left");
    }
    if let Some(record) = instance.record.borrow_mut().take().filter(|_| removed.is_ok()) {
        match fs::remove_file(&record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(record = %record.display(), %error, "a record is left");
            }
            _ => {}
        }
    }
    if let Some(main) = instance.main.get() {
        shared.children.borrow_mut().remove(&main.pid);
    }
    shared.instances.borrow_mut().remove(&instance.id);
}
