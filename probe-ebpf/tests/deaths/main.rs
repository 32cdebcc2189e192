//! The programs in the kernel against wait(2), the referee: processes of registered containers die in every way, and
//! each death is told once, with the status that wait(2) gives. For both programs at `sched_process_exit`.
//!
//! Root only. Without it each test says so and passes: the programs cannot be loaded then.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics with its line")]

mod fixture;
mod keys;
mod loss;
mod told;
mod ways;
