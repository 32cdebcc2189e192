//! What the API server refuses, in its words and order (kubelet-semantics 2), for the fields that defib
//! honours, and the few rules of its own. All errors are collected.

mod container;
mod probe;

use std::collections::BTreeSet;
use std::fmt::Display;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{annotations, names};

/// Collects errors in the API server's form.
#[derive(Default)]
pub struct Errors {
    texts: Vec<String>,
}

impl Errors {
    pub fn into_texts(self) -> Vec<String> {
        self.texts
    }

    /// `<path>: Invalid value: <value>: <detail>`; texts are quoted as Go's %q does.
    fn invalid(&mut self, path: &str, value: impl Display, detail: impl Display) {
        self.texts.push(format!("{path}: Invalid value: {value}: {detail}"));
    }

    pub(super) fn invalid_text(&mut self, path: &str, value: &str, detail: impl Display) {
        self.invalid(path, format_args!("{value:?}"), detail);
    }

    fn required(&mut self, path: &str, detail: &str) {
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        self.texts.push(format!("{path}: Required value{detail}"));
    }

    fn forbidden(&mut self, path: &str, detail: &str) {
        self.texts.push(format!("{path}: Forbidden: {detail}"));
    }

    fn duplicate(&mut self, path: &str, value: &str) {
        self.texts.push(format!("{path}: Duplicate value: {value:?}"));
    }

    pub(super) fn unsupported(&mut self, path: &str, value: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let list = list.join(", ");
        self.texts.push(format!("{path}: Unsupported value: {value:?}: supported values: {list}"));
    }

    fn name(&mut self, path: &str, value: &str, wrong: Vec<String>) {
        for detail in wrong {
            self.invalid_text(path, value, detail);
        }
    }
}

/// Everything that is wrong with a defaulted pod.
pub fn pod(pod: &Pod, context: &mut annotations::Context<'_>) -> Vec<String> {
    let mut errors = Errors::default();
    metadata(pod, &mut errors);
    annotations::check(pod, context, &mut errors);
    match &pod.spec {
        None => errors.required("spec", ""),
        Some(spec) => pod_spec(spec, &mut errors),
    }
    errors.into_texts()
}

fn metadata(pod: &Pod, errors: &mut Errors) {
    match pod.metadata.name.as_deref().unwrap_or_default() {
        "" => errors.required("metadata.name", "name or generateName is required"),
        name => errors.name("metadata.name", name, names::subdomain(name)),
    }
    if let Some(namespace) = &pod.metadata.namespace {
        errors.name("metadata.namespace", namespace, names::label(namespace));
    }
}

fn pod_spec(spec: &PodSpec, errors: &mut Errors) {
    let grace_s = spec.termination_grace_period_seconds.unwrap_or_default();
    let mut seen = BTreeSet::new();
    if spec.containers.is_empty() {
        errors.required("spec.containers", "");
    }
    let mut check = |path: String, role: container::Listed, one: &Container, errors: &mut Errors| {
        if !seen.insert(one.name.clone()) && !one.name.is_empty() {
            errors.duplicate(&format!("{path}.name"), &one.name);
        }
        container::check(&path, role, one, grace_s, errors);
    };
    for (at, one) in spec.containers.iter().enumerate() {
        check(format!("spec.containers[{at}]"), container::Listed::Regular, one, errors);
    }
    for (at, one) in spec.init_containers.iter().flatten().enumerate() {
        check(format!("spec.initContainers[{at}]"), container::Listed::Init, one, errors);
    }
    ephemeral(spec, errors);
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    if !["Always", "OnFailure", "Never"].contains(&policy) {
        errors.unsupported("spec.restartPolicy", policy, &["Always", "OnFailure", "Never"]);
    }
    if grace_s < 0 {
        let detail = "must be greater than or equal to 0";
        errors.invalid("spec.terminationGracePeriodSeconds", grace_s, detail);
    }
    if let Some(hostname) = &spec.hostname {
        errors.name("spec.hostname", hostname, names::label(hostname));
    }
    if let Some(context) = &spec.security_context {
        container::id("spec.securityContext.runAsUser", context.run_as_user, errors);
        container::id("spec.securityContext.runAsGroup", context.run_as_group, errors);
    }
}

fn ephemeral(spec: &PodSpec, errors: &mut Errors) {
    for (at, one) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let fields = [
            ("lifecycle", one.lifecycle.is_some()),
            ("livenessProbe", one.liveness_probe.is_some()),
            ("ports", one.ports.is_some()),
            ("readinessProbe", one.readiness_probe.is_some()),
            ("startupProbe", one.startup_probe.is_some()),
        ];
        for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
            let path = format!("spec.ephemeralContainers[{at}].{field}");
            errors.forbidden(&path, "cannot be set for an Ephemeral Container");
        }
    }
}
