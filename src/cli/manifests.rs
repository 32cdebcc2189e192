//! Loads manifests for the verbs that take them, and says what of them has no effect.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use probe_core::model::id::PodUid;
use probe_core::model::pod::PodSpec;
use probe_core::spec::{self, LoadOptions, NotHonoured};

use super::args::ManifestArgs;

/// The namespace of a manifest that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// The pods of these files. `warn` is told of every field that has no effect.
///
/// # Errors
/// [`spec::LoadErrors`]: everything that is wrong, one line each.
pub fn load(
    files: &[PathBuf],
    args: &ManifestArgs,
    warn: impl Fn(&NotHonoured),
) -> anyhow::Result<Vec<PodSpec>> {
    let mut new_uid = random_uid;
    let mut options = LoadOptions {
        strict: args.strict,
        default_initial_delay: args.default_initial_delay,
        min_probe_period: Duration::from_millis(args.min_probe_period_ms),
        new_uid: &mut new_uid,
    };
    let loaded = spec::load_files(files, &mut io::stdin().lock(), &mut options)?;
    loaded.not_honoured.iter().for_each(warn);
    Ok(loaded.pods)
}

/// The pods with the namespace that each goes to, given that of the command line.
///
/// # Errors
/// Manifest and command line disagree.
pub fn placed<'a>(pods: &'a [PodSpec], given: &'a str) -> anyhow::Result<Vec<(&'a PodSpec, &'a str)>> {
    let placed = pods.iter().map(|pod| match (&*pod.namespace, given) {
        (own, given) if own == given => Ok((pod, given)),
        (DEFAULT_NAMESPACE, given) => Ok((pod, given)),
        (own, DEFAULT_NAMESPACE) => Ok((pod, own)),
        (own, given) => Err(anyhow!(
            "the namespace from the provided object \"{own}\" does not match the namespace \"{given}\". You must pass '--namespace={own}' to perform this operation."
        )),
    });
    placed.collect()
}

/// Says on standard error that a field has no effect.
pub fn warn(field: &NotHonoured) {
    eprintln!("warning: {field}");
}

/// A random UUID, version 4 (RFC 9562, 5.4). Without random numbers nothing here can work, so it ends there.
pub fn random_uid() -> PodUid {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("no random numbers from the system: {error}"));
    let random = u128::from_be_bytes(bytes);
    PodUid(random & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62)
}
