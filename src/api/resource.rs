//! The kinds that can be listed and watched, behind one trait, so that there is one list and one watch.

use std::borrow::Cow;

use serde_json::Value;

use super::labels::Labels;
use super::object;
use crate::store::{Change, EventObject, Expired, Listed, PodObject, Store};

/// One kind of object.
pub trait Resource: Send + Sync + 'static {
    type Object: Clone + Send + Sync + 'static;
    /// `Pod`; a list is `PodList`.
    const KIND: &'static str;
    /// Fields for a `fieldSelector`.
    const LABELS: &'static [&'static str];

    fn list(store: &Store, namespace: Option<&str>) -> Listed<Self::Object>;
    /// See [`Store::pod_changes`].
    fn changes(store: &Store, version: u64, max: usize) -> Result<Vec<Change<Self::Object>>, Expired>;
    fn namespace(object: &Self::Object) -> &str;
    /// The value of one of [`Resource::LABELS`].
    fn field<'a>(object: &'a Self::Object, label: &str) -> Cow<'a, str>;
    /// For a `labelSelector`. They may change in the life of an object.
    fn labels(object: &Self::Object) -> Labels;
    fn render(object: &Self::Object, node_name: &str) -> Value;
}

pub struct Pods;

impl Resource for Pods {
    type Object = PodObject;
    const KIND: &'static str = "Pod";
    const LABELS: &'static [&'static str] = &["metadata.name", "metadata.namespace"];

    fn list(store: &Store, namespace: Option<&str>) -> Listed<PodObject> {
        store.pods(namespace)
    }

    fn changes(store: &Store, version: u64, max: usize) -> Result<Vec<Change<PodObject>>, Expired> {
        store.pod_changes(version, max)
    }

    fn namespace(object: &PodObject) -> &str {
        &object.snapshot.spec.namespace
    }

    fn field<'a>(object: &'a PodObject, label: &str) -> Cow<'a, str> {
        match label {
            "metadata.name" => Cow::Borrowed(&object.snapshot.spec.name),
            "metadata.namespace" => Cow::Borrowed(&object.snapshot.spec.namespace),
            _ => Cow::Borrowed(""),
        }
    }

    fn labels(object: &PodObject) -> Labels {
        object::labels(object)
    }

    fn render(object: &PodObject, node_name: &str) -> Value {
        object::pod(object, node_name)
    }
}

pub struct Events;

impl Resource for Events {
    type Object = EventObject;
    const KIND: &'static str = "Event";
    const LABELS: &'static [&'static str] = &[
        "metadata.name",
        "metadata.namespace",
        "involvedObject.kind",
        "involvedObject.apiVersion",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.fieldPath",
        "reason",
        "type",
        "source",
        "reportingComponent",
    ];

    fn list(store: &Store, namespace: Option<&str>) -> Listed<EventObject> {
        store.events(namespace)
    }

    fn changes(store: &Store, version: u64, max: usize) -> Result<Vec<Change<EventObject>>, Expired> {
        store.event_changes(version, max)
    }

    fn namespace(object: &EventObject) -> &str {
        &object.line.event.namespace
    }

    fn field<'a>(object: &'a EventObject, label: &str) -> Cow<'a, str> {
        let event = &object.line.event;
        match label {
            "metadata.name" => Cow::Owned(object::event_name(&object.line)),
            "metadata.namespace" | "involvedObject.namespace" => Cow::Borrowed(&event.namespace),
            "involvedObject.kind" => Cow::Borrowed("Pod"),
            "involvedObject.apiVersion" => Cow::Borrowed("v1"),
            "involvedObject.name" => Cow::Borrowed(&event.pod_name),
            "involvedObject.uid" => Cow::Owned(event.pod.to_string()),
            "involvedObject.fieldPath" => Cow::Owned(event.field_path()),
            "reason" => Cow::Borrowed(event.reason.as_str()),
            "type" => Cow::Borrowed(event.reason.severity().as_str()),
            "source" | "reportingComponent" => Cow::Borrowed(object::EVENT_COMPONENT),
            _ => Cow::Borrowed(""),
        }
    }

    fn labels(_: &EventObject) -> Labels {
        Labels::new()
    }

    fn render(object: &EventObject, node_name: &str) -> Value {
        object::event(object, node_name)
    }
}
