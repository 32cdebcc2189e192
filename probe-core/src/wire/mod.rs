//! Protocol bytes without I/O.

pub mod http1;
