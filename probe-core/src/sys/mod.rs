//! Every system call that is not io_uring: spawn, pidfd, cgroups, procfs, clocks.
