//! The host side of the eBPF sensor: what has to be known about the running kernel before a program is loaded.

pub mod btf;
pub mod format;
