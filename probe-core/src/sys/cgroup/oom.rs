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
use crate::model::limits::{CGROUP_DEPTH_MAX, CGROUP_EVENTS_MAX_BYTES, OOM_READS_MAX};
use crate::model::runtime::OomLimit;
use crate::sys::wake::Waker;

/// A counter of kills and its notifications.
#[derive(Debug)]
pub struct OomWatch {
    file: File,
    path: PathBuf,
    source: Source,
    /// Kills that were taken.
    seen: u64,
}

/// Since the last look.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct OomKills {
    pub kills: u64,
    /// Whose limit was hit, as far as the counters prove it.
    pub limit: OomLimit,
}

#[derive(Debug)]
enum Source {
    /// The file itself reports POLLPRI. The cgroup, and those above it up to the root; and whether a limit was hit whose
    /// kill was not counted by then.
    V2 { levels: Vec<Level>, is_owed: bool },
    /// Raised when this cgroup or one above it runs out of memory, not when the machine does.
    V1 { raised: Waker, was_raised: bool },
}

/// A v2 cgroup on the way to the root.
#[derive(Debug)]
struct Level {
    dir: PathBuf,
    seen: Counts,
}

/// Counters of one v2 cgroup.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
struct Counts {
    /// `oom` of `memory.events.local` (kernel 5.2): how often this cgroup's own limit was hit, and nothing could be
    /// freed.
    ooms: u64,
    /// `oom_kill` of `memory.events`: kills here and below.
    kills: u64,
}

impl OomWatch {
    /// Of the folder of a v2 memory cgroup. The count includes the cgroups below.
    pub(super) fn v2(dir: &Path) -> Result<OomWatch, CgroupError> {
        OomWatch::open(dir.join("memory.events"), |_| Ok(Source::V2 { levels: levels(dir), is_owed: false }))
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
        let mut watch = OomWatch { file, path, source, seen: 0 };
        watch.seen = watch.read()?;
        Ok(watch)
    }

    /// Kills since the last call.
    pub fn take(&mut self) -> Result<OomKills, CgroupError> {
        let mut now = self.read()?;
        // After the count: whatever is counted was announced before.
        if let Source::V1 { raised, was_raised } = &mut self.source {
            *was_raised |= raised.clear();
        }
        if now <= self.seen {
            // The limit is hit first: it belongs to the kill that follows.
            return Ok(OomKills { kills: 0, limit: OomLimit::Unknown });
        }
        let limit = if matches!(self.source, Source::V2 { .. }) {
            self.take_levels(&mut now)?
        } else {
            self.take_raised()
        };
        let kills = now - self.seen;
        self.seen = now;
        Ok(OomKills { kills, limit: in_view(limit) })
    }

    /// Whose limit was hit, v2. A kill meanwhile is taken along, so that the counters speak of the same kills.
    fn take_levels(&mut self, now: &mut u64) -> Result<OomLimit, CgroupError> {
        let mut is_stable = false;
        let mut found = Vec::new();
        for _ in 0..OOM_READS_MAX {
            if let Source::V2 { levels, .. } = &self.source {
                found = levels.iter().map(|level| Level::read(&level.dir)).collect();
            }
            let again = self.read()?;
            is_stable = std::mem::replace(now, again) == again;
            if is_stable {
                break;
            }
        }
        let Source::V2 { levels, is_owed } = &mut self.source else { return Ok(OomLimit::Unknown) };
        let deltas: Vec<Option<Counts>> =
            levels.iter_mut().zip(found).map(|(level, found)| found.map(|now| level.passed(now))).collect();
        let was_owed =
            std::mem::replace(is_owed, deltas.iter().flatten().any(|delta| delta.ooms > delta.kills));
        let limit = v2_limit(*now - self.seen, deltas.into_iter());
        // That no limit was hit since says nothing of a kill for one that was hit before.
        let is_proven = is_stable && !(was_owed && limit == OomLimit::Node);
        Ok(if is_proven { limit } else { OomLimit::Unknown })
    }

    fn take_raised(&mut self) -> OomLimit {
        let Source::V1 { was_raised, .. } = &mut self.source else { return OomLimit::Unknown };
        v1_limit(std::mem::take(was_raised), &v1_limits(self.path.parent()))
    }

    fn read(&self) -> Result<u64, CgroupError> {
        let failed = |source| CgroupError::new("read", &self.path, source);
        let mut text = String::new();
        (&self.file).seek(SeekFrom::Start(0)).map_err(failed)?;
        (&self.file).take(CGROUP_EVENTS_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "no oom_kill in it (kernel 4.13)");
        count(&text, "oom_kill ").ok_or_else(|| failed(missing()))
    }

