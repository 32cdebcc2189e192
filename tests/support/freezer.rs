//! The v2 freezer around a process that runs already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::delegated::v2_mount;
use crate::watch::within;
use crate::{SOON, eventually};

/// Puts a process into a cgroup of its own, and back when this value is dropped. It needs root rights.
pub struct Freezer {
    pid: u32,
    dir: PathBuf,
    /// Where the process was.
    home: PathBuf,
}

impl Freezer {
    pub fn around(pid: u32) -> Freezer {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mount = v2_mount();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = mount.join(format!("defib-test-freezer-{}-{number}", id()));
        let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a running process");
        let own = memberships.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup v2 tree");
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let freezer = Freezer { pid, dir, home: mount.join(own) };
        write(&freezer.dir.join("cgroup.procs"), &pid.to_string());
        freezer
    }

    /// Returns when nothing of the process runs any more.
    pub fn freeze(&self) {
        write(&self.dir.join("cgroup.freeze"), "1");
        eventually("the cgroup is frozen", SOON, || {
            let events = fs::read_to_string(self.dir.join("cgroup.events")).expect("cgroup.events");
            events.lines().any(|line| line == "frozen 1").then_some(())
        });
    }

    pub fn thaw(&self) {
        write(&self.dir.join("cgroup.freeze"), "0");
    }
}

impl Drop for Freezer {
    /// A panic here could hide the one of a test. A process that has ended needs no way back.
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.freeze"), "0");
        let _ = fs::write(self.home.join("cgroup.procs"), self.pid.to_string());
        if within(SOON, || fs::remove_dir(&self.dir).ok()).is_none() {
            eprintln!("left over: {}", self.dir.display());
        }
    }
}

fn write(file: &Path, text: &str) {
    fs::write(file, text)
        .unwrap_or_else(|error| panic!("{} (root rights are needed): {error}", file.display()));
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::procs;

    #[test]
    fn a_frozen_process_goes_on_where_it_was() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        let busy = busy.as_mut().expect("a shell");
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", busy.id())).expect("it runs");
            let (_, fields) = stat.rsplit_once(") ").expect("proc_pid_stat(5)");
            fields.split(' ').nth(11).and_then(|utime| utime.parse::<u64>().ok()).expect("utime")
        };
        let freezer = Freezer::around(busy.id());
        freezer.freeze();
        let frozen = ticks();
        freezer.thaw();
        eventually("it runs again", SOON, || (ticks() > frozen).then_some(()));
        let dir = freezer.dir.clone();
        drop(freezer);
        assert!(!dir.exists());
        assert!(procs::process(busy.id()).is_some());
        busy.kill().and_then(|()| busy.wait()).expect("it is ended");
    }
}
