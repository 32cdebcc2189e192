//! Annotations under defib's own prefix: `defib.dev/<key>` for the pod, `<container>.defib.dev/<key>` for one
//! container (design 9.1). A key that means nothing is a mistake that would go unnoticed, so it is an error.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as k8s;

use super::validate::Errors;
use crate::model::pod::ChildOomPolicy;

const PREFIX: &str = "defib.dev";
const ON_CHILD_OOM: &str = "on-child-oom";
const FIELD: &str = "metadata.annotations";

/// What is wrong with the annotations of a pod, as far as they are defib's.
pub(super) fn check(pod: &k8s::Pod, errors: &mut Errors) {
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        let Some((prefix, name)) = key.split_once('/') else { continue };
        let container = match prefix.strip_suffix(PREFIX) {
            Some("") => None,
            Some(container) if container.ends_with('.') => Some(container.trim_end_matches('.')),
            Some(_) | None => continue,
        };
        match (container, name) {
            (None, super::load::BASE_DIR_KEY) => {}
            (container, ON_CHILD_OOM) => {
                if container.is_some_and(|name| !has_container(pod, name)) {
                    errors.invalid_text(FIELD, key, "the pod has no container of this name");
                }
                if ChildOomPolicy::parse(value).is_none() {
                    let known = ChildOomPolicy::ALL.map(ChildOomPolicy::as_str);
                    errors.unsupported(&format!("{FIELD}[{key}]"), value, &known);
                }
            }
            _ => errors.invalid_text(FIELD, key, "defib knows no such annotation"),
        }
    }
}

/// `on-child-oom` of one container: its own, else the pod's; None when it has neither.
pub(super) fn on_child_oom(
    annotations: Option<&BTreeMap<String, String>>,
    container: &str,
) -> Option<ChildOomPolicy> {
    let value = |key: &str| annotations?.get(key);
    value(&format!("{container}.{PREFIX}/{ON_CHILD_OOM}"))
        .or_else(|| value(&format!("{PREFIX}/{ON_CHILD_OOM}")))
        .and_then(|value| ChildOomPolicy::parse(value))
}

fn has_container(pod: &k8s::Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|one| one.name == name)
}
