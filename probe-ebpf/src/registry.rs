//! Which containers the programs report. Any thread may use it.

use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, MapData, MapError};
use thiserror::Error;

use crate::abi::Init;

/// A container was not registered: its deaths are not told by the kernel's programs.
#[derive(Error, Debug)]
#[error("cannot register a container with the eBPF sensor: table {table}: {source}")]
pub struct RegisterError {
    table: &'static str,
    source: MapError,
}

/// What a container is known by.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The main process, as in `/proc/<pid>/stat`.
    pub pid: u32,
    pub start_ticks: u64,
    /// The id of its cgroup in the v2 tree, which is the folder's inode number; processes in it and below it count as
    /// the container's.
    pub cgroup_id: Option<u64>,
}

/// The tables of registered containers.
#[derive(Debug)]
pub struct Registry {
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    containers: HashMap<MapData, u64, u64>,
    inits: HashMap<MapData, u32, Init>,
}

impl Registry {
    pub(crate) fn new(
        containers: HashMap<MapData, u64, u64>,
        inits: HashMap<MapData, u32, Init>,
    ) -> Registry {
        Registry { tables: Mutex::new(Tables { containers, inits }) }
    }

    /// From here on deaths carry `key`, which is not 0. A member with the same pid or cgroup is replaced: its
    /// container is gone, since the kernel has given the number away again.
    ///
    /// # Errors
    /// A table is full ([`crate::abi::CONTAINERS_MAX`]), or the kernel has no memory. Nothing is registered then.
    pub fn register(&self, key: u64, member: Member) -> Result<(), RegisterError> {
        let mut tables = self.lock();
        let init = Init { key, start_ticks: member.start_ticks };
        let failed = |table| move |source| RegisterError { table, source };
        tables.inits.insert(member.pid, init, 0).map_err(failed("INITS"))?;
        if let Some(id) = member.cgroup_id
            && let Err(error) = tables.containers.insert(id, key, 0).map_err(failed("CONTAINERS"))
        {
            tables.forget(key, member);
            return Err(error);
        }
        Ok(())
    }

    /// The container is gone. What was registered meanwhile under the same numbers stays.
    pub fn unregister(&self, key: u64, member: Member) {
        self.lock().forget(key, member);
    }

    /// A panic under the lock leaves tables that are still right: they change in single steps.
    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// What is not there need not be removed.
    fn forget(&mut self, key: u64, member: Member) {
        if self.inits.get(&member.pid, 0).is_ok_and(|init| init.key == key) {
            let _gone = self.inits.remove(&member.pid);
        }
        if let Some(id) = member.cgroup_id
            && self.containers.get(&id, 0).is_ok_and(|found| found == key)
        {
            let _gone = self.containers.remove(&id);
        }
    }
}
