//! The only io_uring code, and its in-memory twin for simulation.
