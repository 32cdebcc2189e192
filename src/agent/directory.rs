//! Which pods this node has, by name: the one place where names and ports are handed out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use probe_core::model::id::PodUid;
use probe_core::model::limits::PODS_MAX;
use probe_core::model::pod::{ContainerPort, PodSpec, Protocol};

use crate::api::Refusal;

/// What `PodStatus.reason` and the event say of a pod whose ports are taken.
pub const NODE_PORTS: &str = "NodePorts";

/// All pods that were accepted and are not gone.
#[derive(Default)]
pub struct Directory {
    by_name: BTreeMap<(Box<str>, Box<str>), PodUid>,
    by_uid: HashMap<PodUid, Entry>,
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
        if self.by_uid.len() >= PODS_MAX {
            return Err(Refusal::Full);
        }
        let taken =
            self.by_uid.values().filter(|other| !other.finished).any(|other| clash(&other.spec, spec));
        self.by_name.insert(name, spec.uid);
        self.by_uid.insert(spec.uid, Entry { spec: Arc::clone(spec), finished: taken });
        Ok(if taken { Ports::Taken } else { Ports::Free })
    }

    /// The pod's spec changed in place.
    pub fn replace(&mut self, spec: &Arc<PodSpec>) {
        if let Some(entry) = self.by_uid.get_mut(&spec.uid) {
            entry.spec = Arc::clone(spec);
        }
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
