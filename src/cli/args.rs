//! Definitions of every verb and flag. Behaviour is in the file of the verb.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use probe_core::model::limits::{
    BENCH_DURATION_MAX, BENCH_PERIOD_MAX, BENCH_PERIOD_MIN, BENCH_RATE_MAX_PER_S, BENCH_SHARDS_MAX,
    BENCH_TARGETS_MAX, BENCH_TIMEOUT_MAX, PROBE_PERIOD_MIN_DEFAULT,
};

/// Runs the containers of Pod YAML, probes them over io_uring, restarts what is dead.
#[derive(Parser, Debug)]
#[command(name = "defib", version, disable_help_subcommand = true, infer_subcommands = false)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Start the pods of FILES and keep them alive, in the foreground
    ///
    /// It ends when the last pod has ended or was deleted: with exit code 0, or 1 if one failed; standard error says
    /// which and why. A signal stops all pods, and ends it with 0. When it ends, status, events and logs of its pods
    /// are gone.
    Run(RunArgs),
    /// Check manifests and change nothing
    Validate(ValidateArgs),
    /// Create pods on the running agent, or change them
    Apply(ApplyArgs),
    /// Show pods or events
    Get(GetArgs),
    /// Show one pod (or all) in detail
    Describe(DescribeArgs),
    /// Print the log of a container
    Logs(LogsArgs),
    /// Stop and remove what is named
    Delete(DeleteArgs),
    /// Run one probe now and print when each phase ended
    Probe(ProbeArgs),
    /// Measure response times at a rate, and how late probes are, on this machine
    Bench(BenchArgs),
    /// Say which parts of the kernel defib uses here, which not, why, and the cure
    Doctor(DoctorArgs),
    /// Small servers that misbehave on purpose, for examples and tests
    Demo(DemoArgs),
    /// Print the version
    Version,
}

#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Form of the output
    #[arg(short, long, value_enum, value_name = "FORM")]
    pub output: Option<DoctorForm>,
}

#[derive(ValueEnum, Copy, Clone, PartialEq, Eq, Debug)]
pub enum DoctorForm {
    Json,
}

