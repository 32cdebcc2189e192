//! Seeing tracefs, which tracepoints are looked up in, on a host where nobody has mounted it.

#![expect(unsafe_code, reason = "a door to the kernel: unshare(2) of the mount namespace")]

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

use super::host;

const MOUNT_POINT: &str = "/sys/kernel/tracing";
/// Where older kernels have it.
const IN_DEBUGFS: &str = "/sys/kernel/debug/tracing";

/// Runs `work` where tracefs can be seen, if that can be had: where it is not mounted, on a thread of its own with a
/// mount namespace of its own, so that the host's mounts stay as they are. Descriptors that `work` opens go on to work
/// afterwards.
pub fn with_tracefs<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if is_mounted() || !host::may_mount() {
        return work();
    }
    let on_thread = || {
        if let Err(error) = mount_here() {
            tracing::warn!(%error, "tracefs is not mounted, and cannot be");
        }
        work()
    };
    std::thread::scope(|scope| match scope.spawn(on_thread).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Without it the folder is there and empty.
fn is_mounted() -> bool {
    let has_events = |dir| Path::new(dir).join("events").exists();
    has_events(MOUNT_POINT) || has_events(IN_DEBUGFS)
}

/// For the calling thread only.
fn mount_here() -> io::Result<()> {
    // SAFETY: unshare is unsafe for the sake of the table of descriptors, which other threads could come to share
    // no longer. A namespace of mounts is not among those that memory safety rests on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    // What is mounted here must not appear elsewhere.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("tracefs", MOUNT_POINT, "tracefs", flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mounts_stay_as_they_are() {
        let before = is_mounted();
        let inside = with_tracefs(is_mounted);
        assert!(inside || !host::may_mount(), "it can be seen where mounting is allowed");
        assert_eq!(is_mounted(), before);
    }
}
