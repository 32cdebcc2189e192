//! Loading and attaching: offsets from the running kernel, one program at each tracepoint, and a clear word about what
//! is missing.

#![expect(unsafe_code, reason = "plain data that goes to the kernel as bytes: aya::Pod")]

use std::{fmt, fs, io};

use aya::maps::{HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError, TracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod};
use thiserror::Error;

use crate::OBJECT;
use crate::abi::{self, ABSENT, Config, Counts, Init, Mark};
use crate::btf::{Btf, BtfError};
use crate::format::{Format, FormatError};
use crate::reader::Reader;
use crate::registry::Registry;

/// Inode of the first pid namespace (`PROC_PID_INIT_INO` of `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Of the first time namespace (`PROC_TIME_INIT_INO`). Kernels before 5.6 have none.
const INITIAL_TIME_NAMESPACE: &str = "time:[4026531834]";
/// Lines of the verifier's log that an error shows: the last ones say what was refused.
const VERIFIER_LINES: usize = 6;

// SAFETY: repr(C), without padding (asserted in abi.rs), and every bit pattern is valid.
unsafe impl Pod for Config {}
// SAFETY: as above.
unsafe impl Pod for Counts {}
// SAFETY: as above.
unsafe impl Pod for Init {}
// SAFETY: as above.
unsafe impl Pod for Mark {}

/// How to load; the default is what production uses.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct LoadOptions {
    pub tracepoint: Tracepoint,
    /// Fault injection: of a hundred records so many are lost. 0 to 100.
    pub drop_percent: u32,
}

/// Which program tells that a process has ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Tracepoint {
    /// The one that fits this kernel.
    #[default]
    Best,
    /// The one for kernels before 6.16, which runs on later ones too.
    Counted,
}

/// Why the programs do not run here. Shown with the cure.
#[derive(Debug)]
pub enum LoadError {
    Btf(BtfError),
    /// The kernel's BTF has no tracepoint `sched_process_exit`.
    NoTracepoint,
    /// It does not show `signal_struct.live`, which kernels before 6.16 need.
    NoLastThread,
    /// Pids are those of a namespace, not the kernel's.
    PidNamespace,
    /// Start times are those of a namespace, not the kernel's.
    TimeNamespace,
    NotPermitted,
    /// The kernel refused this program.
    Program {
        program: &'static str,
        reason: String,
    },
    /// Our own object cannot be used.
    Object(String),
}
impl LoadError {
    /// What to do about it.
    pub fn cure(&self) -> &'static str {
        match self {
            LoadError::Btf(_) | LoadError::NoTracepoint => {
                "run kernel 5.8 or later, built with CONFIG_DEBUG_INFO_BTF"
            }
            LoadError::NoLastThread => "run kernel 6.16 or later",
            LoadError::PidNamespace => "start defib in the host's pid namespace (hostPID: true, --pid=host)",
            LoadError::TimeNamespace => "start defib in the host\'s time namespace",
            LoadError::NotPermitted => {
                "run as root, or with CAP_BPF and CAP_PERFMON (and CAP_SYS_RESOURCE before kernel 5.11)"
            }
            LoadError::Program { .. } | LoadError::Object(_) => "report this with the kernel's version",
        }
    }

    /// What is wrong, without the cure.
    pub fn reason(&self) -> String {
        match self {
            LoadError::Btf(error) => error.to_string(),
            LoadError::NoTracepoint => "the kernel's BTF has no tracepoint sched_process_exit".to_owned(),
            LoadError::NoLastThread => {
                "the kernel's BTF does not show signal_struct.live, so nobody can say which \
                                        thread of a process is the last"
                    .to_owned()
            }
            LoadError::PidNamespace => {
                "defib runs in a pid namespace of its own, where pids are not the kernel's".to_owned()
            }
            LoadError::TimeNamespace => {
                "defib runs in a time namespace of its own, where start times are not the kernel's".to_owned()
            }
            LoadError::NotPermitted => "loading eBPF programs is not permitted".to_owned(),
            LoadError::Program { program, reason } => format!("program {program} was refused: {reason}"),
            LoadError::Object(reason) => format!("the eBPF object cannot be used: {reason}"),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.cure())
    }
}

impl std::error::Error for LoadError {}

