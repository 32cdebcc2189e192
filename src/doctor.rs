//! What defib can use on this host, what not, why, and the cure. It looks at the same places as a start does, and
//! leaves nothing behind.

mod programs;

use probe_core::model::limits::DESCRIPTORS_WANTED;
use probe_core::ring::{Epoll, RingError, Uring, UringOptions};
use probe_core::sys::cgroup::Tree;
use probe_core::sys::clock;
use probe_core::sys::{host, pidfd};
use serde::Serialize;

/// Slots of the ring that is made to see whether one can be made: the fewest that are of use.
const TRIAL_SLOTS: u32 = 8;
const ENGINE: &str = "engine";
const IO_URING: &str = "io_uring";

/// One feature of the host.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub feature: &'static str,
    pub used: bool,
    /// `defib run` cannot do without it.
    pub required: bool,
    /// What it gives, or why it is not used.
    pub why: String,
    /// Empty when there is nothing to gain.
    pub cure: String,
}

impl Finding {
    fn used(feature: &'static str, why: impl Into<String>) -> Finding {
        Finding { feature, used: true, required: false, why: why.into(), cure: String::new() }
    }

    fn unused(feature: &'static str, why: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding { feature, used: false, required: false, why: why.into(), cure: cure.into() }
    }

    fn required(self) -> Finding {
        Finding { required: true, ..self }
    }
}

/// Looks at everything.
pub fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    rings(&mut findings);
    findings.push(exits());
    findings.extend(programs::examine());
    cgroups(&mut findings);
    findings.push(if host::is_root() {
        Finding::used("other-users", "runAsUser and runAsGroup of any user")
    } else {
        Finding::unused("other-users", "runAsUser is refused for any other user", "run defib as root")
    });
    findings.push(if host::is_root() && host::may_mount() {
        Finding::used("mount-namespaces", "terminationMessagePath of each container is a file of its own")
    } else {
        let why = "no termination message files; FallbackToLogsOnError works";
        Finding::unused("mount-namespaces", why, "run defib as root with CAP_SYS_ADMIN")
    });
    findings.push(capabilities());
    // As a start does. What cannot be raised is what is reported.
    let _stays = host::raise_descriptor_limit();
    findings.push(descriptors(host::descriptor_limit()));
    findings
}

/// Whether something that `defib run` cannot do without is missing.
pub fn is_missing(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.required && !finding.used)
}

fn rings(findings: &mut Vec<Finding>) {
    let ring = Uring::new(UringOptions::best(TRIAL_SLOTS), clock::now);
    let deferred = "deferred-completions";
    match ring {
        Ok(ring) => {
            findings.push(Finding::used(ENGINE, "io_uring carries network probes").required());
            let why = "probes: direct descriptors, linked operations, cancel by descriptor";
            findings.push(Finding::used(IO_URING, why));
            findings.push(if ring.is_deferred() {
                Finding::used(deferred, "completions run when the engine asks (DEFER_TASKRUN)")
            } else {
                let why = "completions interrupt the engine; more CPU for each probe";
                Finding::unused(deferred, why, "run kernel 6.1 or later")
            });
        }
        Err(error) => {
            findings.push(engine_without_io_uring(&error, Epoll::new(TRIAL_SLOTS, clock::now)));
            findings.push(Finding::unused(IO_URING, error.reason(), error.cure()));
            findings.push(Finding::unused(deferred, "there is no io_uring", "see io_uring"));
        }
    }
}

/// What a start without `--engine` makes of a refused io_uring.
fn engine_without_io_uring(error: &RingError, epoll: Result<Epoll, RingError>) -> Finding {
    match epoll {
        Ok(_) if error.has_fallback() => {
            let why = "epoll carries network probes: the same outcomes, more CPU for each";
            Finding { cure: "see io_uring".to_owned(), ..Finding::used(ENGINE, why).required() }
        }
        Ok(_) => Finding::unused(ENGINE, error.reason(), error.cure()).required(),
        Err(error) => Finding::unused(ENGINE, error.reason(), error.cure()).required(),
    }
}

fn exits() -> Finding {
    match pidfd::open(std::process::id()) {
        Ok(_) => Finding::used("pidfd", "ends of containers are told by the kernel").required(),
        Err(error) => {
            let cure = "run kernel 5.10 or later, and allow pidfd_open in the seccomp profile";
            Finding::unused("pidfd", error.to_string(), cure).required()
        }
    }
}

fn cgroups(findings: &mut Vec<Finding>) {
    let (memory, cpu, oom) = ("memory-limits", "cpu-limits", "oom-counters");
    let tree = match Tree::detect() {
        Ok(tree) => tree,
        Err(error) => {
            findings.push(Finding::unused("cgroups", error.to_string(), error.cure()));
            for feature in [memory, cpu, oom] {
                findings.push(Finding::unused(feature, "there are no cgroups", "see cgroups"));
            }
            return;
        }
    };
    let mode = if tree.is_hybrid() { "hybrid: v1 controllers beside a v2 tree" } else { "pure v2" };
    findings.push(Finding::used("cgroups", mode));
    let cure = "delegate the controller (Delegate=yes of the unit), or run as root";
    for (feature, works, what) in [
        (memory, tree.limits_memory(), "resources.limits.memory"),
        (cpu, tree.limits_cpu(), "resources.limits.cpu"),
        (oom, tree.limits_memory(), "kills for memory in containers with a memory limit"),
    ] {
        findings.push(if works {
            Finding::used(feature, what)
        } else {
            Finding::unused(feature, format!("not applied: {what}"), cure)
        });
    }
    tree.remove_if_empty();
}

fn capabilities() -> Finding {
    let missing = host::missing_capabilities();
    if missing.is_empty() {
        Finding::used("capabilities", "all that defib can use")
    } else {
        let why = format!("missing {}", missing.join(", "));
        Finding::unused("capabilities", why, "run defib as root, or with these")
    }
}

fn descriptors(limit: u64) -> Finding {
    let why = format!("RLIMIT_NOFILE is {limit}");
    if limit >= DESCRIPTORS_WANTED {
        Finding::used("descriptors", why)
    } else {
        let cure = format!("raise it to {DESCRIPTORS_WANTED} (ulimit -n, LimitNOFILE= of the unit)");
        Finding::unused("descriptors", format!("{why}: fewer probes and containers at once"), cure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_is_missed() {
        let optional = Finding::unused("a", "b", "c");
        assert!(!is_missing(&[optional.clone(), Finding::used("d", "e").required()]));
        assert!(is_missing(&[optional.clone(), optional.required()]));
    }

    #[test]
    fn a_low_limit_has_a_cure() {
        assert!(descriptors(1 << 20).used);
        let low = descriptors(1_024);
        assert!(!low.used && low.cure.contains("ulimit -n"), "{low:?}");
    }
}
