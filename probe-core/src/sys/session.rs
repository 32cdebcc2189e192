//! What belongs to a container where no cgroup says so (design 9.8): its session, everything that descends
//! from it, and orphans that still carry its marks. Best effort: a process that leaves the session, loses its
//! parent, and changes both its files and its environment is not found.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Pid, WaitId, WaitIdOptions, set_child_subreaper, waitid};

use super::pidfd::{self, Delivery};
use super::procfs::{self, FileId, Stat};

/// How the processes of one container are recognised.
#[derive(Clone, Debug)]
pub struct Session {
    /// Pid of the process that made the session.
    pub leader: u32,
    /// Its start time: guards against another process that got its pid.
    pub leader_start_ticks: u64,
    /// Files that only this container writes to: its log, the pipes of an exec.
    pub files: Vec<FileId>,
    /// The environment it was started with, NUL-separated, if no other container has the same.
    pub environ: Option<Vec<u8>>,
    /// Which processes are asked for marks.
    pub orphans: Orphans,
}

/// Where processes go whose parent ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Orphans {
    /// To us: we are the subreaper.
    Ours,
    /// To anybody: an agent that is gone was the subreaper.
    Anybodys,
}

/// A process at one moment.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    pub pid: u32,
    pub start_ticks: u64,
}

/// Makes orphaned descendants children of this process (kernel 3.4), so that they can be found and reaped.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Pid::from_raw(1))?)
}

impl Session {
    /// Every living process of the container but the leader. Zombies among our children are reaped on the way.
    pub fn members(&self) -> io::Result<Vec<Member>> {
        let all = procfs::all()?;
        let own_pid = std::process::id();
        let is_candidate = |stat: &Stat| match self.orphans {
            Orphans::Ours => stat.parent == own_pid,
            Orphans::Anybodys => true,
        };
        let own_session = all.iter().find(|stat| stat.pid == own_pid).map(|stat| stat.session);
        let marked =
            |stat: &Stat| Some(stat.session) != own_session && is_candidate(stat) && self.is_marked(stat.pid);
        let leader = Member { pid: self.leader, start_ticks: self.leader_start_ticks };
        let found = select(&all, leader, self.orphans, marked);
        for stat in found.iter().filter(|stat| stat.is_zombie() && stat.parent == own_pid) {
            reap_child(stat.pid);
        }
        let alive = found.into_iter().filter(|stat| !stat.is_zombie());
        Ok(alive.map(|stat| Member { pid: stat.pid, start_ticks: stat.start_ticks }).collect())
    }

    fn is_marked(&self, pid: u32) -> bool {
        procfs::holds_file(pid, &self.files) || self.environ.is_some() && procfs::environ(pid) == self.environ
    }
}

impl Member {
    /// Sends SIGKILL if it is still the same process, and gives a descriptor to wait on.
    pub fn kill(self) -> io::Result<Option<std::os::fd::OwnedFd>> {
        self.signal(libc::SIGKILL)
    }

    /// As [`Member::kill`] with any signal. None when the process is gone.
    pub fn signal(self, number: i32) -> io::Result<Option<std::os::fd::OwnedFd>> {
        let pidfd = match pidfd::open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The descriptor pins the process; only now does the start time prove that it is the one we mean.
        match procfs::stat(self.pid)? {
            // A zombie takes signals and never ends by them; its parent reaps it.
            Some(stat) if stat.start_ticks == self.start_ticks && !stat.is_zombie() => {}
            _ => return Ok(None),
        }
        match pidfd::signal(pidfd.as_fd(), number)? {
            Delivery::Sent => Ok(Some(pidfd)),
            Delivery::Ended => Ok(None),
        }
    }
}

/// Reaps those of our zombie children that nobody waits for: not in `waited_for`, and in none of the sessions
/// that the agent's own helpers are in. Answers how many.
pub fn reap_orphans(waited_for: &HashSet<u32>, helper_sessions: &[u32]) -> io::Result<usize> {
    let own_pid = std::process::id();
    let all = procfs::all()?;
    let own_session = all.iter().find(|stat| stat.pid == own_pid).map(|stat| stat.session);
    let nobodys = all.iter().filter(|stat| {
        stat.is_zombie()
            && stat.parent == own_pid
            && Some(stat.session) != own_session
            && !helper_sessions.contains(&stat.session)
            && !waited_for.contains(&stat.pid)
    });
    Ok(nobodys.filter(|stat| reap_child(stat.pid)).count())
}

