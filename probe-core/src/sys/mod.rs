//! Every system call that is not io_uring: clocks, spawning, pidfds, cgroups, /proc, locks.

pub mod clock;
pub mod wake;
