//! The kernel's count of processes that were killed for memory in a cgroup, and a descriptor that reports a
//! change. v2: `memory.events` (kernel 4.13). v1: `memory.oom_control`, whose eventfd is raised when memory runs
//! out, a moment *before* a process is chosen: the count follows (Documentation/admin-guide/cgroup-v1/memory.rst
//! section 10).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::event::epoll::EventFlags;

use super::{CgroupError, write_control};
use crate::model::limits::CGROUP_EVENTS_MAX_BYTES;
use crate::sys::wake::Waker;

/// A counter of kills and its notifications.
#[derive(Debug)]
pub struct OomWatch {
    file: File,
    path: PathBuf,
    source: Source,
    /// What was taken.
    seen: Counts,
}

/// Since the last look.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct OomKills {
    pub kills: u64,
    /// The cgroup's own limit was hit. False proves nothing: the limit may have been hit before the last look.
    pub own_limit: bool,
}

#[derive(Debug)]
enum Source {
    /// The file itself reports POLLPRI.
    V2,
    /// Raised when this cgroup or one above it runs out of memory, not when the machine does.
    V1 { raised: Waker, was_raised: bool },
}

#[derive(Copy, Clone, Debug, Default)]
struct Counts {
    kills: u64,
    /// v2: `oom` of `memory.events.local` (kernel 5.2), which counts at the cgroup whose limit was hit and not at
    /// those below.
    own_limit: u64,
}

impl OomWatch {
    /// Of the folder of a v2 memory cgroup. The count includes the cgroups below.
    pub(super) fn v2(dir: &Path) -> Result<OomWatch, CgroupError> {
        OomWatch::open(dir.join("memory.events"), |_| Ok(Source::V2))
    }

    /// Of the folder of a v1 memory cgroup.
    pub(super) fn v1(dir: &Path) -> Result<OomWatch, CgroupError> {
        OomWatch::open(dir.join("memory.oom_control"), |file| {
            let control = dir.join("cgroup.event_control");
            let raised = Waker::new().map_err(|source| CgroupError::new("watch", &control, source))?;
            let pair = format!("{} {}", raised.as_fd().as_raw_fd(), file.as_raw_fd());
            write_control("watch", &control, &pair)?;
            Ok(Source::V1 { raised, was_raised: false })
        })
    }

    fn open(
        path: PathBuf,
        source: impl FnOnce(&File) -> Result<Source, CgroupError>,
    ) -> Result<OomWatch, CgroupError> {
        let file = File::open(&path).map_err(|source| CgroupError::new("watch", &path, source))?;
        let source = source(&file)?;
        let mut watch = OomWatch { file, path, source, seen: Counts::default() };
        watch.seen = watch.read()?;
        Ok(watch)
    }

    /// Kills since the last call.
    pub fn take(&mut self) -> Result<OomKills, CgroupError> {
        if let Source::V1 { raised, was_raised } = &mut self.source {
            *was_raised |= raised.clear();
        }
        let now = self.read()?;
        let kills = now.kills.saturating_sub(self.seen.kills);
        if kills == 0 {
            // The limit is hit first: it belongs to the kill that follows.
            return Ok(OomKills::default());
        }
        let own_limit = match &mut self.source {
            Source::V2 => now.own_limit > self.seen.own_limit,
            // The notification says "here or above"; where nothing above has a limit it was here.
            Source::V1 { was_raised, .. } => std::mem::take(was_raised) && !has_limit_above(&self.path),
        };
        self.seen = now;
        Ok(OomKills { kills, own_limit })
    }

    fn read(&mut self) -> Result<Counts, CgroupError> {
        let failed = |source| CgroupError::new("read", &self.path, source);
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        (&self.file).take(CGROUP_EVENTS_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        let missing =
            || failed(io::Error::new(io::ErrorKind::InvalidData, "no oom_kill in it (kernel 4.13)"));
        let kills = count(&text, "oom_kill ").ok_or_else(missing)?;
        let own_limit = match self.source {
            Source::V2 => fs::read_to_string(self.path.with_file_name("memory.events.local"))
                .ok()
                .and_then(|text| count(&text, "oom ")),
            Source::V1 { .. } => None,
        };
        // One that is missing is a limit that cannot be proven.
        Ok(Counts { kills, own_limit: own_limit.unwrap_or_default() })
    }

    /// What to ask epoll for.
    pub fn interest(&self) -> EventFlags {
        match self.source {
            Source::V2 => EventFlags::PRI,
            Source::V1 { .. } => EventFlags::IN,
        }
    }

    /// Whether a notification may come before the count has changed.
    pub fn is_early(&self) -> bool {
        matches!(self.source, Source::V1 { .. })
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V2 => self.file.as_fd(),
            Source::V1 { raised, .. } => raised.as_fd(),
        }
    }
}

/// Whether a v1 cgroup above that of this control file has a memory limit. The kernel writes "no limit" as the
/// largest number of whole pages.
fn has_limit_above(control: &Path) -> bool {
    const NO_LIMIT: u64 = 1 << 62;
    let dirs = control.ancestors().skip(2);
    let limits = dirs.map_while(|dir| fs::read_to_string(dir.join("memory.limit_in_bytes")).ok());
    limits.filter_map(|text| text.trim().parse::<u64>().ok()).any(|limit| limit < NO_LIMIT)
}

/// The number on the line that begins with `name` and its space.
fn count(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_in_both_versions() {
        let v2 = "low 0\nhigh 0\nmax 13\noom 2\noom_kill 3\noom_group_kill 1\n";
        assert_eq!((count(v2, "oom_kill "), count(v2, "oom ")), (Some(3), Some(2)));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", "oom_kill "), Some(7));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n", "oom_kill "), None);
    }
}
