//! What the contestants of `cargo xtask bench peers` share: the load that they are given, the signals that
//! begin and end the measured window, and the report at the end.
//!
//! A contestant prints `ready` when its whole load is scheduled. On standard input it gets `measure`, from
//! where on it counts, and `stop`, upon which it prints one [`Report`] as JSON and ends.

mod control;
pub mod heap;
mod load;
mod report;
mod tasks;

pub use control::{Control, Phase};
pub use load::{Kind, Load};
pub use report::{EventLine, Percentiles, RESPONSES_MAX, Report, Response, Tally};
pub use tasks::{Answer, Verdict, run_all};
