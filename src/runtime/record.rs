//! One small file per live instance, so that the next agent finds what a killed one left (design 9.9).
//!
//! The first line is written before anything is made, the second before the process may run. No fsync: what
//! must survive is the death of the agent, not of the machine, after which nothing runs anyway.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use probe_core::model::id::InstanceId;
use probe_core::sys::cgroup::Group;
use probe_core::sys::procfs;
use serde::{Deserialize, Serialize};

use super::files::{instances_dir, record_name};

/// A record that is being written.
#[derive(Debug)]
pub struct Record {
    file: File,
    path: PathBuf,
}

/// First line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Planned {
    pub boot_id: String,
    /// Folder in the v2 cgroup tree; None where there are no cgroups.
    pub cgroup: Option<PathBuf>,
    pub v1_cgroups: Vec<PathBuf>,
    /// Its log: an orphan that still writes there belongs to it.
    pub log: PathBuf,
}

/// Second line.
#[derive(Copy, Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Born {
    pub pid: u32,
    pub start_ticks: u64,
}

/// What a file holds. A record that was cut off tells of a process that never ran.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub planned: Option<Planned>,
    pub born: Option<Born>,
}

impl Record {
    /// Writes the first line.
    pub fn begin(
        state_dir: &Path,
        instance: InstanceId,
        group: Option<&Group>,
        log: &Path,
    ) -> io::Result<Record> {
        let path = instances_dir(state_dir).join(record_name(instance));
        let planned = Planned {
            boot_id: procfs::boot_id()?,
            cgroup: group.map(|group| group.dir().to_owned()),
            v1_cgroups: group.map(|group| group.v1_dirs().to_vec()).unwrap_or_default(),
            log: log.to_owned(),
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(&path)?;
        let mut record = Record { file, path };
        record.line(&planned)?;
        Ok(record)
    }

    /// Where it is, to remove it by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the second line.
    pub fn finish(mut self, born: Born) -> io::Result<()> {
        self.line(&born)
    }

    /// One write(2), so that a line is there whole or not at all.
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }
}

/// Reads a record.
pub fn read(path: &Path) -> io::Result<Found> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines();
    let planned = lines.next().and_then(|line| serde_json::from_str(line).ok());
    let born = lines.next().and_then(|line| serde_json::from_str(line).ok());
    Ok(Found { planned, born })
}

#[cfg(test)]
mod tests {
    use probe_core::model::id::{ContainerIx, PodUid};

    use super::*;

    #[test]
    fn records_come_back_whole_or_cut_off() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(instances_dir(state.path())).unwrap();
        let instance = InstanceId { pod: PodUid(7), container: ContainerIx(1), restart_count: 3 };
        let group = Group::at("/no/such/group".into(), vec!["/no/such/memory".into()]);
        let record = Record::begin(state.path(), instance, Some(&group), Path::new("/log")).unwrap();
        let path = record.path.clone();
        let begun = read(&path).unwrap();
        assert_eq!(begun.born, None);
        let born = Born { pid: 12, start_ticks: 345 };
        record.finish(born).unwrap();
        let found = read(&path).unwrap();
        assert_eq!((found.planned.clone(), found.born), (begun.planned, Some(born)));
        let planned = found.planned.unwrap();
        assert_eq!(planned.cgroup.as_deref(), Some(group.dir()));
        assert_eq!(planned.v1_cgroups, group.v1_dirs());
        fs::write(&path, "{\"boot_id\":\"x").unwrap();
        assert_eq!(read(&path).unwrap(), Found { planned: None, born: None });
    }
}
