//! `defib run`: the agent in the foreground, like `docker compose up`.

use std::path::PathBuf;
use std::time::Duration;

use probe_core::decide::backoff::BackoffParams;
use probe_core::model::limits::DESCRIPTORS_WANTED;
use probe_core::sys::host;
use probe_core::sys::spawn::Spawner;
use probe_ebpf::LoadOptions;

use super::args::{LogFormat, RunArgs};
use super::events::Printer;
use super::{exit, manifests};
use crate::agent::{self, Config, Ended};
use crate::{logging, paths};

/// Engine threads are started one for so many cores.
const CORES_PER_ENGINE: usize = 2;
const ENGINES_MAX: u16 = 64;

/// Runs the pods of the given manifests until all of them are finished or a signal asks to stop.
///
/// The order matters: the spawner is forked while this process has one thread and holds nothing, and the
/// manifests are checked before anything of an earlier run is touched.
///
/// # Errors
/// Bad manifests, or anything that keeps the agent from starting.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let spawner = Spawner::fork_before_threads()?;
    logging::init(args.log_format);
    // After the fork: containers start with the limit that the agent was started with.
    if let Err(error) = host::raise_descriptor_limit() {
        tracing::warn!(%error, "RLIMIT_NOFILE stays as it is");
    }
    let descriptors = host::descriptor_limit();
    if descriptors < DESCRIPTORS_WANTED {
        tracing::warn!(
            "RLIMIT_NOFILE is {descriptors}: fewer probes and containers at once; raise it to \
             {DESCRIPTORS_WANTED} (ulimit -n, LimitNOFILE= of the unit)"
        );
    }
    let files: Vec<PathBuf> = args.files.iter().chain(&args.filenames).cloned().collect();
    let pods = manifests::load(&files, &args.manifest, |field| match args.log_format {
        LogFormat::Text => manifests::warn(field),
        LogFormat::Json => tracing::warn!("{field}"),
    })?;
    let config = Config {
        state_dir: paths::state_dir(args.state_dir.as_deref())?,
        socket: paths::socket_to_serve(args.socket.as_deref())?,
        node_name: args.node_name.clone().unwrap_or_else(host::name),
        engine_shards: args.engine_shards.unwrap_or_else(default_engine_shards),
        executor_shards: args.executor_shards,
        backoff: backoff(args),
        engine: args.engine,
        sensor: args.sensor,
        sensor_options: LoadOptions { drop_percent: args.sensor_drop_percent, ..LoadOptions::default() },
        default_initial_delay: args.manifest.default_initial_delay,
        min_probe_period: Duration::from_millis(args.manifest.min_probe_period_ms),
        strict: args.manifest.strict,
    };
    let (printer, printing) = Printer::start()?;
    let ended = agent::run(&config, spawner, pods, printer)?;
    if printing.join().is_err() {
        tracing::error!("the printing thread panicked; see its message above");
    }
    Ok(match ended {
        Ended::AllSucceeded | Ended::Stopped => exit::OK,
        Ended::SomeFailed => exit::FAILED,
    })
}

/// Kubelet's gate gives other waits, its configuration another longest one.
fn backoff(args: &RunArgs) -> BackoffParams {
    let params = if args.reduced_restart_backoff { BackoffParams::REDUCED } else { BackoffParams::STANDARD };
    args.max_container_restart_period.map_or(params, |max| params.with_max(max))
}

fn default_engine_shards() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores / CORES_PER_ENGINE).unwrap_or(ENGINES_MAX).clamp(1, ENGINES_MAX)
}