/// Which agent to talk to.
#[derive(Args, Debug, Clone)]
pub struct ClientArgs {
    /// Unix socket of the agent [default: /run/defib/defib.sock, or the XDG runtime directory]
    #[arg(long, value_name = "PATH", env = "DEFIB_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

#[derive(Args, Debug, Clone)]
pub struct ManifestArgs {
    /// Refuse fields that defib does not honour, instead of naming them
    #[arg(long)]
    pub strict: bool,
    /// initialDelaySeconds of probes that do not give one (Kubernetes: 0)
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub default_initial_delay: Duration,
    /// Smallest period that the annotation period-ms of a probe may ask of this node, in milliseconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=60_000), default_value_t = MIN_PROBE_PERIOD_MS)]
    pub min_probe_period_ms: u64,
}

const MIN_PROBE_PERIOD_MS: u64 = PROBE_PERIOD_MIN_DEFAULT.as_millis() as u64;

#[derive(Args, Debug)]
pub struct RunArgs {
    /// Pod manifests: YAML or JSON files, directories, or - for standard input
    #[arg(required_unless_present = "filenames", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The same as an option, as the other verbs have it (may be given several times)
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub filenames: Vec<PathBuf>,
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// Directory of durable state [default: /var/lib/defib, or the XDG state directory]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Unix socket to serve the API on [default: /run/defib/defib.sock, or the XDG runtime directory]
    #[arg(long, value_name = "PATH", env = "DEFIB_SOCKET")]
    pub socket: Option<PathBuf>,
    /// What runs the containers
    #[arg(long, value_enum, default_value_t = RuntimeKind::Process)]
    pub runtime: RuntimeKind,
    /// What carries network probes
    #[arg(long, value_enum, default_value_t = EngineKind::Auto)]
    pub engine: EngineKind,
    /// How ends of processes are seen
    #[arg(long, value_enum, default_value_t = SensorKind::Auto)]
    pub sensor: SensorKind,
    /// Of a hundred records of the eBPF sensor so many are lost: to test what follows
    #[arg(long, hide = true, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100), default_value_t = 0)]
    pub sensor_drop_percent: u32,
    /// Name of this node in the API [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Threads that probe, each with a ring of its own [default: one per two cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub engine_shards: Option<u16>,
    /// Threads that decide; pods are hashed onto them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), default_value_t = 1)]
    pub executor_shards: u16,
    /// Longest wait before a crashed container is started again, 1s to 300s [default: 300s, or 60s with
    /// --reduced-restart-backoff]
    #[arg(long, value_name = "DURATION", value_parser = restart_period)]
    pub max_container_restart_period: Option<Duration>,
    /// Begin with a wait of 1s instead of 10s, doubling up to 60s (kubelet's gate ReduceDefaultCrashLoopBackOffDecay)
    #[arg(long)]
    pub reduced_restart_backoff: bool,
    /// Form of the agent's own log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Local processes
    Process,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// io_uring where this host allows it, else epoll
    Auto,
    /// io_uring, or no start
    Uring,
    /// epoll: the same outcomes, at more CPU for each probe
    Epoll,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SensorKind {
    /// eBPF where this host allows it, else pidfds
    Auto,
    /// eBPF, or no start
    Ebpf,
    /// Pidfds and the counters of memory cgroups
    Pidfd,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Args, Debug)]
pub struct ValidateArgs {
    /// Manifest: a YAML or JSON file, a directory, or - (may be given several times)
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub manifest: ManifestArgs,
}

#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// Manifest: a YAML or JSON file, a directory, or - (may be given several times)
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub manifest: ManifestArgs,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputForm {
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(Args, Debug)]
pub struct GetArgs {
    /// pods or events, then the names of those wanted (none: all); or pod/NAME
    #[arg(required_unless_present = "raw", value_name = "TYPE [NAME]")]
    pub words: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_enum)]
    pub output: Option<OutputForm>,
    /// Only what has these labels: key=value, key!=value, key, !key, key in (a,b), key notin (a,b); joined by commas
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Of events, only those of this pod: pod/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    pub for_object: Option<String>,
    /// After listing, go on with changes
    #[arg(short, long)]
    pub watch: bool,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Leave the column heads out
    #[arg(long)]
    pub no_headers: bool,
    /// Whatever the agent has under this path, as it comes: /metrics/probes
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["words", "output", "selector", "for_object", "watch", "all_namespaces", "no_headers"]
    )]
    pub raw: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// pod, then the names of those wanted (none: all); or pod/NAME
    #[arg(required = true, value_name = "TYPE [NAME]")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct LogsArgs {
    /// NAME or pod/NAME
    pub pod: String,
    /// Which container; may be left out when the pod has one
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    pub container_name: Option<String>,
    /// The same as an option
    #[arg(short, long)]
    pub container: Option<String>,
    /// The instance before the current one
    #[arg(short, long)]
    pub previous: bool,
    /// Go on with what is written from now
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many lines from the end; -1 for all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub tail: i64,
    /// Refused by the process runtime: its logs carry no times
    #[arg(long)]
    pub timestamps: bool,
    /// Refused by the process runtime: its logs carry no times
    #[arg(long)]
    pub since: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// pod and the names of those to delete; or pod/NAME
    #[arg(value_name = "TYPE NAME")]
    pub words: Vec<String>,
    /// Delete the pods of a manifest: a YAML or JSON file, a directory, or - (may be given several times)
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// All pods of the namespace
    #[arg(long)]
    pub all: bool,
    /// All pods of the namespace with these labels, as for `get`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Seconds given to the containers instead of the pod's own grace period; 0 counts as 1 without --force
    #[arg(long, value_name = "SECONDS")]
    pub grace_period: Option<u32>,
    /// The same as --grace-period=1
    #[arg(long)]
    pub now: bool,
    /// Kill at once, without a grace period
    #[arg(long)]
    pub force: bool,
    /// Return when the pods are gone (=false: at once)
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub wait: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// A pod name, or an address: http://HOST:PORT/PATH, https://HOST:PORT/PATH, tcp://HOST:PORT, grpc://HOST:PORT/SERVICE
    pub target: String,
    /// Container of the pod; may be left out when the pod has one
    pub container: Option<String>,
    /// Which of its probes [default: liveness]
    #[arg(value_enum)]
    pub kind: Option<ProbeWord>,
    /// Timeout when TARGET is an address; longer than 0s [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    pub timeout: Option<Duration>,
    /// What carries the probe when TARGET is an address [default: auto]
    #[arg(long, value_enum)]
    pub engine: Option<EngineKind>,
    /// Form of the output
    #[arg(short, long, value_enum)]
    pub output: Option<ProbeForm>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeForm {
    Json,
    Yaml,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeWord {
    Liveness,
    Readiness,
    Startup,
}

#[derive(Args, Debug)]
pub struct BenchArgs {
    /// What is probed: http://HOST:PORT/PATH, https://HOST:PORT/PATH or tcp://HOST:PORT [default: the built-in server]
    #[arg(value_name = "URL")]
    pub target: Option<String>,
    /// Probe a small server of defib's own on the loopback, on a core of its own where there are two
    #[arg(long, conflicts_with = "target")]
    pub built_in: bool,
    /// Probes, each with a ticker of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_TARGETS_MAX)), default_value_t = 1_000)]
    pub targets: u32,
    /// Runs a second of all targets together, such as 1000 or 1000/s [default: 1000/s]
    #[arg(long, value_name = "R/s", value_parser = rate, conflicts_with = "period")]
    pub rate: Option<u32>,
    /// Period of each target, in place of --rate; 1ms to 1h
    #[arg(long, value_name = "DURATION", value_parser = bench_period)]
    pub period: Option<Duration>,
    /// How long; up to 24h
    #[arg(long, value_name = "DURATION", value_parser = bench_duration, default_value = "10s")]
    pub duration: Duration,
    /// Timeout of a run; up to 10m
    #[arg(long, value_name = "DURATION", value_parser = bench_timeout, default_value = "1s")]
    pub timeout: Duration,
    /// What carries the probes
    #[arg(long, value_enum, default_value_t = EngineKind::Auto)]
    pub engine: EngineKind,
    /// Threads that probe, each with an io_uring of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(BENCH_SHARDS_MAX)), default_value_t = 1)]
    pub shards: u16,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = BenchForm::Table)]
    pub output: BenchForm,
    /// Write the response times as a percentile log of HdrHistogram, in milliseconds
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Draw response times and lateness by percentile
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchForm {
    Table,
    Json,
}

