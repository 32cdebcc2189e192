//! What the host says about itself and about this process.

#![expect(unsafe_code, reason = "a door to the C library: malloc_trim")]

use std::fs;

/// Bit of the right to mount (capabilities(7)).
const CAP_SYS_ADMIN: u32 = 21;

/// What defib can use: to read tracefs, for names of victims of the OOM killer; to stop containers of other users; for
/// runAsGroup and runAsUser; for mount namespaces; for the eBPF sensor.
const CAPABILITIES: [(u32, &str); 7] = [
    (2, "CAP_DAC_READ_SEARCH"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// The node name of uname(2): the host name without DNS.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether this process may act as another user. Root in a user namespace may still be refused some.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process may make mount namespaces and mount in them.
pub fn may_mount() -> bool {
    effective_capabilities().is_some_and(|set| set & (1 << CAP_SYS_ADMIN) != 0)
}

/// Whether SIGHUP is ignored, as nohup(1) leaves it to its program.
pub fn ignores_hangup() -> bool {
    status_mask("SigIgn:").is_some_and(|mask| mask & (1 << (libc::SIGHUP - 1)) != 0)
}

/// Raises RLIMIT_NOFILE as far as this process may: probes, containers and clients all need descriptors.
pub fn raise_descriptor_limit() -> std::io::Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?)
}

/// RLIMIT_NOFILE of this process: open files at most.
pub fn descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX)
}

/// Gives free memory of the heap back to the system, after work that needed much of it for a moment. The allocator
/// would keep it. Does nothing where the C library is not glibc.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: needed because only the allocator can do it. It takes its own locks, and changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The primary group of a user in `/etc/passwd`.
pub fn primary_group(user: u32) -> Option<u32> {
    group_in(&fs::read_to_string("/etc/passwd").ok()?, user)
}

fn group_in(passwd: &str, user: u32) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found: u32 = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (found == user).then_some(group)
    })
}

/// Capabilities that defib can use and does not have.
pub fn missing_capabilities() -> Vec<&'static str> {
    let set = effective_capabilities().unwrap_or_default();
    // Before kernel 5.8 CAP_SYS_ADMIN held what CAP_PERFMON and CAP_BPF hold.
    let has = |bit: u32| set & (1 << bit) != 0 || (bit > CAP_SYS_ADMIN && set & (1 << CAP_SYS_ADMIN) != 0);
    CAPABILITIES.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name).collect()
}

fn effective_capabilities() -> Option<u64> {
    status_mask("CapEff:")
}

/// A hexadecimal field of `/proc/self/status`.
fn status_mask(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_users() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nbroken:x:y:z\napp:x:1000:1007::/:\n";
        for (user, expected) in [(0, Some(0)), (1000, Some(1007)), (1001, None)] {
            assert_eq!(group_in(passwd, user), expected, "{user}");
        }
    }

    #[test]
    fn a_host_has_a_name() {
        assert!(!name().is_empty());
        assert!(effective_capabilities().is_some());
    }
}
