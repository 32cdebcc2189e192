//! Programs in the kernel that say what a test wants.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use super::super::{COMMAND_BYTES, Death, Deaths, Kernel, Key, Mark, Member, Registry};
use crate::model::runtime::ExitStatus;
use crate::model::time::Mono;
use crate::sys::wake::Waker;

/// The test's end.
#[derive(Clone, Default)]
pub struct Script {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    deaths: VecDeque<Death>,
    marks: HashMap<u32, Mark>,
    registered: HashMap<Key, Member>,
    lost: u64,
}

/// The sensor's end.
pub struct Scripted {
    script: Script,
    readable: Arc<Waker>,
}

impl Script {
    /// Both halves of a source, and what makes the sensor read it.
    pub fn kernel(&self) -> (Kernel, Arc<Waker>) {
        let (deaths, readable) = self.deaths();
        (Kernel { deaths: Box::new(deaths), registry: Box::new(self.clone()) }, readable)
    }

    pub fn deaths(&self) -> (Scripted, Arc<Waker>) {
        let readable = Arc::new(Waker::new().unwrap());
        (Scripted { script: self.clone(), readable: Arc::clone(&readable) }, readable)
    }

    pub fn die(&self, death: Death) {
        self.inner.lock().unwrap().deaths.push_back(death);
    }

    pub fn mark(&self, pid: u32, mark: Mark) {
        self.inner.lock().unwrap().marks.insert(pid, mark);
    }

    pub fn lose(&self, records: u64) {
        self.inner.lock().unwrap().lost += records;
    }

    pub fn registered(&self) -> usize {
        self.inner.lock().unwrap().registered.len()
    }
}

impl AsFd for Scripted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Deaths for Scripted {
    fn next(&mut self) -> Option<Death> {
        let death = self.script.inner.lock().unwrap().deaths.pop_front();
        if death.is_none() {
            self.readable.clear();
        }
        death
    }

    fn take_mark(&mut self, pid: u32, _: u64) -> Option<Mark> {
        self.script.inner.lock().unwrap().marks.remove(&pid)
    }

    fn marked(&mut self, _: u64) -> Vec<u32> {
        self.script.inner.lock().unwrap().marks.keys().copied().collect()
    }

    fn lost(&mut self) -> u64 {
        self.script.inner.lock().unwrap().lost
    }

    fn has_marks(&self) -> bool {
        true
    }
}

impl Registry for Script {
    fn register(&self, key: Key, member: Member) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.inner.lock().unwrap().registered.insert(key, member);
        Ok(())
    }

    fn unregister(&self, key: Key, _: Member) {
        self.inner.lock().unwrap().registered.remove(&key);
    }
}

/// The main process of this container.
pub fn main_death(key: Key, pid: u32, status: ExitStatus) -> Death {
    Death { main_of: Some(key), ..child_death(key, pid, status) }
}

/// Another process of it.
pub fn child_death(key: Key, pid: u32, status: ExitStatus) -> Death {
    let mut command = [0; COMMAND_BYTES];
    command[..4].copy_from_slice(b"work");
    Death {
        at: Mono::ZERO,
        main_of: None,
        member_of: Some(key),
        cgroup_child_id: None,
        pid,
        start_boot_ns: 1,
        status: Some(status),
        command,
    }
}
