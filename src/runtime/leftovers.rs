//! The end of what an agent left that was killed (design 9.9). Runs before anything is started.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use probe_core::model::limits::LEFTOVER_WAIT;
use probe_core::model::time::Mono;
use probe_core::sys::cgroup::{CgroupError, Group};
use probe_core::sys::session::{Member, Orphans, Session};
use probe_core::sys::{clock, pidfd, procfs};
use thiserror::Error;

use super::files;
use super::record::{self, Born, Found, Planned};

#[derive(Error, Debug)]
pub enum LeftoverError {
    #[error("cannot {operation} {}: {source}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot end what an earlier agent left: {0}")]
    Cgroup(#[from] CgroupError),
    #[error(
        "processes that an earlier agent left do not end, though killed ({what}): they are stuck in the kernel; \
         nothing is started beside them"
    )]
    Stuck { what: String },
}

/// Ends every recorded instance and removes its cgroups and record, then the folders of pods that nobody
/// knows any more. Answers how many instances it ended.
pub fn end(state_dir: &Path) -> Result<usize, LeftoverError> {
    let dir = files::instances_dir(state_dir);
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| LeftoverError::Io { operation, path, source }
    };
    fs::create_dir_all(&dir).map_err(io("make", &dir))?;
    let boot_id = procfs::boot_id().map_err(io("read", Path::new("/proc/sys/kernel/random/boot_id")))?;
    let deadline = clock::mono().after(LEFTOVER_WAIT);
    let mut ended = 0;
    for entry in fs::read_dir(&dir).map_err(io("list", &dir))? {
        let path = entry.map_err(io("list", &dir))?.path();
        let found = record::read(&path).map_err(io("read", &path))?;
        if let Found { planned: Some(planned), born } = found
            && planned.boot_id == boot_id
        {
            ended += usize::from(end_one(&planned, born, deadline)?);
        }
        fs::remove_file(&path).map_err(io("remove", &path))?;
    }
    let pods = state_dir.join("pods");
    files::remove_stale_pods(state_dir).map_err(io("clear", &pods))?;
    Ok(ended)
}

/// Answers whether anything was alive.
fn end_one(planned: &Planned, born: Option<Born>, deadline: Mono) -> Result<bool, LeftoverError> {
    let mut was_alive = false;
    if let Some(dir) = &planned.cgroup {
        let group = Group::at(dir.clone(), planned.v1_cgroups.clone());
        if group.exists() {
            was_alive |= end_group(&group, deadline)?;
        }
        group.remove()?;
        // It may have left its cgroup, as a login does.
        was_alive |= born.map_or(Ok(false), |born| end_leader(born, deadline))?;
    } else if let Some(born) = born {
        was_alive |= end_session(planned, born, deadline)?;
    }
    Ok(was_alive)
}

fn end_group(group: &Group, deadline: Mono) -> Result<bool, LeftoverError> {
    let mut events = group.events()?;
    let was_alive = events.populated()?;
    while events.populated()? {
        group.kill()?;
        let left = remaining(deadline);
        if left.is_zero() || !events.wait_empty(left)? && remaining(deadline).is_zero() {
            return Err(LeftoverError::Stuck { what: group.dir().display().to_string() });
        }
    }
    Ok(was_alive)
}

fn end_leader(born: Born, deadline: Mono) -> Result<bool, LeftoverError> {
    let leader = Member { pid: born.pid, start_ticks: born.start_ticks };
    let Some(process) = leader.kill().map_err(in_proc)? else { return Ok(false) };
    wait_ended(born.pid, &process, deadline).map(|()| true)
}

fn wait_ended(pid: u32, process: &OwnedFd, deadline: Mono) -> Result<(), LeftoverError> {
    match pidfd::wait_ended(process.as_fd(), Some(remaining(deadline))).map_err(in_proc)? {
        true => Ok(()),
        false => Err(LeftoverError::Stuck { what: format!("pid {pid}") }),
    }
}

fn in_proc(source: io::Error) -> LeftoverError {
    LeftoverError::Io { operation: "end process", path: PathBuf::from("/proc"), source }
}

fn end_session(planned: &Planned, born: Born, deadline: Mono) -> Result<bool, LeftoverError> {
    let session = Session {
        leader: born.pid,
        leader_start_ticks: born.start_ticks,
        files: procfs::FileId::of(&planned.log).into_iter().collect(),
        environ: None,
        orphans: Orphans::Anybodys,
    };
    let leader = Member { pid: born.pid, start_ticks: born.start_ticks };
    let mut was_alive = false;
    loop {
        let mut members = session.members().map_err(in_proc)?;
        members.push(leader);
        let mut killed = Vec::new();
        for member in members {
            killed.extend(member.kill().map_err(in_proc)?.map(|pidfd| (member.pid, pidfd)));
        }
        if killed.is_empty() {
            return Ok(was_alive);
        }
        was_alive = true;
        for (pid, process) in killed {
            wait_ended(pid, &process, deadline)?;
        }
    }
}

fn remaining(deadline: Mono) -> Duration {
    deadline.since(clock::mono())
}
