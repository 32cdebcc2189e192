//! What this host lets us do, found once at start.

use std::fmt;

use probe_core::sys::cgroup::{NoCgroups, Tree};
use probe_core::sys::{host, session};

/// Ways to hold a container's processes together, and rights.
#[derive(Debug)]
pub struct Host {
    /// None: sessions, a subreaper and walks over /proc (design 9.8).
    pub tree: Option<Tree>,
    pub is_root: bool,
    pub may_mount: bool,
}

/// Something that a container may ask for and does not get here. Shown once at start, and by `doctor`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    Cgroups(NoCgroups),
    Subreaper { error: String },
    AgentLeaf { error: String },
    MemoryLimits,
    CpuLimits,
    OtherUsers,
    TerminationMessages,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Cgroups(why) => write!(
                f,
                "no cgroups: {why} ({}); leftovers of a container are found by session and parent instead",
                why.cure()
            ),
            Missing::Subreaper { error } => {
                write!(f, "orphans of containers cannot be found: PR_SET_CHILD_SUBREAPER: {error}")
            }
            Missing::AgentLeaf { error } => write!(f, "the agent stays in its cgroup: {error}"),
            Missing::MemoryLimits => f.write_str(
                "no memory limits: no memory controller may be used (run as root, or delegate it)",
            ),
            Missing::CpuLimits => {
                f.write_str("no cpu limits: no cpu controller may be used (run as root, or delegate it)")
            }
            Missing::OtherUsers => {
                f.write_str("no runAsUser or runAsGroup other than the agent's own: that needs root")
            }
            Missing::TerminationMessages => f.write_str(
                "no termination message files: a mount namespace for each container needs CAP_SYS_ADMIN \
                 (FallbackToLogsOnError works)",
            ),
        }
    }
}

impl Host {
    /// Looks, moves the agent and its helper into their cgroup leaf, or makes the agent the subreaper.
    pub fn set_up(helper: u32) -> (Host, Vec<Missing>) {
        let mut missing = Vec::new();
        let tree = match Tree::detect() {
            Ok(tree) => Some(tree),
            Err(why) => {
                missing.push(Missing::Cgroups(why));
                None
            }
        };
        if let Some(tree) = &tree {
            if let Err(error) = tree.enter_agent_leaf(&[helper]) {
                missing.push(Missing::AgentLeaf { error: error.to_string() });
            }
        } else if let Err(error) = session::become_subreaper() {
            missing.push(Missing::Subreaper { error: error.to_string() });
        }
        if !tree.as_ref().is_some_and(Tree::limits_memory) {
            missing.push(Missing::MemoryLimits);
        }
        if !tree.as_ref().is_some_and(Tree::limits_cpu) {
            missing.push(Missing::CpuLimits);
        }
        let host = Host { tree, is_root: host::is_root(), may_mount: host::is_root() && host::may_mount() };
        if !host.is_root {
            missing.push(Missing::OtherUsers);
        }
        if !host.may_mount {
            missing.push(Missing::TerminationMessages);
        }
        (host, missing)
    }

    /// The last thing a runtime does.
    pub fn leave(&self) {
        if let Some(tree) = &self.tree {
            tree.leave();
        }
    }
}
