//! Finding the cgroup file systems, and the folders that all agents of a machine share.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use thiserror::Error;

use super::group::{Group, KillMethod, Leaf};
use super::limits::{self, Limits};
use super::mounts::Mounts;
use super::{CgroupError, oom, write_control};
use crate::model::id::PodUid;
use crate::model::limits::{CGROUP_DEPTH_MAX, CGROUP_MAKE_ATTEMPTS};
use crate::model::runtime::OomLimit;

/// Why there are no cgroups for us, as a clause for the start message.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
pub enum NoCgroups {
    #[error("no cgroup v2 file system is mounted")]
    NotMounted,
    #[error("cgroups may not be made below {}: {reason}", .root.display())]
    Forbidden { root: PathBuf, reason: String },
}

impl NoCgroups {
    /// What to do about it.
    pub fn cure(&self) -> &'static str {
        match self {
            NoCgroups::NotMounted => "mount one, or boot with systemd.unified_cgroup_hierarchy=1",
            NoCgroups::Forbidden { .. } => "run as root, or in a delegated cgroup (Delegate=yes of the unit)",
        }
    }
}

/// Where this agent makes cgroups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    /// `<root>` in the v2 tree: its mount point, or our own cgroup when that was delegated to us.
    root: PathBuf,
    /// The same for v1 controllers, where they may be used.
    v1_memory: Option<PathBuf>,
    v1_cpu: Option<PathBuf>,
    controllers: Vec<String>,
    /// The cgroup that the agent was started in.
    home: Option<PathBuf>,
    /// The v1 memory cgroup of the agent, and of every container that has none of its own.
    v1_memory_home: Option<PathBuf>,
    method: KillMethod,
}

impl Tree {
    /// Looks at the mounts and tries to make `<root>/defib/pods`.
    pub fn detect() -> Result<Tree, NoCgroups> {
        let mounts = Mounts::parse(&read_proc("/proc/self/mountinfo"));
        let mount = mounts.v2.ok_or(NoCgroups::NotMounted)?;
        let own = read_proc("/proc/self/cgroup");
        let (v1_memory, v1_memory_home) = v1_root(mounts.v1_memory, own_v1_path(&own, "memory"));
        let (v1_cpu, _) = v1_root(mounts.v1_cpu, own_v1_path(&own, "cpu"));
        let home = own_v2_path(&own).map(|path| below(&mount, path)).filter(|home| home.is_dir());
        let mut refused = None;
        for root in [Some(mount), home.clone()].into_iter().flatten() {
            match try_root(&root) {
                Ok(()) => {
                    return Ok(Tree {
                        controllers: words(&root.join("cgroup.controllers")),
                        root,
                        v1_memory,
                        v1_cpu,
                        home,
                        v1_memory_home,
                        method: KillMethod::File,
                    });
                }
                Err(error) => {
                    refused.get_or_insert((root, error));
                }
            }
        }
        Err(refused.map_or(NoCgroups::NotMounted, |(root, error)| NoCgroups::Forbidden {
            root,
            reason: error.to_string(),
        }))
    }

    /// The same tree with another way to kill, to force the fallback in tests.
    #[must_use]
    pub fn with_kill_method(mut self, method: KillMethod) -> Tree {
        self.method = method;
        self
    }

    /// Whether memory limits work here.
    pub fn limits_memory(&self) -> bool {
        self.v1_memory.is_some() || self.has_controller("memory")
    }

    /// For containers without a memory cgroup of their own.
    pub fn uncounted(&self) -> Uncounted {
        Uncounted { v1_memory: self.v1_memory_home.clone() }
    }

    /// Whether limits are those of v1 controllers beside the v2 tree.
    pub fn is_hybrid(&self) -> bool {
        self.v1_memory.is_some() || self.v1_cpu.is_some()
    }

    /// Whether cpu limits work here.
    pub fn limits_cpu(&self) -> bool {
        self.v1_cpu.is_some() || self.has_controller("cpu")
    }