    /// What to ask epoll for.
    pub fn interest(&self) -> EventFlags {
        match self.source {
            Source::V2 { .. } => EventFlags::PRI,
            Source::V1 { .. } => EventFlags::IN,
        }
    }

    /// Whether a limit was hit and no kill has followed yet: the kernel says so before it chooses.
    pub fn is_pending(&self) -> bool {
        match &self.source {
            Source::V2 { levels, .. } => levels.first().is_some_and(Level::was_hit),
            Source::V1 { was_raised, .. } => *was_raised,
        }
    }

    /// No kill has followed: what was hit until now is no sign of one that comes later.
    pub fn settle(&mut self) {
        match &mut self.source {
            Source::V2 { levels, is_owed } => {
                *is_owed = false;
                for level in levels {
                    if let Some(now) = Level::read(&level.dir) {
                        level.seen = now;
                    }
                }
            }
            Source::V1 { raised, was_raised } => {
                raised.clear();
                *was_raised = false;
            }
        }
    }
}

impl Level {
    fn read(dir: &Path) -> Option<Counts> {
        let line = |file: &str, name: &str| count(&fs::read_to_string(dir.join(file)).ok()?, name);
        Some(Counts {
            ooms: line("memory.events.local", "oom ")?,
            kills: line("memory.events", "oom_kill ")?,
        })
    }

    fn was_hit(&self) -> bool {
        Level::read(&self.dir).is_some_and(|now| now.ooms > self.seen.ooms)
    }

    /// What was counted since the last call.
    fn passed(&mut self, now: Counts) -> Counts {
        let seen = std::mem::replace(&mut self.seen, now);
        Counts { ooms: now.ooms.saturating_sub(seen.ooms), kills: now.kills.saturating_sub(seen.kills) }
    }
}

/// The cgroup and those above it that have a memory controller: all but the root.
fn levels(dir: &Path) -> Vec<Level> {
    let above = dir.ancestors().take(CGROUP_DEPTH_MAX);
    above.map_while(|dir| Some(Level { seen: Level::read(dir)?, dir: dir.to_owned() })).collect()
}

/// Whose limit was hit for `kills` in a v2 cgroup, from what was counted meanwhile in it and in those above it,
/// innermost first.
///
/// An OOM of a cgroup above is proven to be ours only if every kill below it is ours; none anywhere means that no
/// cgroup was at its limit, which leaves the machine.
fn v2_limit(kills: u64, levels: impl Iterator<Item = Option<Counts>>) -> OomLimit {
    let mut hit = None;
    for (level, counts) in levels.enumerate() {
        match counts {
            Some(Counts { ooms: 0, .. }) => {}
            Some(counts) if hit.is_none() && (level == 0 || counts.kills == kills) => {
                hit = Some(limit_of(level));
            }
            _ => return OomLimit::Unknown,
        }
    }
    hit.unwrap_or(OomLimit::Node)
}

/// The same for v1, from the notification and from which of the cgroups have a limit, innermost first. The
/// notification says "here or above", and it may have been raised for an earlier kill.
fn v1_limit(was_raised: bool, limited: &[bool]) -> OomLimit {
    let mut limited = limited.iter().enumerate().filter(|(_, limited)| **limited).map(|(level, _)| level);
    match (limited.next(), limited.next(), was_raised) {
        (None, _, _) => OomLimit::Node,
        (Some(level), None, true) => limit_of(level),
        _ => OomLimit::Unknown,
    }
}

/// Cgroups are `<pod>/<container>`.
fn limit_of(level: usize) -> OomLimit {
    match level {
        0 => OomLimit::Container,
        1 => OomLimit::Pod,
        _ => OomLimit::Parent,
    }
}

/// Which cgroups from this one up to the root have a memory limit (v1). The kernel writes "no limit" as the largest
/// number of whole pages.
fn v1_limits(dir: Option<&Path>) -> Vec<bool> {
    const NO_LIMIT: u64 = 1 << 62;
    let dirs = dir.into_iter().flat_map(Path::ancestors).take(CGROUP_DEPTH_MAX);
    let limits = dirs.map_while(|dir| fs::read_to_string(dir.join("memory.limit_in_bytes")).ok());
    limits.map(|text| text.trim().parse::<u64>().is_ok_and(|limit| limit < NO_LIMIT)).collect()
}

/// Whose limit it must be when a process is killed for memory that is in this v1 cgroup: the machine's, where
/// neither this cgroup nor one above has any.
pub(super) fn v1_limit_without_counter(dir: &Path) -> OomLimit {
    match v1_limits(Some(dir)) {
        limits if limits.is_empty() => OomLimit::Unknown,
        limits => in_view(v1_limit(false, &limits)),
    }
}

