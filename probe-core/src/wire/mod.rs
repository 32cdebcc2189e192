//! Protocol bytes without I/O.