fn reap_child(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    waitid(WaitId::Pid(pid), options).is_ok_and(|status| status.is_some())
}

/// The session and the marked, and all who descend from them or from the leader; without the leader.
///
/// Without its leader, a session of an agent that is gone proves nothing: it may have ended, and a stranger's
/// session have got its number.
fn select(all: &[Stat], leader: Member, orphans: Orphans, marked: impl Fn(&Stat) -> bool) -> Vec<Stat> {
    // A process with the leader's pid and another start time: the pid was free, so the session was empty.
    let usurped = all.iter().any(|stat| stat.pid == leader.pid && stat.start_ticks != leader.start_ticks);
    let is_alive = all.iter().any(|stat| stat.pid == leader.pid) && !usurped;
    let in_session = |stat: &Stat| {
        let has_number = stat.session == leader.pid && stat.start_ticks >= leader.start_ticks;
        has_number && !usurped && (is_alive || orphans == Orphans::Ours)
    };
    let mut members: HashSet<u32> = if usurped { HashSet::new() } else { HashSet::from([leader.pid]) };
    members.extend(all.iter().filter(|stat| in_session(stat) || marked(stat)).map(|stat| stat.pid));
    loop {
        let before = members.len();
        let children: Vec<u32> =
            all.iter().filter(|stat| members.contains(&stat.parent)).map(|stat| stat.pid).collect();
        members.extend(children);
        if members.len() == before {
            break;
        }
    }
    let is_leader = |stat: &Stat| stat.pid == leader.pid && !usurped;
    all.iter().filter(|stat| members.contains(&stat.pid) && !is_leader(stat)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (pid, parent, session, start)
    fn stats(rows: &[(u32, u32, u32, u64)]) -> Vec<Stat> {
        let stat = |&(pid, parent, session, start_ticks)| Stat {
            pid,
            state: b'S',
            parent,
            session,
            is_exiting: false,
            start_ticks,
        };
        rows.iter().map(stat).collect()
    }

    fn check(rows: &[(u32, u32, u32, u64)], marked: &[u32], expected: &[u32]) {
        assert_eq!(selected(rows, Orphans::Ours, marked), expected, "{rows:?}");
    }

    fn selected(rows: &[(u32, u32, u32, u64)], orphans: Orphans, marked: &[u32]) -> Vec<u32> {
        let leader = Member { pid: 10, start_ticks: 100 };
        let found = select(&stats(rows), leader, orphans, |stat| marked.contains(&stat.pid));
        found.iter().map(|stat| stat.pid).collect()
    }

    #[test]
    fn what_an_agent_that_is_gone_left() {
        let leader = (10, 1, 10, 100);
        let rest = [(11, 1, 10, 101), (12, 11, 12, 102)];
        let selected = |rows: &[_], marked: &[u32]| selected(rows, Orphans::Anybodys, marked);
        assert_eq!(selected(&[leader, rest[0], rest[1]], &[]), [11, 12]);
        // The leader's pid may have had a second owner meanwhile, who left these.
        assert_eq!(selected(&rest, &[]), [0; 0]);
        assert_eq!(selected(&rest, &[11]), [11, 12]);
    }

    #[test]
    fn who_belongs_to_a_container() {
        let agent = (1, 0, 1, 1);
        let leader = (10, 1, 10, 100);
        // Children, also in a session of their own.
        check(&[agent, leader, (11, 10, 10, 101), (12, 11, 12, 102), (20, 1, 20, 90)], &[], &[11, 12]);
        // An orphan in the session, leader still there or gone.
        check(&[agent, leader, (11, 1, 10, 101)], &[], &[11]);
        check(&[agent, (11, 1, 10, 101)], &[], &[11]);
        // An orphan in a session of its own is known by its marks, and so are its children.
        check(&[agent, (11, 1, 11, 101), (12, 11, 11, 101)], &[11], &[11, 12]);
        check(&[agent, (11, 1, 11, 101), (12, 11, 11, 101)], &[], &[]);
        // The leader's pid belongs to somebody else now.
        check(&[agent, (10, 1, 10, 200), (11, 10, 10, 201)], &[], &[]);
        check(&[agent, (10, 1, 10, 200), (12, 1, 12, 150)], &[12], &[12]);
    }
}