/// That nobody on the way to the root was at a limit says something only of a way that is seen whole: in a cgroup
/// namespace its upper part is hidden.
fn in_view(limit: OomLimit) -> OomLimit {
    /// `PROC_CGROUP_INIT_INO` of `include/linux/proc_ns.h`.
    const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";
    let sees_all =
        || fs::read_link("/proc/self/ns/cgroup").is_ok_and(|link| link.as_os_str() == INITIAL_NAMESPACE);
    if limit == OomLimit::Node && !sees_all() { OomLimit::Unknown } else { limit }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V2 { .. } => self.file.as_fd(),
            Source::V1 { raised, .. } => raised.as_fd(),
        }
    }
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

    /// Recorded counters: before and after, for the container, its pod and the cgroup above.
    fn check_v2(kills: u64, levels: &[(&str, &str)], expected: OomLimit) {
        let counts = |text: &str| Counts {
            ooms: count(text, "oom ").unwrap(),
            kills: count(text, "oom_kill ").unwrap(),
        };
        let deltas = levels.iter().map(|(before, after)| {
            let (before, after) = (counts(before), counts(after));
            Some(Counts { ooms: after.ooms - before.ooms, kills: after.kills - before.kills })
        });
        assert_eq!(v2_limit(kills, deltas), expected, "{levels:?}");
    }

    #[test]
    fn whose_limit_v2() {
        const QUIET: &str = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n";
        const KILL: &str = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\noom_group_kill 0\n";
        const TWO_KILLS: &str = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 2\noom_group_kill 0\n";
        const OOM_KILL: &str = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n";
        const OOM_TWO_KILLS: &str = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 0\n";
        check_v2(1, &[(QUIET, OOM_KILL), (QUIET, KILL), (QUIET, KILL)], OomLimit::Container);
        check_v2(1, &[(QUIET, KILL), (QUIET, OOM_KILL), (QUIET, KILL)], OomLimit::Pod);
        check_v2(1, &[(QUIET, KILL), (QUIET, KILL), (QUIET, OOM_KILL)], OomLimit::Parent);
        // The machine ran out of memory: nobody was at a limit.
        check_v2(1, &[(QUIET, KILL), (QUIET, KILL), (QUIET, KILL)], OomLimit::Node);
        check_v2(1, &[(QUIET, KILL), (QUIET, TWO_KILLS), (QUIET, TWO_KILLS)], OomLimit::Node);
        // The pod was at its limit, but the kill there may have been the other container's.
        check_v2(1, &[(QUIET, KILL), (QUIET, OOM_TWO_KILLS), (QUIET, TWO_KILLS)], OomLimit::Unknown);
        check_v2(1, &[(QUIET, OOM_KILL), (QUIET, OOM_KILL), (QUIET, KILL)], OomLimit::Unknown);
        assert_eq!(v2_limit(1, [None].into_iter()), OomLimit::Unknown, "not to be read");
    }

    #[test]
    fn a_limit_whose_kill_was_not_counted_yet_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let write = |ooms: u64, kills: u64| {
            fs::write(dir.path().join("memory.events.local"), format!("oom {ooms}\noom_kill {kills}\n"))
                .unwrap();
            fs::write(dir.path().join("memory.events"), format!("oom {ooms}\noom_kill {kills}\n")).unwrap();
        };
        write(0, 0);
        let mut watch = OomWatch::v2(dir.path()).unwrap();
        for (ooms, kills, expected) in [
            // The limit was hit for a second kill that is still to come.
            (2, 1, (1, OomLimit::Container)),
            (2, 2, (1, OomLimit::Unknown)),
            (2, 3, (1, in_view(OomLimit::Node))),
            (4, 5, (2, OomLimit::Container)),
        ] {
            write(ooms, kills);
            let taken = watch.take().unwrap();
            assert_eq!((taken.kills, taken.limit), expected, "{ooms} {kills}");
        }
    }

    #[test]
    fn whose_limit_v1() {
        for (raised, limited, expected) in [
            (true, &[true, false, false][..], OomLimit::Container),
            (true, &[false, true, false], OomLimit::Pod),
            (true, &[false, false, true, false], OomLimit::Parent),
            (true, &[true, false, true], OomLimit::Unknown),
            (false, &[true, false], OomLimit::Unknown),
            (false, &[false, false], OomLimit::Node),
        ] {
            assert_eq!(v1_limit(raised, limited), expected, "{raised} {limited:?}");
        }
    }
}
