//! The pods of the load, made from manifests as everybody's pods are.

use anyhow::{Context, Result};
use peers::{Kind, Load};
use probe_core::model::id::{InstanceId, PodUid};
use probe_core::model::limits::PROBE_PERIOD_MIN_DEFAULT;
use probe_core::model::pod::PodSpec;
use probe_core::spec::{self, JsonContext, LoadOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const CONTAINERS_PER_POD: u32 = 10;

/// Whether the containers are probed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Probes {
    None,
    Liveness { failure_threshold: u32 },
}

/// One pod for each ten targets.
pub fn specs(load: Load, probes: Probes) -> Result<Vec<Arc<PodSpec>>> {
    (0..load.targets.div_ceil(CONTAINERS_PER_POD)).map(|pod| spec(load, probes, pod).map(Arc::new)).collect()
}

/// The target that this container stands for.
pub fn target_of(instance: InstanceId) -> u32 {
    let pod = (instance.pod.0 >> UID_SHIFT) as u32;
    pod * CONTAINERS_PER_POD + u32::from(instance.container.0)
}

/// The target of a container named in an event.
pub fn target_of_names(pod: &str, container: &str) -> Option<u32> {
    let pod: u32 = pod.strip_prefix('p')?.parse().ok()?;
    let place: u32 = container.strip_prefix('c')?.parse().ok()?;
    Some(pod * CONTAINERS_PER_POD + place)
}

/// The pod's number lies in the upper bits of its uid.
const UID_SHIFT: u32 = 64;

fn spec(load: Load, probes: Probes, pod: u32) -> Result<PodSpec> {
    let first = pod * CONTAINERS_PER_POD;
    let targets = first..load.targets.min(first + CONTAINERS_PER_POD);
    let containers: Vec<Value> =
        targets.map(|target| container(load, probes, target, target - first)).collect();
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("p{pod}")},
        "spec": {"containers": containers},
    });
    let uid = PodUid(u128::from(pod) << UID_SHIFT | 1);
    let mut options = LoadOptions {
        strict: false,
        default_initial_delay: Duration::ZERO,
        min_probe_period: PROBE_PERIOD_MIN_DEFAULT,
        new_uid: &mut || uid,
    };
    let context = JsonContext { namespace: "default", base_dir: None };
    let loaded = spec::pod_from_json(manifest.to_string().as_bytes(), &context, &mut options);
    loaded.map(|pod| pod.spec).context("a pod of the load")
}

fn container(load: Load, probes: Probes, target: u32, place: u32) -> Value {
    let mut container = json!({"name": format!("c{place}"), "image": "none", "command": ["/bin/true"]});
    if let Probes::Liveness { failure_threshold } = probes {
        let (host, port) = (load.ip(target).to_string(), load.port_of(target));
        let mut probe = json!({
            "periodSeconds": load.period_ms.div_ceil(1_000),
            "timeoutSeconds": load.timeout_ms.div_ceil(1_000),
            "failureThreshold": failure_threshold,
        });
        match load.kind {
            Kind::Http => {
                probe["httpGet"] = json!({"host": host, "port": port, "path": format!("/t/{target}")});
            }
            Kind::Tcp => probe["tcpSocket"] = json!({"host": host, "port": port}),
        }
        container["livenessProbe"] = probe;
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use probe_core::model::id::ContainerIx;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        load: Load,
    }

    #[test]
    fn every_target_is_one_container() {
        let args = ["x", "--targets", "25", "--period-ms", "1000", "--port", "80"];
        let specs = specs(Cli::parse_from(args).load, Probes::Liveness { failure_threshold: 3 }).unwrap();
        let targets: Vec<u32> = specs
            .iter()
            .flat_map(|spec| {
                spec.indexed().map(|(container, of)| {
                    let named = target_of_names(&spec.name, &of.name).unwrap();
                    let instance = InstanceId { pod: spec.uid, container, restart_count: 0 };
                    assert_eq!(target_of(instance), named);
                    named
                })
            })
            .collect();
        assert_eq!(targets, (0..25).collect::<Vec<u32>>());
        assert_eq!(specs[2].containers.len(), 5);
        assert!(specs[0].containers[ContainerIx(3).at()].liveness.is_some());
    }
}
