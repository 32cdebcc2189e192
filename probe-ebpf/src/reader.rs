//! Reading what the programs tell, on the sensor's thread.

#![expect(unsafe_code, reason = "a record of the ring buffer is read as the type that was written there")]

use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::ProgramInfo;
use thiserror::Error;

use crate::abi::{Counts, Death, MARKS_MAX, Mark};
use crate::loader::ProgramCost;

/// The tables of the programs cannot be read any more.
#[derive(Error, Debug)]
#[error("cannot read the eBPF sensor's table {table}: {source}")]
pub struct ReadError {
    table: &'static str,
    source: MapError,
}

/// The programs' output. Dropping it detaches the programs.
pub struct Reader {
    records: RingBuf<MapData>,
    counts: PerCpuArray<MapData, Counts>,
    marks: HashMap<MapData, u32, Mark>,
    /// Holds the programs and their links.
    ebpf: Ebpf,
}

impl Reader {
    pub(crate) fn new(
        records: RingBuf<MapData>,
        counts: PerCpuArray<MapData, Counts>,
        marks: HashMap<MapData, u32, Mark>,
        ebpf: Ebpf,
    ) -> Reader {
        Reader { records, counts, marks, ebpf }
    }

    /// The oldest death that was not taken yet. Never waits.
    pub fn take_death(&mut self) -> Option<Death> {
        loop {
            let record = self.records.next()?;
            // The programs write nothing shorter; one from elsewhere would be skipped, not read past its end.
            if record.len() < size_of::<Death>() {
                continue;
            }
            // SAFETY: needed because the record is bytes to aya. It is long enough, every bit pattern is a Death, and
            // an unaligned read asks nothing of the address.
            return Some(unsafe { record.as_ptr().cast::<Death>().read_unaligned() });
        }
    }

    /// Takes the mark of a victim of the OOM killer. `start_boot_ns` is that of the process (0: unknown): an older mark
    /// was of another process with the same pid, and is dropped.
    pub fn take_mark(&mut self, pid: u32, start_boot_ns: u64) -> Option<Mark> {
        let mark = self.marks.get(&pid, 0).ok()?;
        let _taken = self.marks.remove(&pid);
        (mark.at_boot_ns >= start_boot_ns).then_some(mark)
    }

    /// Pids of the marks that were not taken. Drops those that are older than this moment of CLOCK_BOOTTIME: they are
    /// of processes that nobody asks for.
    pub fn marked(&mut self, oldest_boot_ns: u64) -> Vec<u32> {
        // A mark that is made meanwhile may end the walk early; who asks for it asks again.
        let all: Vec<(u32, Mark)> =
            self.marks.iter().map_while(Result::ok).take(MARKS_MAX as usize).collect();
        let (old, recent): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, mark)| mark.at_boot_ns < oldest_boot_ns);
        for (pid, _) in old {
            let _taken = self.marks.remove(&pid);
        }
        recent.into_iter().map(|(pid, _)| pid).collect()
    }

    /// What was counted since the load, over all CPUs. Each grows only.
    ///
    /// # Errors
    /// The kernel refuses to read the table.
    pub fn counts(&self) -> Result<Counts, ReadError> {
        let read = self.counts.get(&0, 0).map_err(|source| ReadError { table: "COUNTS", source })?;
        Ok(read.iter().fold(Counts::default(), |sum, counts| Counts {
            deaths: sum.deaths + counts.deaths,
            lost: sum.lost + counts.lost,
            marks: sum.marks + counts.marks,
            marks_lost: sum.marks_lost + counts.marks_lost,
        }))
    }

    /// What the attached program of this name has cost since the load, while the kernel keeps statistics
    /// ([`aya::sys::enable_stats`]). None for a program that is not loaded.
    pub fn cost(&self, program: &str) -> Option<ProgramCost> {
        let info: ProgramInfo = self.ebpf.program(program)?.info().ok()?;
        Some(ProgramCost { runs: info.run_count(), time_ns: info.run_time().as_nanos().try_into().ok()? })
    }
}

impl AsFd for Reader {
    /// Readable when a death is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}
