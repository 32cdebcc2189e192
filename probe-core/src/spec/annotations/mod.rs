//! Annotations under defib's own prefix: `defib.dev/<key>` for the pod, `<container>.defib.dev/<key>` for one
//! container (design 9.1). A key that means nothing is a mistake that would go unnoticed, so it is an error.
//! `docs/annotations.md` lists them all.

mod authorities;
mod probe;
mod setting;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;

use super::validate::Errors;
use crate::model::pod::{ChildOomPolicy, ContainerSpec};
use crate::model::probe::ProbeKind;

pub(super) use authorities::Authorities;
pub use probe::{Timing, timing};

const PREFIX: &str = "defib.dev";
const ON_CHILD_OOM: &str = "on-child-oom";
const FIELD: &str = "metadata.annotations";

/// The annotations of a pod.
type Annotations = BTreeMap<String, String>;

/// What values are looked at with.
pub(super) struct Context<'a> {
    /// Smallest period between two runs of a probe that this node allows.
    pub min_probe_period: Duration,
    /// What relative paths count from.
    pub folder: &'a Path,
    pub authorities: &'a mut Authorities,
}

/// What is wrong with the annotations of a pod, as far as they are defib's.
pub(super) fn check(pod: &k8s::Pod, context: &mut Context<'_>, errors: &mut Errors) {
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        let Some((prefix, name)) = key.split_once('/') else { continue };
        let container = match prefix.strip_suffix(PREFIX) {
            Some("") => None,
            Some(container) if container.ends_with('.') => Some(container.trim_end_matches('.')),
            Some(_) | None => continue,
        };
        if (container, name) == (None, super::load::BASE_DIR_KEY) {
            if !Path::new(value).is_absolute() {
                errors.invalid_text(&path(key), value, "an absolute path is expected");
            }
            continue;
        }
        let setting = probe::parse_name(name);
        if name != ON_CHILD_OOM && setting.is_none() {
            errors.invalid_text(FIELD, key, unknown(name));
            continue;
        }
        if container.is_some_and(|name| !containers(pod).any(|one| one.name == name)) {
            let names: Vec<&str> = containers(pod).map(|one| one.name.as_str()).collect();
            let text = format!("the pod has no container of this name; it has {}", names.join(", "));
            errors.invalid_text(FIELD, key, text);
            continue;
        }
        match setting {
            Some(at) => probe::check(pod, container, at, (key, value), context, errors),
            None if ChildOomPolicy::parse(value).is_none() => {
                let known = ChildOomPolicy::ALL.map(ChildOomPolicy::as_str);
                errors.unsupported(&path(key), value, &known);
            }
            None => {}
        }
    }
    for one in containers(pod) {
        for kind in ProbeKind::ALL {
            probe::check_together(pod, one, kind, errors);
        }
    }
}

/// Writes what the annotations say into a container. They are known to be right.
pub(super) fn apply(annotations: &Annotations, container: &mut ContainerSpec, context: &mut Context<'_>) {
    let on_child_oom = effective(annotations, &container.name, ON_CHILD_OOM)
        .and_then(|(_, value)| ChildOomPolicy::parse(value));
    container.on_child_oom = on_child_oom.unwrap_or_default();
    container.oom_kills_together = on_child_oom.is_none();
    let name = container.name.clone();
    let probes = [
        (ProbeKind::Startup, &mut container.startup),
        (ProbeKind::Readiness, &mut container.readiness),
        (ProbeKind::Liveness, &mut container.liveness),
    ];
    for (kind, spec) in probes {
        if let Some(spec) = spec {
            probe::apply(annotations, &name, kind, spec, context);
        }
    }
}

/// The annotation of this name that counts for a container, with its whole key: its own, else the pod's.
fn effective<'a>(annotations: &'a Annotations, container: &str, name: &str) -> Option<(&'a str, &'a str)> {
    let found = annotations
        .get_key_value(&format!("{container}.{PREFIX}/{name}"))
        .or_else(|| annotations.get_key_value(&format!("{PREFIX}/{name}")));
    found.map(|(key, value)| (key.as_str(), value.as_str()))
}

fn containers(pod: &k8s::Pod) -> impl Iterator<Item = &k8s::Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// What could have been meant.
fn unknown(name: &str) -> String {
    let probes = ProbeKind::ALL.map(probe::word);
    let settings = setting::Setting::ALL.map(setting::Setting::as_str);
    let is_probe = |word: &str| probes.contains(&word);
    match name.split_once('.') {
        Some((word, _)) if is_probe(word) => {
            format!("defib knows no such setting of a probe; there are {}", settings.join(", "))
        }
        Some((_, rest)) if settings.contains(&rest) => {
            format!("defib knows no such probe; there are {}", probes.join(", "))
        }
        Some(_) | None => format!(
            "defib knows no such annotation; there are {ON_CHILD_OOM}, {} and <probe>.<setting>: docs/annotations.md",
            super::load::BASE_DIR_KEY
        ),
    }
}

/// `metadata.annotations[<key>]`
fn path(key: &str) -> String {
    format!("{FIELD}[{key}]")
}