#[derive(Args, Debug)]
pub struct DemoArgs {
    #[command(subcommand)]
    pub demo: Demo,
}

#[derive(Subcommand, Debug)]
pub enum Demo {
    /// An HTTP server that answers 200 for a while, then serves nobody and lives on
    Wedge {
        /// Port on 127.0.0.1
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// How long it is well
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "8s")]
        healthy_for: Duration,
        /// What it does after that
        #[arg(long, value_enum, default_value_t = Wedged::Hang)]
        then: Wedged,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wedged {
    /// Accepts connections and never answers
    Hang,
    /// Closes its port
    Refuse,
}

/// `500ms`, `10s`, `5m`, `1h`, or a sum such as `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let value: u64 = number.parse().map_err(|_| no_duration(text))?;
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, next) = after.split_at(letters);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(no_duration(text)),
        };
        let ms = value.checked_mul(unit_ms).ok_or_else(|| format!("{text:?} is too long"))?;
        total =
            total.checked_add(Duration::from_millis(ms)).ok_or_else(|| format!("{text:?} is too long"))?;
        rest = next;
    }
    if text.is_empty() { Err("a duration such as 10s is needed".into()) } else { Ok(total) }
}

fn no_duration(text: &str) -> String {
    format!(
        "{text:?} is no duration: give whole numbers, each with a unit of ms, s, m or h: 1500ms, 10s, 1m30s"
    )
}

/// A time in which nothing can be done would fail every probe.
fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err(format!("{text} is too short: give a time longer than 0s, such as 500ms or 1s"))
        }
        timeout => Ok(timeout),
    }
}

/// `1000` or `1000/s`.
fn rate(text: &str) -> Result<u32, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse() {
        Ok(rate) if (1..=BENCH_RATE_MAX_PER_S).contains(&rate) => Ok(rate),
        Ok(_) => Err(format!("{text} is outside 1/s to {BENCH_RATE_MAX_PER_S}/s")),
        Err(_) => Err(format!("{text:?} is not a rate such as 1000/s")),
    }
}

fn bench_period(text: &str) -> Result<Duration, String> {
    within(text, BENCH_PERIOD_MIN, BENCH_PERIOD_MAX)
}

fn bench_duration(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), BENCH_DURATION_MAX)
}

fn bench_timeout(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), BENCH_TIMEOUT_MAX)
}

fn within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    match duration(text)? {
        given if (min..=max).contains(&given) => Ok(given),
        _ => Err(format!("{text} is outside {min:?} to {max:?}")),
    }
}

/// The range of kubelet's crashLoopBackOff.maxContainerRestartPeriod (kubelet-semantics 14).
fn restart_period(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(300)).contains(&period) {
        Ok(period)
    } else {
        Err(format!("{text} is outside 1s to 300s"))
    }
}
