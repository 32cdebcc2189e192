//! Killing everything that belongs together, and waiting until it is gone, without blocking the thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use probe_core::model::limits::KILL_AGAIN;
use probe_core::sys::cgroup::{CgroupError, Events, Group, Place};
use probe_core::sys::pidfd;
use probe_core::sys::session::Session;
use thiserror::Error;
use tokio::io::Interest;

use super::watched::watched;

#[derive(Error, Debug)]
pub enum EndError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot {operation}: {source}")]
    Io { operation: &'static str, source: io::Error },
}

/// What holds processes together.
pub enum Grouping<'a> {
    Instance(&'a Group),
    Exec(&'a Group, &'a Place),
    Session(&'a Session),
}

impl Grouping<'_> {
    /// Kills until nothing is left. A process stuck in the kernel makes this wait as long as it is stuck.
    pub async fn end(&self) -> Result<(), EndError> {
        match self {
            Grouping::Instance(group) => empty(group.events()?, || group.kill()).await,
            Grouping::Exec(group, place) => empty(place.events()?, || group.kill_place(place)).await,
            Grouping::Session(session) => end_session(session).await,
        }
    }
}

/// Resolves when the process has ended, reaped or not.
pub async fn ended(pidfd: &Arc<OwnedFd>) -> Result<(), EndError> {
    let failed = |source| EndError::Io { operation: "wait for a process", source };
    if pidfd::wait_ended(pidfd.as_fd(), Some(Duration::ZERO)).map_err(failed)? {
        return Ok(());
    }
    let process = watched(Arc::clone(pidfd), Interest::READABLE).map_err(failed)?;
    process.readable().await.map_err(failed)?.retain_ready();
    Ok(())
}

async fn empty(mut events: Events, kill: impl Fn() -> Result<(), CgroupError>) -> Result<(), EndError> {
    if !events.populated()? {
        return Ok(());
    }
    kill()?;
    let failed = |source| EndError::Io { operation: "watch a cgroup", source };
    let mut changes = watched(events, Interest::PRIORITY).map_err(failed)?;
    while changes.get_mut().populated()? {
        let changed = changes.ready(Interest::PRIORITY);
        match tokio::time::timeout(KILL_AGAIN, changed).await {
            Ok(ready) => ready.map_err(failed)?.clear_ready(),
            Err(_) => kill()?,
        }
    }
    Ok(())
}

async fn end_session(session: &Session) -> Result<(), EndError> {
    let failed = |source| EndError::Io { operation: "end the processes of a session", source };
    loop {
        let mut killed = Vec::new();
        for member in session.members().map_err(failed)? {
            killed.extend(member.kill().map_err(failed)?.map(Arc::new));
        }
        if killed.is_empty() {
            return Ok(());
        }
        for process in &killed {
            ended(process).await?;
        }
    }
}
