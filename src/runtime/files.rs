//! Names below the state directory (design 9.1).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use probe_core::model::id::InstanceId;
use probe_core::model::pod::PodSpec;

/// Files of one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// `<state>/pods/<ns>_<name>_<uid>`.
    pub pod_dir: PathBuf,
    /// `<pod>/<container>`.
    pub dir: PathBuf,
    /// `<pod>/<container>/<restartCount>.log`.
    pub log: PathBuf,
    /// `<pod>/<container>/termination-<restartCount>`.
    pub termination: PathBuf,
}

impl Files {
    pub fn new(state_dir: &Path, pod: &PodSpec, container: &str, restart_count: u32) -> Files {
        let pod_dir = state_dir.join("pods").join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid));
        let dir = pod_dir.join(container);
        Files {
            log: dir.join(format!("{restart_count}.log")),
            termination: dir.join(format!("termination-{restart_count}")),
            pod_dir,
            dir,
        }
    }

    /// Makes the folders and removes what belongs to instances before the previous one.
    pub fn prepare(&self, restart_count: u32) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        if restart_count < 2 {
            return Ok(());
        }
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let owner = entry.file_name().to_str().and_then(owner_of);
            if owner.is_some_and(|owner| owner < restart_count - 1) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Where records of live instances are.
pub fn instances_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("instances")
}

/// File name of an instance's record.
pub fn record_name(instance: InstanceId) -> String {
    format!("{}.{}.{}", instance.pod, instance.container.0, instance.restart_count)
}

/// Removes folders of pods that an earlier agent knew: their uids are never used again, so nothing reaches
/// their logs. Only names of our own form are touched.
pub fn remove_stale_pods(state_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(state_dir.join("pods")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_pod_folder) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// `<n>.log`, `<n>.log.<k>` or `termination-<n>`: n.
fn owner_of(name: &str) -> Option<u32> {
    match name.strip_prefix("termination-") {
        Some(number) => number.parse().ok(),
        None => {
            let (number, rest) = name.split_once('.')?;
            let is_log = rest == "log" || rest.starts_with("log.");
            if is_log { number.parse().ok() } else { None }
        }
    }
}

/// `<ns>_<name>_<uuid>`.
fn is_pod_folder(name: &str) -> bool {
    const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut parts = name.rsplitn(3, '_');
    let uid = parts.next().unwrap_or_default();
    let groups: Vec<&str> = uid.split('-').collect();
    let is_uuid = groups.len() == UUID_GROUPS.len()
        && groups.iter().zip(UUID_GROUPS).all(|(group, length)| {
            group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
    is_uuid && parts.count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        let cases = [
            ("0.log", Some(0)),
            ("12.log.3", Some(12)),
            ("3.log.1.new", Some(3)),
            ("termination-7", Some(7)),
            ("7.txt", None),
            ("x.log", None),
            ("log", None),
        ];
        for (name, expected) in cases {
            assert_eq!(owner_of(name), expected, "{name}");
        }
    }

    #[test]
    fn pod_folders() {
        let cases = [
            ("default_kiada_01234567-89ab-cdef-0123-456789abcdef", true),
            ("kiada_01234567-89ab-cdef-0123-456789abcdef", false),
            ("default_kiada_01234567", false),
            ("photos", false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_pod_folder(name), expected, "{name}");
        }
    }

    #[test]
    fn two_instances_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let files = Files {
            pod_dir: home.path().into(),
            dir: home.path().into(),
            log: home.path().join("5.log"),
            termination: home.path().join("termination-5"),
        };
        for name in
            ["3.log", "3.log.1", "4.log", "4.log.2", "5.log", "termination-3", "termination-4", "note"]
        {
            fs::write(home.path().join(name), "").unwrap();
        }
        files.prepare(5).unwrap();
        let mut left: Vec<String> = fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["4.log", "4.log.2", "5.log", "note", "termination-4"]);
    }
}
