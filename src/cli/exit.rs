//! Exit codes (design section 5).

/// Done.
pub const OK: u8 = 0;
/// It ran, and failed.
pub const FAILED: u8 = 1;
// 2, a usage error, is clap's own.
/// Invalid input: a manifest, a file.
pub const INVALID_INPUT: u8 = 3;
/// A kernel feature or a privilege is missing.
pub const MISSING_FEATURE: u8 = 5;
/// No agent answers on the socket (EX_UNAVAILABLE of sysexits.h).
pub const UNREACHABLE: u8 = 69;
