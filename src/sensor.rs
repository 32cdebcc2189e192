//! The eBPF programs as a source of probe-core's sensor: the same facts in its types.

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd};

use probe_core::model::runtime::ExitStatus;
use probe_core::model::time::Mono;
use probe_core::sensor::{Death, Deaths, Kernel, Key, Mark, Member, Registry};
use probe_core::sys::host;
use probe_core::sys::tracefs::with_tracefs;
use probe_ebpf::abi::{self, Counts};
use probe_ebpf::{Lack, LoadError, LoadOptions, Loaded};

/// The programs, running.
pub struct Programs {
    pub kernel: Kernel,
    /// What they do without on this kernel.
    pub lacks: Vec<Lack>,
    /// Name of the one at `sched_process_exit`.
    pub exit_program: &'static str,
}

/// Loads the programs.
///
/// # Errors
/// They do not run here.
pub fn load(options: LoadOptions) -> Result<Programs, LoadError> {
    let loaded = with_tracefs(|| probe_ebpf::load(options))?;
    // The kernel's BTF took tens of megabytes.
    host::trim_heap();
    let Loaded { registry, reader, lacks, exit_program } = loaded;
    let has_marks = !lacks.iter().any(|lack| matches!(lack, Lack::MarkVictim { .. }));
    let deaths = Records { reader, has_marks, lost: 0, marks_lost: 0 };
    let kernel = Kernel { deaths: Box::new(deaths), registry: Box::new(Containers(registry)) };
    Ok(Programs { kernel, lacks, exit_program })
}

struct Records {
    reader: probe_ebpf::Reader,
    has_marks: bool,
    /// As far as they could be read.
    lost: u64,
    marks_lost: u64,
}

struct Containers(probe_ebpf::Registry);

impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Deaths for Records {
    fn next(&mut self) -> Option<Death> {
        self.reader.take_death().as_ref().map(death)
    }

    fn take_mark(&mut self, pid: u32, start_boot_ns: u64) -> Option<Mark> {
        let mark = self.reader.take_mark(pid, start_boot_ns)?;
        let rss_kib = (mark.rss_kib != abi::RSS_UNKNOWN).then_some(mark.rss_kib);
        Some(Mark { rss_bytes: rss_kib.map(|kib| kib.saturating_mul(1_024)) })
    }

    fn marked(&mut self, oldest_boot_ns: u64) -> Vec<u32> {
        self.reader.marked(oldest_boot_ns)
    }

    fn lost(&mut self) -> u64 {
        match self.reader.counts() {
            Ok(Counts { lost, marks, marks_lost, .. }) => {
                if marks_lost > self.marks_lost {
                    tracing::warn!(lost = marks_lost, of = marks, "victims of the OOM killer are not named");
                }
                self.lost = lost;
                self.marks_lost = marks_lost;
            }
            Err(error) => tracing::error!(%error, "losses of the eBPF sensor are not seen"),
        }
        self.lost
    }

    fn has_marks(&self) -> bool {
        self.has_marks
    }
}

impl Registry for Containers {
    fn register(&self, key: Key, member: Member) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.0.register(key.0, in_kernel(member))?)
    }

    fn unregister(&self, key: Key, member: Member) {
        self.0.unregister(key.0, in_kernel(member));
    }
}

fn in_kernel(member: Member) -> probe_ebpf::Member {
    let Member { pid, start_ticks, cgroup_id } = member;
    probe_ebpf::Member { pid, start_ticks, cgroup_id }
}

fn death(record: &abi::Death) -> Death {
    let key = |key: u64| (key != 0).then_some(Key(key));
    let is_known = record.flags & abi::STATUS_KNOWN != 0;
    Death {
        at: Mono::from_ns(record.at_ns),
        main_of: key(record.init_key),
        member_of: key(record.cgroup_key),
        cgroup_child_id: (record.cgroup_child_id != 0).then_some(record.cgroup_child_id),
        pid: record.pid,
        start_boot_ns: record.start_boot_ns,
        status: is_known.then(|| wait_status(record.status)),
        command: record.comm,
    }
}

/// Takes a status of wait(2) apart: the signal in the low seven bits, then the core flag, then the code.
fn wait_status(status: u32) -> ExitStatus {
    let [low, code, ..] = status.to_le_bytes();
    match low & 0x7f {
        0 => ExitStatus::Code(code),
        number => ExitStatus::Signal { number, core_dumped: low & 0x80 != 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_wait() {
        for (raw, expected) in [
            (0, ExitStatus::Code(0)),
            (0x0700, ExitStatus::Code(7)),
            (0xff00, ExitStatus::Code(255)),
            (9, ExitStatus::Signal { number: 9, core_dumped: false }),
            (0x8b, ExitStatus::Signal { number: 11, core_dumped: true }),
            (64, ExitStatus::Signal { number: 64, core_dumped: false }),
        ] {
            assert_eq!(wait_status(raw), expected, "{raw:#x}");
        }
    }

    #[test]
    fn a_record_keeps_its_facts() {
        let record = abi::Death {
            at_ns: 5,
            init_key: 0,
            cgroup_key: 3,
            cgroup_child_id: 0,
            start_boot_ns: 4,
            pid: 77,
            status: 9,
            flags: 0,
            reserved: 0,
            comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
        };
        let found = death(&record);
        assert_eq!((found.main_of, found.member_of, found.status), (None, Some(Key(3)), None));
        assert_eq!(found.cgroup_child_id, None);
        let known =
            death(&abi::Death { flags: abi::STATUS_KNOWN, init_key: 2, cgroup_child_id: 6, ..record });
        assert_eq!(known.cgroup_child_id, Some(6));
        assert_eq!(known.status, Some(ExitStatus::Signal { number: 9, core_dumped: false }));
        assert_eq!((known.main_of, known.pid, known.at), (Some(Key(2)), 77, Mono::from_ns(5)));
    }
}
