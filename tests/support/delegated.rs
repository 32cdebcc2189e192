//! A cgroup that was handed to an ordinary user, as a service manager does it for a unit with `Delegate=yes`.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::SOON;
use crate::watch::within;

/// Where the v2 tree is: alone, or beside v1 controllers.
const V2_MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Controllers that are handed over where they are mounted as v1.
const V1_MOUNTS: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"];
/// Files that whoever owns a cgroup may write (cgroups(7), Documentation/admin-guide/cgroup-v2.rst). Limits of the
/// cgroup itself stay its giver's.
const OWNED: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"];

/// One folder in the v2 tree and one in each v1 controller. Removed with this value, when nothing runs there any more.
pub struct Delegated {
    uid: u32,
    dirs: Vec<PathBuf>,
}

impl Delegated {
    /// Makes the folders and gives them to the user. It needs root rights.
    pub fn to(uid: u32) -> Delegated {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("defib-test-{}-{}", id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let v2 = v2_mount();
        // On a pure v2 host the controllers of the root are passed on to its children.
        let v1 = V1_MOUNTS.iter().map(Path::new).filter(|mount| mount.join("tasks").exists());
        let mut delegated = Delegated { uid, dirs: Vec::new() };
        for mount in [v2].into_iter().chain(v1) {
            let dir = mount.join(&name);
            fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
            delegated.dirs.push(dir.clone());
            for file in ["."].iter().chain(&OWNED).map(|name| dir.join(name)).filter(|path| path.exists()) {
                chown(&file, Some(uid), Some(uid)).expect("chown (root rights are needed)");
            }
        }
        delegated
    }

    /// `command`, run inside as the user. Root moves the process before it becomes the user's: an ordinary user may
    /// not take a process out of the root's cgroup.
    pub fn wrap(&self, command: &Command) -> Command {
        let enter = "while [ \"$1\" != -- ]; do echo 0 >\"$1/cgroup.procs\" || exit 1; shift; done; shift; exec \"$@\"";
        let mut wrapped = Command::new("/bin/sh");
        wrapped.args(["-c", enter, "sh"]).args(&self.dirs).arg("--");
        let uid = self.uid;
        wrapped
            .arg("setpriv")
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg("--clear-groups");
        wrapped.arg(command.get_program()).args(command.get_args()).env_clear();
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped
    }

    /// The folders below those that were handed over.
    pub fn below(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.dirs.iter().for_each(|dir| find_below(dir, &mut found));
        found
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let mut deepest_first = self.below();
        deepest_first.reverse();
        deepest_first.extend(self.dirs.iter().cloned());
        for dir in deepest_first {
            // What was killed a moment ago may still be there. A panic here could hide the one of a test.
            if within(SOON, || (fs::remove_dir(&dir).is_ok() || !dir.exists()).then_some(())).is_none() {
                eprintln!("left over: {}", dir.display());
            }
        }
    }
}

/// The root of the v2 tree.
pub(crate) fn v2_mount() -> &'static Path {
    let mount = V2_MOUNTS.iter().map(Path::new).find(|mount| mount.join("cgroup.procs").exists());
    mount.expect("a cgroup v2 tree")
}

/// Each folder before those in it.
fn find_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.push(entry.path());
        find_below(&entry.path(), found);
    }
}
