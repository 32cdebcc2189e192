//! `$(NAME)` references in commands, arguments and environment values.

use std::collections::HashMap;

use crate::model::pod::{ContainerSpec, EnvField, EnvValue};

/// The environment of a container as the spec says it, in manifest order with references expanded. A value
/// sees only the variables before it. A name given twice keeps its first place and its last value.
///
/// `field` answers `valueFrom.fieldRef`.
pub fn environment(container: &ContainerSpec, field: impl Fn(EnvField) -> String) -> Vec<(Box<str>, String)> {
    let mut known: HashMap<&str, String> = HashMap::new();
    let mut order: Vec<&str> = Vec::new();
    for var in &container.env {
        let value = match &var.value {
            EnvValue::Literal(text) => expand(text, |name| known.get(name).map(String::as_str)),
            EnvValue::Field(which) => field(*which),
        };
        if known.insert(&var.name, value).is_none() {
            order.push(&var.name);
        }
    }
    let take = |name: &str| (name.into(), known.get(name).cloned().unwrap_or_default());
    order.into_iter().map(take).collect()
}

/// Command and arguments of a container with references to its environment expanded. `extra` are names that
/// exist beside the environment (`DEFIB`); the environment wins.
pub fn argv(container: &ContainerSpec, env: &[(Box<str>, String)], extra: &[(&str, &str)]) -> Vec<String> {
    let lookup = |name: &str| {
        let in_env = env.iter().find(|(known, _)| &**known == name).map(|(_, value)| value.as_str());
        in_env.or_else(|| extra.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    };
    container.command.iter().chain(&container.args).map(|text| expand(text, lookup)).collect()
}

/// Command of an exec probe. Only literal values count, unexpanded; a `valueFrom` entry counts as known and
/// empty (kubelet-semantics 6).
pub fn probe_argv(command: &[Box<str>], container: &ContainerSpec) -> Vec<Box<str>> {
    let lookup = |name: &str| {
        // Kubelet fills a map in manifest order, so the last entry of a name counts.
        container.env.iter().rev().find(|var| &*var.name == name).map(|var| match &var.value {
            EnvValue::Literal(text) => &**text,
            EnvValue::Field(_) => "",
        })
    };
    command.iter().map(|text| expand(text, lookup).into()).collect()
}

/// Replaces every `$(NAME)` whose name is known. Unknown ones stay; `$$` is a `$` that starts no reference;
/// a lone `$` and an unclosed `$(` stay.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = reference {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = behind;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}