/// Something that the programs do without on this kernel, and what follows.
#[derive(Error, Debug)]
pub enum Lack {
    #[error("{struct_name}.{member} is not in the kernel's BTF: {effect}")]
    Member { struct_name: &'static str, member: &'static str, effect: &'static str },
    #[error(
        "tracepoint oom/mark_victim cannot be used: {reason}: victims of the OOM killer are counted, not named"
    )]
    MarkVictim { reason: String, cure: &'static str },
    #[error("tracepoint oom/mark_victim does not tell the memory of a victim")]
    Memory,
}

impl Lack {
    /// What to do about it.
    pub fn cure(&self) -> &'static str {
        match self {
            Lack::Member { .. } => "run a later kernel, built with CONFIG_DEBUG_INFO_BTF",
            Lack::MarkVictim { cure, .. } => cure,
            Lack::Memory => "run kernel 6.9 or later",
        }
    }
}

/// The programs run.
pub struct Loaded {
    pub registry: Registry,
    pub reader: Reader,
    pub lacks: Vec<Lack>,
    /// The program at `sched_process_exit`: [`abi::PROCESS_EXIT`] or [`abi::PROCESS_EXIT_COUNTED`].
    pub exit_program: &'static str,
}

/// What a program has cost, by the kernel's own count (`kernel.bpf_stats_enabled`).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct ProgramCost {
    pub runs: u64,
    pub time_ns: u64,
}

/// Loads the programs and attaches them. Dropping what comes back detaches them.
///
/// # Errors
/// [`LoadError`]; nothing stays loaded.
pub fn load(options: LoadOptions) -> Result<Loaded, LoadError> {
    if is_elsewhere("pid", INITIAL_PID_NAMESPACE) {
        return Err(LoadError::PidNamespace);
    }
    if is_elsewhere("time", INITIAL_TIME_NAMESPACE) {
        return Err(LoadError::TimeNamespace);
    }
    let btf = Btf::of_kernel().map_err(LoadError::Btf)?;
    let tells_last = match btf.tracepoint_arguments("sched_process_exit") {
        Some(arguments) => arguments >= 2,
        None => return Err(LoadError::NoTracepoint),
    };
    let mut lacks = Vec::new();
    let mut config = task_offsets(&btf, &mut lacks);
    config.drop_percent = options.drop_percent;
    let exit_program = match options.tracepoint {
        Tracepoint::Best if tells_last => abi::PROCESS_EXIT,
        _ if config.signal_live == ABSENT || config.task_signal == ABSENT => {
            return Err(LoadError::NoLastThread);
        }
        _ => abi::PROCESS_EXIT_COUNTED,
    };
    let mark_format = Format::of_tracepoint("oom", "mark_victim");
    mark_offsets(mark_format.as_ref().ok(), &mut config, &mut lacks);
    drop(btf);

    let kernel_btf = aya::Btf::from_sys_fs().map_err(|error| LoadError::Object(error.to_string()))?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&kernel_btf)).override_global(abi::CONFIG, &config, true);
    let mut ebpf = loader.load(OBJECT).map_err(refused_object)?;
    attach_exit(&mut ebpf, exit_program, &kernel_btf)?;
    let lack = |error: FormatError| Lack::MarkVictim { reason: error.to_string(), cure: error.cure() };
    lacks.extend(mark_format.map_err(lack).and_then(|_| attach_mark(&mut ebpf)).err());
    let registry = Registry::new(hash(&mut ebpf, abi::CONTAINERS)?, hash(&mut ebpf, abi::INITS)?);
    let records = RingBuf::try_from(take(&mut ebpf, abi::RECORDS)?).map_err(object)?;
    let counts = PerCpuArray::try_from(take(&mut ebpf, abi::COUNTS)?).map_err(object)?;
    let marks = hash(&mut ebpf, abi::MARKS)?;
    let reader = Reader::new(records, counts, marks, ebpf);
    Ok(Loaded { registry, reader, lacks, exit_program })
}

/// Whether we are in another namespace than the kernel's first. Where the link cannot be read there is no such namespace,
/// or no /proc, and then nothing else works.
fn is_elsewhere(namespace: &str, initial: &str) -> bool {
    fs::read_link(format!("/proc/self/ns/{namespace}")).is_ok_and(|link| link.as_os_str() != initial)
}

