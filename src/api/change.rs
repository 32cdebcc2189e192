//! What a client may send for a pod, and what of an existing pod it may change (design 9.5).

use probe_core::model::pod::{PodSpec, Role};
use serde_json::{Map, Value};

use super::error::{ApiError, Cause};
use super::pods::bad_json;
use crate::store::PodObject;

/// The API server's words for a stale resourceVersion.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Fields that the server sets and a client sends back when it edits what it has read.
const SERVER_METADATA: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "selfLink",
];

/// A pod as it was sent, without what only the server sets.
pub struct Sent {
    /// JSON for the parser.
    pub body: Vec<u8>,
    /// Empty when it has none: the parser says so.
    pub name: Box<str>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Sent {
    /// # Errors
    /// Not a JSON object, or not a `v1` `Pod`.
    pub fn read(body: &[u8], node_name: &str) -> Result<Sent, ApiError> {
        let mut object: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| bad_json(&error))?;
        let kind = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (kind("apiVersion"), kind("kind"));
        if (&*version, &*kind) != ("v1", "Pod") {
            let text = format!(
                "the object provided is a \"{version}, Kind={kind}\", and only \"v1, Kind=Pod\" is served here"
            );
            return Err(ApiError::BadRequest(text));
        }
        object.remove("status");
        if let Some(Value::Object(spec)) = object.get_mut("spec")
            && spec.get("nodeName").and_then(Value::as_str) == Some(node_name)
        {
            spec.remove("nodeName");
        }
        let mut taken = Map::new();
        let mut name = String::new();
        let mut namespace = None;
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
            name = text("name").unwrap_or_default();
            namespace = text("namespace");
            let removed = SERVER_METADATA.iter().filter_map(|key| metadata.remove_entry(*key));
            taken = removed.collect();
        }
        let text = |key: &str| taken.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(Sent {
            uid: text("uid").filter(|uid| !uid.is_empty()),
            resource_version: text("resourceVersion").filter(|version| !version.is_empty()),
            body: Value::Object(object).to_string().into_bytes(),
            name: name.into(),
            namespace,
        })
    }

    /// # Errors
    /// The object names another namespace than the request.
    pub fn check_namespace(&self, requested: &str) -> Result<(), ApiError> {
        match self.namespace.as_deref() {
            None | Some("") => Ok(()),
            Some(own) if own == requested => Ok(()),
            Some(_) => Err(ApiError::BadRequest(
                "the namespace of the provided object does not match the namespace sent on the request"
                    .into(),
            )),
        }
    }

    /// # Errors
    /// The object names another pod than `existing`, or an older version of it.
    pub fn check_target(&self, existing: &PodObject) -> Result<(), ApiError> {
        let spec = &*existing.snapshot.spec;
        if self.name != spec.name {
            return Err(ApiError::BadRequest(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                self.name, spec.name
            )));
        }
        if self.uid.as_deref().is_some_and(|uid| uid != spec.uid.to_string()) {
            return Err(conflict(spec, "Precondition failed: the UID is another one"));
        }
        if self.resource_version.as_deref().is_some_and(|version| version != existing.version.to_string()) {
            return Err(conflict(spec, MODIFIED));
        }
        Ok(())
    }
}

/// `409 Conflict` about this pod.
pub fn conflict(spec: &PodSpec, problem: &'static str) -> ApiError {
    ApiError::Conflict { name: spec.name.clone(), problem }
}

