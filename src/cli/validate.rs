//! `defib validate`: checks manifests and changes nothing.

use super::args::ValidateArgs;
use super::{exit, manifests};

/// Prints a line for each valid pod.
///
/// # Errors
/// [`probe_core::spec::LoadErrors`].
pub fn run(args: &ValidateArgs) -> anyhow::Result<u8> {
    for pod in manifests::load(&args.files, &args.manifest, manifests::warn)? {
        println!("pod/{} valid", pod.name);
    }
    Ok(exit::OK)
}
