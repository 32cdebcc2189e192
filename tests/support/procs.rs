//! What /proc and the cgroup file systems say about processes.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders below a cgroup root that are searched for a pod: deeper than any that defib makes.
const CGROUP_DEPTH_MAX: usize = 8;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// As in /proc/PID/stat: `R`, `S`, `Z` for a zombie, …
    pub state: char,
    /// In clock ticks since boot. With the pid it names a process for one boot.
    pub start_ticks: u64,
    /// With spaces between the arguments; empty for a zombie.
    pub command_line: String,
}

/// The process `pid`; None when it is gone.
pub fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, so count from the last one.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // The 22nd of all (proc_pid_stat(5)), and the parent is the 4th.
    let start_ticks = fields.nth(17)?.parse().ok()?;
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command_line = String::from_utf8_lossy(&raw).replace('\0', " ").trim().to_owned();
    Some(Process { pid, parent, state, start_ticks, command_line })
}

/// Every process that can be seen.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(process).collect()
}

/// Processes in the network namespace with this inode. Zombies have left theirs: see [`children`].
pub fn in_network_namespace(inode: u64) -> Vec<Process> {
    let name = format!("net:[{inode}]");
    let inside = |process: &Process| {
        fs::read_link(format!("/proc/{}/ns/net", process.pid))
            .is_ok_and(|link| link.as_os_str() == name.as_str())
    };
    all().into_iter().filter(inside).collect()
}

/// Children of `parent`, zombies among them.
pub fn children(parent: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == parent).collect()
}

/// Pids of the children of a process's main thread, without a walk over all of /proc (CONFIG_PROC_CHILDREN).
pub fn children_of_main_thread(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let pids = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Open descriptors of `pid`.
pub fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Cgroup directories of the pod, in every hierarchy of the machine.
pub fn pod_cgroups(pod_uid: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    find_folder(Path::new("/sys/fs/cgroup"), &format!("pod{pod_uid}"), CGROUP_DEPTH_MAX, &mut found);
    found
}

fn find_folder(dir: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    // A directory that vanishes while it is read holds nothing any more.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == name {
            found.push(entry.path());
        } else if depth > 0 {
            find_folder(&entry.path(), name, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{SOON, eventually};

    #[test]
    fn a_zombie_is_seen_among_the_children() {
        let mut child = Command::new("true").spawn().expect("true");
        let zombie = eventually("it has ended and is not reaped", SOON, || {
            children(std::process::id()).into_iter().find(|p| p.pid == child.id() && p.state == 'Z')
        });
        assert_eq!(zombie.command_line, "");
        child.wait().expect("it is reaped");
        assert_eq!(process(child.id()), None);
    }

    #[test]
    fn descriptors_and_cgroups_of_nobody_are_none() {
        assert!(open_descriptors(std::process::id()) > 2);
        assert_eq!(pod_cgroups("00000000-0000-0000-0000-000000000000"), Vec::<PathBuf>::new());
    }
}
