//! The runtime on real processes. As root the cgroup cases must run: a host without them fails the tests.

mod alone;
mod ends;
mod execs;
mod starts;
mod world;