    /// Moves this process and its helpers to `<root>/defib/agent`, which several agents may share. On v2 a
    /// cgroup that passes controllers on must hold no process of its own.
    pub fn enter_agent_leaf(&self, helpers: &[u32]) -> Result<(), CgroupError> {
        let leaf = self.root.join("defib/agent");
        for pid in [0].iter().chain(helpers) {
            retry_make(&leaf, || write_control("enter", &leaf.join("cgroup.procs"), &pid.to_string()))?;
        }
        Ok(())
    }

    /// Goes back to the cgroup that the agent was started in and removes the shared folders that are empty.
    /// Best effort: it is the last thing an agent does.
    pub fn leave(&self) {
        if let Some(home) = &self.home {
            let _stays = write_control("enter", &home.join("cgroup.procs"), "0");
        }
        self.remove_if_empty();
    }

    /// Removes the shared folders that hold nothing.
    pub fn remove_if_empty(&self) {
        let roots = [Some(&self.root), self.v1_memory.as_ref(), self.v1_cpu.as_ref()];
        for root in roots.into_iter().flatten() {
            for folder in ["defib/agent", "defib/pods", "defib"] {
                let _still_used = fs::remove_dir(root.join(folder));
            }
        }
    }

    /// The group that [`Tree::make`] will make; for a record that is written first.
    pub fn plan(&self, pod: PodUid, instance: &str, limits: Limits) -> Group {
        let dir_in = |root: &Path| root.join(format!("defib/pods/pod{pod}")).join(instance);
        let memory = limits.memory_bytes.and(self.v1_memory.as_deref());
        let cpu = limits.cpu_millicores.and(self.v1_cpu.as_deref());
        let mut v1_dirs: Vec<PathBuf> = memory.into_iter().chain(cpu).map(dir_in).collect();
        // Controllers may be mounted together.
        v1_dirs.dedup();
        Group::new(dir_in(&self.root), v1_dirs, self.method)
    }

    /// Makes the folders of an instance, `<container>.<restart count>`, and sets its limits. A limit whose
    /// controller is missing is left out ([`Tree::limits_memory`], [`Tree::limits_cpu`]).
    pub fn make(&self, pod: PodUid, instance: &str, limits: Limits) -> Result<Group, CgroupError> {
        let group = self.plan(pod, instance, limits);
        let main = group.main().dir;
        retry_make(&main, || Ok(()))?;
        for dir in group.v1_dirs() {
            retry_make(dir, || Ok(()))?;
        }
        if let Some(bytes) = limits.memory_bytes {
            match &self.v1_memory {
                Some(root) => limits::memory_v1(&dir_below(&group, root), bytes)?,
                None if self.pass_on("memory", group.dir()) => {
                    limits::memory_v2(group.dir(), bytes, limits.kills_together)?;
                }
                None => {}
            }
        }
        if let Some(millicores) = limits.cpu_millicores {
            match &self.v1_cpu {
                Some(root) => limits::cpu_v1(&dir_below(&group, root), millicores)?,
                None if self.pass_on("cpu", group.dir()) => limits::cpu_v2(group.dir(), millicores)?,
                None => {}
            }
        }
        Ok(group)
    }

    /// Enables a v2 controller from the root down to the parent of `dir`.
    fn pass_on(&self, controller: &str, dir: &Path) -> bool {
        if !self.has_controller(controller) {
            return false;
        }
        let above: Vec<&Path> =
            dir.ancestors().skip(1).take_while(|path| path.starts_with(&self.root)).collect();
        for path in above.into_iter().rev() {
            let control = path.join("cgroup.subtree_control");
            if let Err(error) = write_control("pass on a controller in", &control, &format!("+{controller}"))
            {
                // For example a process that sits in a delegated cgroup beside the agent.
                tracing::warn!(controller, %error, "a container runs without its limit");
                return false;
            }
        }
        true
    }

    fn has_controller(&self, name: &str) -> bool {
        self.controllers.iter().any(|controller| controller == name)
    }
}

/// The instance's folder in the v1 controller that is mounted at `root`.
fn dir_below(group: &Group, root: &Path) -> PathBuf {
    group.v1_dirs().iter().find(|dir| dir.starts_with(root)).cloned().unwrap_or_default()
}