/// Whether `new` differs from `old` only in metadata and in the specs of the same containers.
///
/// # Errors
/// The cause, which names what else differs.
pub fn check(old: &PodSpec, new: &PodSpec) -> Result<(), Cause> {
    let mut other = differing_fields(&old.manifest_json, &new.manifest_json);
    let same_containers = old.containers.len() == new.containers.len()
        && old
            .containers
            .iter()
            .zip(&new.containers)
            .all(|(old, new)| old.name == new.name && old.role == new.role);
    if !same_containers {
        let list = |role: fn(Role) -> bool| {
            let names = |pod: &PodSpec| -> Vec<(Box<str>, Role)> {
                let own = pod.containers.iter().filter(|container| role(container.role));
                own.map(|container| (container.name.clone(), container.role)).collect()
            };
            names(old) != names(new)
        };
        if list(|role| role == Role::Regular) {
            other.push("spec.containers[*].name".into());
        }
        if list(|role| role != Role::Regular) {
            other.push("spec.initContainers[*].name".into());
        }
    }
    if other.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Forbidden: pod updates may not change fields other than `metadata`,`spec.containers[*]`,`spec.initContainers[*]` (changed: {})",
        other.join(", ")
    );
    Err(Cause { reason: "FieldValueForbidden".into(), field: "spec".into(), message: message.into() })
}

/// Fields of the pod's spec that differ, containers apart.
fn differing_fields(old: &str, new: &str) -> Vec<String> {
    let spec = |manifest: &str| -> Map<String, Value> {
        let mut manifest: Value = serde_json::from_str(manifest).unwrap_or_default();
        match manifest.get_mut("spec").map(Value::take) {
            Some(Value::Object(mut spec)) => {
                spec.retain(|key, _| key != "containers" && key != "initContainers");
                spec
            }
            Some(_) | None => Map::new(),
        }
    };
    let (old, new) = (spec(old), spec(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).map(|key| format!("spec.{key}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::samples::spec;

    fn edited(edit: impl FnOnce(&mut Value)) -> PodSpec {
        let mut pod = spec(1, "a", &["main"]);
        let mut manifest: Value = serde_json::from_str(&pod.manifest_json).unwrap();
        edit(&mut manifest);
        pod.manifest_json = manifest.to_string().into();
        pod
    }

    #[test]
    fn only_metadata_and_container_specs_may_change() {
        let old = spec(1, "a", &["main"]);
        assert_eq!(check(&old, &edited(|pod| pod["metadata"]["labels"] = json!({"a": "b"}))), Ok(()));
        assert_eq!(
            check(&old, &edited(|pod| pod["spec"]["containers"][0]["command"] = json!(["x"]))),
            Ok(())
        );
        let changed = |new: &PodSpec| {
            let message = check(&old, new).unwrap_err().message;
            message.split_once("(changed: ").unwrap().1.trim_end_matches(')').to_owned()
        };
        let policy = edited(|pod| pod["spec"]["restartPolicy"] = json!("Never"));
        assert_eq!(changed(&policy), "spec.restartPolicy");
        let added = edited(|pod| pod["spec"]["hostname"] = json!("h"));
        assert_eq!(changed(&added), "spec.hostname");
        assert_eq!(changed(&spec(1, "a", &["main", "more"])), "spec.containers[*].name");
        assert_eq!(changed(&spec(1, "a", &["other"])), "spec.containers[*].name");
    }

    #[test]
    fn what_the_server_sets_is_taken_off() {
        let body = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "creationTimestamp": null},
            "spec": {"nodeName": "here", "containers": []},
            "status": {"phase": "Running"},
        });
        let sent = Sent::read(body.to_string().as_bytes(), "here").unwrap();
        let left: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(
            left,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": []}})
        );
        assert_eq!((sent.uid.as_deref(), sent.resource_version.as_deref()), (Some("u"), Some("7")));
        let elsewhere = Sent::read(body.to_string().as_bytes(), "there").unwrap();
        assert!(
            String::from_utf8(elsewhere.body).unwrap().contains("nodeName"),
            "another node is the parser's to refuse"
        );
        let other = Sent::read(br#"{"apiVersion":"apps/v1","kind":"Deployment"}"#, "here").err().unwrap();
        assert!(other.to_string().contains("apps/v1, Kind=Deployment"), "{other}");
    }
}
