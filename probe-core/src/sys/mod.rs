//! Every system call that is not io_uring: clocks, spawning, pidfds, cgroups, /proc, locks.

pub mod cgroup;
pub mod clock;
pub mod host;
pub mod lock;
pub mod pidfd;
pub mod procfs;
pub mod session;
pub mod spawn;
pub mod tracefs;
pub mod wake;
