//! What /proc says about processes.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

const PF_EXITING: u32 = 0x4;

/// The fields of `/proc/<pid>/stat` that defib uses (proc_pid_stat(5)).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    pub pid: u32,
    pub state: u8,
    pub parent: u32,
    pub session: u32,
    /// PF_EXITING of include/linux/sched.h.
    pub is_exiting: bool,
    /// Start time in clock ticks since boot. With the pid it names a process for one boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Ended, and not reaped yet.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// One process; None when there is none with this pid.
pub fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether SIGKILL was sent to the process, it is ending, or it has ended. Between the moment in which it takes
/// the signal and the one in which it begins to end neither shows: ask twice, a little apart.
pub fn is_dying(pid: u32) -> io::Result<bool> {
    let status = match fs::read_to_string(format!("/proc/{pid}/status")) {
        Err(error) if is_gone(&error) => return Ok(true),
        other => other?,
    };
    if is_killed(&status) {
        return Ok(true);
    }
    let has_ended = |stat: &Stat| stat.is_exiting || stat.is_zombie();
    if stat(pid)?.is_some_and(|leader| !has_ended(&leader)) {
        return Ok(false);
    }
    // The first thread may end and leave the others.
    let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if is_gone(&error) => return Ok(true),
        other => other?,
    };
    let mut stats =
        threads.flatten().filter_map(|entry| parse_stat(&fs::read(entry.path().join("stat")).ok()?));
    Ok(stats.all(|thread| has_ended(&thread)))
}

/// SIGKILL among the pending signals of the leader or of the process (proc_pid_status(5)).
fn is_killed(status: &str) -> bool {
    const SIGKILL_BIT: u64 = 1 << (libc::SIGKILL - 1);
    let masks = status.lines().filter_map(|line| line.split_once(':'));
    masks
        .filter(|(name, _)| matches!(*name, "SigPnd" | "ShdPnd"))
        .filter_map(|(_, mask)| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & SIGKILL_BIT != 0)
}

/// The name of a process or thread (`comm`); None when it is gone.
pub fn name(pid: u32) -> Option<String> {
    let text = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned())
}

/// The process that a thread belongs to; None when it is gone.
pub fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// Every process that is visible now. Those that end while we look are left out.
pub fn all() -> io::Result<Vec<Stat>> {
    let mut stats = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that may not be looked at (hidepid) is none of ours.
        stats.extend(stat(pid).ok().flatten());
    }
    Ok(stats)
}

/// The random id of this boot: pids and start times mean nothing under another one.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Whether one of the process's descriptors is one of these files, given as device and inode.
pub fn holds_file(pid: u32, files: &[FileId]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| FileId::of(&entry.path()).is_ok_and(|id| files.contains(&id)))
}

/// The environment that the process was started with, NUL-separated; None when it may not be read.
pub fn environ(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

/// A file by device and inode number.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of the file that the path leads to, links followed.
    pub fn of(path: &Path) -> io::Result<FileId> {
        let found = rustix::fs::stat(path)?;
        Ok(FileId { device: found.st_dev, inode: found.st_ino })
    }

    /// Of an open descriptor.
    pub fn of_fd(fd: impl std::os::fd::AsFd) -> io::Result<FileId> {
        let found = rustix::fs::fstat(fd)?;
        Ok(FileId { device: found.st_dev, inode: found.st_ino })
    }
}

/// The name in parentheses may hold anything, parentheses too, so fields are counted from the last one.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // Fields are numbered from 1 in the manual; `rest` begins with field 3.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        pid,
        state: *field(3)?.as_bytes().first()?,
        parent: field(4)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        is_exiting: field(9)?.parse::<u32>().ok()? & PF_EXITING != 0,
        start_ticks: field(22)?.parse().ok()?,
    })
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let tail = "S 7 41 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99123 1 2 3";
        let expected =
            Stat { pid: 42, state: b'S', parent: 7, session: 40, is_exiting: false, start_ticks: 99_123 };
        for name in ["sh", "a b", "x) S 1 1 1 (", "\u{e4}\u{f6}"] {
            assert_eq!(parse_stat(format!("42 ({name}) {tail}").as_bytes()), Some(expected), "{name}");
        }
        for bad in ["", "42", "42 (sh)", "42 (sh) S 7", "x (sh) S 7 41 40"] {
            assert_eq!(parse_stat(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn one_that_is_dying() {
        let status = |own: &str, shared: &str| format!("Name:\tx\nSigPnd:\t{own}\nShdPnd:\t{shared}\n");
        assert!(is_killed(&status("0000000000000100", "0000000000000000")));
        assert!(is_killed(&status("0000000000000000", "0000000000000100")));
        assert!(!is_killed(&status("0000000000004000", "0000000000000200")));
        assert!(!is_dying(std::process::id()).unwrap());
        assert!(is_dying(u32::MAX).unwrap());
    }

    #[test]
    fn we_are_among_all() {
        let own = stat(std::process::id()).unwrap().unwrap();
        assert!(!own.is_zombie());
        let listed = all().unwrap().into_iter().find(|stat| stat.pid == own.pid).unwrap();
        assert_eq!((listed.start_ticks, listed.parent), (own.start_ticks, own.parent));
        assert_eq!(stat(u32::MAX).unwrap(), None);
        let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        assert_eq!(process_of(thread), Some(own.pid));
        assert!(!name(own.pid).unwrap().ends_with('\n'));
        assert_eq!((name(u32::MAX), process_of(u32::MAX)), (None, None));
    }

    #[test]
    fn open_files_are_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let id = FileId::of(file.path()).unwrap();
        assert_eq!(FileId::of_fd(file.as_file()).unwrap(), id);
        assert!(holds_file(std::process::id(), &[id]));
        assert!(!holds_file(std::process::id(), &[]));
    }

    #[test]
    fn a_boot_has_one_id() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert!(!boot_id().unwrap().is_empty());
    }
}