/// Offsets in `task_struct` and `signal_struct`; what is missing goes to `lacks`.
fn task_offsets(btf: &Btf, lacks: &mut Vec<Lack>) -> Config {
    const NO_STATUS: &str = "the exit status is known only when the process is reaped";
    const NO_START: &str = "a main process is known by its pid alone";
    let mut find = |struct_name, member, effect| {
        btf.member_offset(struct_name, member).unwrap_or_else(|| {
            lacks.push(Lack::Member { struct_name, member, effect });
            ABSENT
        })
    };
    Config {
        task_start_boottime: find("task_struct", "start_boottime", NO_START),
        task_signal: find("task_struct", "signal", NO_STATUS),
        task_group_leader: find("task_struct", "group_leader", NO_STATUS),
        task_exit_code: find("task_struct", "exit_code", NO_STATUS),
        signal_flags: find("signal_struct", "flags", NO_STATUS),
        signal_group_exit_code: find("signal_struct", "group_exit_code", NO_STATUS),
        // Not every kernel needs it; one that does is refused above.
        signal_live: btf.member_offset("signal_struct", "live").unwrap_or(ABSENT),
        ..Config::UNKNOWN
    }
}

fn mark_offsets(format: Option<&Format>, config: &mut Config, lacks: &mut Vec<Lack>) {
    let Some(format) = format else { return };
    // The program reads exactly so many bytes.
    let find = |name, size| {
        format.field(name).filter(|field| field.size == size).map_or(ABSENT, |field| field.offset)
    };
    config.mark_pid = find("pid", 4);
    config.mark_anon_rss = find("anon_rss", 8);
    config.mark_file_rss = find("file_rss", 8);
    config.mark_shmem_rss = find("shmem_rss", 8);
    if [config.mark_anon_rss, config.mark_file_rss, config.mark_shmem_rss].contains(&ABSENT) {
        lacks.push(Lack::Memory);
    }
}

fn attach_exit(ebpf: &mut Ebpf, name: &'static str, btf: &aya::Btf) -> Result<(), LoadError> {
    let program =
        ebpf.program_mut(name).ok_or_else(|| LoadError::Object(format!("it has no program {name}")))?;
    let program: &mut BtfTracePoint = program.try_into().map_err(object)?;
    program
        .load("sched_process_exit", btf)
        .and_then(|()| program.attach().map(|_link| ()))
        .map_err(|error| refused(name, &error))
}

/// The error is the reason for which victims are not marked.
fn attach_mark(ebpf: &mut Ebpf) -> Result<(), Lack> {
    let lack = |error: LoadError| Lack::MarkVictim { reason: error.reason(), cure: error.cure() };
    let missing = || lack(LoadError::Object(format!("it has no program {}", abi::MARK_VICTIM)));
    let program = ebpf.program_mut(abi::MARK_VICTIM).ok_or_else(missing)?;
    let program: &mut TracePoint = program.try_into().map_err(|error: ProgramError| lack(object(error)))?;
    program
        .load()
        .and_then(|()| program.attach("oom", "mark_victim").map(|_link| ()))
        .map_err(|error| lack(refused(abi::MARK_VICTIM, &error)))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Object(format!("it has no map {name}")))
}

fn hash<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<HashMap<MapData, K, V>, LoadError> {
    HashMap::try_from(take(ebpf, name)?).map_err(object)
}

fn object(error: impl std::error::Error) -> LoadError {
    LoadError::Object(error.to_string())
}

fn refused_object(error: EbpfError) -> LoadError {
    if is_forbidden(&error) { LoadError::NotPermitted } else { object(error) }
}

fn refused(program: &'static str, error: &ProgramError) -> LoadError {
    if is_forbidden(error) {
        return LoadError::NotPermitted;
    }
    let reason = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(VERIFIER_LINES)..];
            format!("{io_error}; the verifier says: {}", last.join(" / "))
        }
        other => other.to_string(),
    };
    LoadError::Program { program, reason }
}

/// EPERM or EACCES anywhere among the causes. The verifier answers EACCES as well, but then it has a log.
fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let has_log = |error: &ProgramError| matches!(error, ProgramError::LoadError { verifier_log, .. } if !verifier_log.to_string().is_empty());
    let mut forbidden = false;
    for cause in causes {
        if cause.downcast_ref::<ProgramError>().is_some_and(has_log) {
            return false;
        }
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        forbidden |= kind == Some(io::ErrorKind::PermissionDenied);
    }
    forbidden
}
