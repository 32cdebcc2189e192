//! Which pods this node has, by name: the one place where names and ports are handed out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use probe_core::model::id::PodUid;
use probe_core::model::limits::{MANIFESTS_MAX_BYTES, PODS_MAX};
use probe_core::model::pod::{ContainerPort, PodSpec, Protocol};

use crate::api::Refusal;

/// What `PodStatus.reason` and the event say of a pod whose ports are taken.
pub const NODE_PORTS: &str = "NodePorts";

/// All pods that were accepted and are not gone.
#[derive(Default)]
pub struct Directory {
    by_name: BTreeMap<(Box<str>, Box<str>), PodUid>,
    by_uid: HashMap<PodUid, Entry>,
    /// Of all manifests.
    manifest_bytes: usize,
}

struct Entry {
    spec: Arc<PodSpec>,
    /// A finished pod keeps its name and gives up its ports.
    finished: bool,
}

impl Directory {
    /// Takes the pod's name. Returns whether its ports are free; if not, the pod is to be rejected
    /// (design 9.4): it exists, as Failed.
    ///
    /// # Errors
    /// [`Refusal`] when the pod cannot exist at all; nothing was changed.
    pub fn insert(&mut self, spec: &Arc<PodSpec>) -> Result<Ports, Refusal> {
        let name = (spec.namespace.clone(), spec.name.clone());
        if self.by_name.contains_key(&name) {
            return Err(Refusal::Exists);
        }
        if self.by_uid.len() >= PODS_MAX || !self.has_room(spec.manifest_json.len()) {
            return Err(Refusal::Full);
        }
        self.manifest_bytes += spec.manifest_json.len();
        let taken =
            self.by_uid.values().filter(|other| !other.finished).any(|other| clash(&other.spec, spec));
        self.by_name.insert(name, spec.uid);
        self.by_uid.insert(spec.uid, Entry { spec: Arc::clone(spec), finished: taken });
        Ok(if taken { Ports::Taken } else { Ports::Free })
    }

    /// Whether the pod may change from `old` to `new`.
    ///
    /// # Errors
    /// It is gone, is no longer as in `old`, or becomes too large.
    pub fn check_replace(&self, old: &PodSpec, new: &PodSpec) -> Result<(), Refusal> {
        let current = &self.by_uid.get(&new.uid).ok_or(Refusal::Gone)?.spec;
        if current.manifest_json != old.manifest_json || current.base_dir != old.base_dir {
            return Err(Refusal::Modified);
        }
        let growth = new.manifest_json.len().saturating_sub(old.manifest_json.len());
        if self.has_room(growth) { Ok(()) } else { Err(Refusal::Full) }
    }

    /// The pod's spec changed in place.
    pub fn replace(&mut self, spec: &Arc<PodSpec>) {
        if let Some(entry) = self.by_uid.get_mut(&spec.uid) {
            self.manifest_bytes -= entry.spec.manifest_json.len();
            self.manifest_bytes += spec.manifest_json.len();
            entry.spec = Arc::clone(spec);
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.manifest_bytes + bytes <= MANIFESTS_MAX_BYTES
    }

    /// The pod reached phase Succeeded or Failed.
    pub fn finish(&mut self, pod: PodUid) {
        if let Some(entry) = self.by_uid.get_mut(&pod) {
            entry.finished = true;
        }
    }

    /// The pod is gone: its name is free.
    pub fn remove(&mut self, pod: PodUid) {
        if let Some(entry) = self.by_uid.remove(&pod) {
            self.manifest_bytes -= entry.spec.manifest_json.len();
            self.by_name.remove(&(entry.spec.namespace.clone(), entry.spec.name.clone()));
        }
    }

    /// The pod was accepted and is not gone.
    pub fn has(&self, pod: PodUid) -> bool {
        self.by_uid.contains_key(&pod)
    }

    /// Every pod that is not gone.
    pub fn uids(&self) -> Vec<PodUid> {
        self.by_uid.keys().copied().collect()
    }
}

/// Whether the ports of an accepted pod are free.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ports {
    Free,
    Taken,
}

/// Whether two pods want the same host IP, port and protocol. They share the host network, so every
/// container port counts (design 9.4).
fn clash(a: &PodSpec, b: &PodSpec) -> bool {
    let ports = |pod: &PodSpec| -> Vec<(Box<str>, u16, Protocol)> {
        pod.containers.iter().flat_map(|container| &container.ports).map(claim).collect()
    };
    let wanted = ports(b);
    ports(a).iter().any(|(ip, port, protocol)| {
        wanted.iter().any(|(other_ip, other_port, other_protocol)| {
            let same_ip = ip == other_ip || is_any(ip) || is_any(other_ip);
            same_ip && port == other_port && protocol == other_protocol
        })
    })
}

fn claim(port: &ContainerPort) -> (Box<str>, u16, Protocol) {
    let ip = port.host_ip.clone().unwrap_or_default();
    (ip, port.host_port.unwrap_or(port.container_port), port.protocol)
}

fn is_any(ip: &str) -> bool {
    matches!(ip, "" | "0.0.0.0" | "::")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::spec;

    #[test]
    fn a_change_is_of_the_pod_that_was_read() {
        let mut directory = Directory::default();
        let first = spec(1, "a", &["main"]);
        directory.insert(&Arc::new(first.clone())).unwrap();
        let with_manifest = |json: &str| PodSpec { manifest_json: json.into(), ..first.clone() };
        let second = Arc::new(with_manifest("{}"));
        assert_eq!(directory.check_replace(&first, &second), Ok(()));
        directory.replace(&second);
        // Somebody else who had read the first as well.
        assert_eq!(directory.check_replace(&first, &with_manifest("[]")), Err(Refusal::Modified));
        directory.remove(first.uid);
        assert_eq!(directory.check_replace(&second, &second), Err(Refusal::Gone));
        assert_eq!(directory.manifest_bytes, 0);
    }

    #[test]
    fn the_manifests_of_a_node_are_bounded() {
        let mut directory = Directory::default();
        let mut large = spec(1, "a", &["main"]);
        let small = large.clone();
        large.manifest_json = " ".repeat(MANIFESTS_MAX_BYTES).into();
        directory.insert(&Arc::new(large)).unwrap();
        assert_eq!(directory.insert(&Arc::new(spec(2, "b", &["main"]))).unwrap_err(), Refusal::Full);
        directory.replace(&Arc::new(small));
        directory.insert(&Arc::new(spec(2, "b", &["main"]))).unwrap();
    }
}
