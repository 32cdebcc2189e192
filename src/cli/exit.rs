//! Exit codes (design section 5).

use probe_core::engine::EngineError;
use probe_core::ring::RingError;
use probe_core::spec::LoadErrors;
use probe_ebpf::LoadError;

use super::bench::InvalidInput;
use super::resource::UsageError;
use crate::bench::drive::Interrupted;
use crate::client::ClientError;

/// Done.
pub const OK: u8 = 0;
/// It ran, and failed.
pub const FAILED: u8 = 1;
/// What was typed makes no sense: clap's own code.
pub const USAGE: u8 = 2;
/// Invalid input: a manifest, a file.
pub const INVALID_INPUT: u8 = 3;
/// A kernel feature or a privilege is missing.
pub const MISSING_FEATURE: u8 = 5;
/// No agent answers on the socket (EX_UNAVAILABLE of sysexits.h).
pub const UNREACHABLE: u8 = 69;

/// Ctrl-C ended it early, as shells count it: 128 and SIGINT.
pub const INTERRUPTED: u8 = 130;

/// The code for an error that ended a verb.
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<LoadErrors>() || cause.is::<InvalidInput>() {
            return INVALID_INPUT;
        }
        if cause.is::<Interrupted>() {
            return INTERRUPTED;
        }
        if cause.is::<UsageError>() {
            return USAGE;
        }
        if cause.downcast_ref().is_some_and(ClientError::is_unreachable) {
            return UNREACHABLE;
        }
        if cause.is::<LoadError>()
            || cause.is::<RingError>()
            || matches!(cause.downcast_ref(), Some(EngineError::Ring(_)))
        {
            return MISSING_FEATURE;
        }
    }
    FAILED
}