/// Makes a folder and all above it, then does something in it. Another agent may remove a shared folder that
/// is still empty between the two: then from the start again.
fn retry_make(dir: &Path, then: impl Fn() -> Result<(), CgroupError>) -> Result<(), CgroupError> {
    let mut attempt = 1;
    loop {
        let made = fs::create_dir_all(dir).map_err(|source| CgroupError::new("make", dir, source));
        match made.and_then(|()| then()) {
            Err(error)
                if error.source.kind() == io::ErrorKind::NotFound && attempt < CGROUP_MAKE_ATTEMPTS =>
            {
                attempt += 1;
            }
            other => return other,
        }
    }
}

fn try_root(root: &Path) -> io::Result<()> {
    // Attaching a process needs the right to write to the common ancestor's file, too.
    access(root.join("cgroup.procs"), Access::WRITE_OK)?;
    retry_make(&root.join("defib/pods"), || Ok(())).map_err(|error| error.source)
}

/// Where cgroups of a v1 controller may be made: at its mount point, or below our own cgroup if that was delegated to
/// us. Beside it our own, whoever owns it.
fn v1_root(mount: Option<PathBuf>, own_path: Option<&str>) -> (Option<PathBuf>, Option<PathBuf>) {
    let own = mount.as_deref().zip(own_path).map(|(mount, path)| below(mount, path));
    let may_write = |dir: &PathBuf| access(dir, Access::WRITE_OK).is_ok();
    let root = [mount, own.clone()].into_iter().flatten().find(may_write);
    (root, own)
}

/// The cgroup that /proc names by `path`.
fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// Where a process is within the instance whose v2 cgroup has this id; None for one that is not in it or below, or is
/// gone. One that has ended and was not reaped is still there.
pub fn leaf_of(pid: u32, id: u64) -> Option<Leaf> {
    let mount = Mounts::parse(&read_proc("/proc/self/mountinfo")).v2?;
    let text = read_proc(&format!("/proc/{pid}/cgroup"));
    let dir = below(&mount, own_v2_path(&text)?);
    let mut way = dir.ancestors().take_while(|dir| dir.starts_with(&mount)).take(CGROUP_DEPTH_MAX);
    let instance = way.find(|dir| rustix::fs::stat(*dir).is_ok_and(|found| found.st_ino == id))?;
    Some(Leaf::of(dir.strip_prefix(instance).ok()?))
}

/// Memory that no counter of a container's own watches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Uncounted {
    v1_memory: Option<PathBuf>,
}

impl Uncounted {
    /// Whose limit is hit when a process is killed for it: the machine's where no cgroup has a limit, else unknown.
    pub fn limit(&self) -> OomLimit {
        self.v1_memory.as_deref().map_or(OomLimit::Unknown, oom::v1_limit_without_counter)
    }
}

/// Our path in the tree of a v1 controller.
fn own_v1_path<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

/// The path in the v2 tree, from a `/proc/<pid>/cgroup` (cgroups(7)).
fn own_v2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

fn read_proc(path: &str) -> String {
    // Without /proc there is nothing to find; the error text that follows says what is missing.
    fs::read_to_string(path).unwrap_or_default()
}

fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_of_an_instance() {
        for (below, leaf) in [
            ("", Leaf::Main),
            ("main", Leaf::Main),
            ("main/probe", Leaf::Main),
            ("probes", Leaf::Main),
            ("probe", Leaf::Exec),
            ("probe/7", Leaf::Exec),
            ("probe/7 (deleted)", Leaf::Exec),
            ("probe/7/own", Leaf::Exec),
        ] {
            assert_eq!(Leaf::of(Path::new(below)), leaf, "{below}");
        }
        let own = read_proc("/proc/self/cgroup");
        let mount = Mounts::parse(&read_proc("/proc/self/mountinfo")).v2;
        let dir = mount.zip(own_v2_path(&own)).map(|(mount, path)| below(&mount, path));
        if let Some(found) = dir.and_then(|dir| rustix::fs::stat(&dir).ok()) {
            assert_eq!(leaf_of(std::process::id(), found.st_ino), Some(Leaf::Main));
        }
        assert_eq!(leaf_of(std::process::id(), u64::MAX), None);
    }
}
