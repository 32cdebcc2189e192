//! Protocol bytes without I/O.

pub mod headers;
pub mod http1;
pub mod url;
