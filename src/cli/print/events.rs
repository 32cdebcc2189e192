//! Rows of `get events`: the columns of `kubectl get events`, with the counts of `kubectl events`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::age;
use super::pods::{Columns, Shown};

/// The column heads.
pub fn head(columns: Columns) -> Vec<String> {
    let narrow = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    let wide = [
        "LAST SEEN",
        "TYPE",
        "REASON",
        "OBJECT",
        "SUBOBJECT",
        "SOURCE",
        "MESSAGE",
        "FIRST SEEN",
        "COUNT",
        "NAME",
    ];
    let namespace = (columns.namespace == Shown::Yes).then_some("NAMESPACE");
    let columns: &[&str] = if columns.wide == Shown::Yes { &wide } else { &narrow };
    namespace.iter().chain(columns).map(|text| (*text).to_owned()).collect()
}

/// The row of one event.
pub fn row(event: &Event, columns: Columns, now: Timestamp) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let object = &event.involved_object;
    let kind = text(&object.kind).to_lowercase();
    let target = match object.name.as_deref().unwrap_or_default() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let message = text(&event.message).trim().to_owned();
    let mut row = Vec::new();
    if columns.namespace == Shown::Yes {
        row.push(text(&event.metadata.namespace));
    }
    row.extend([last_seen(event, now), text(&event.type_), text(&event.reason), target]);
    if columns.wide == Shown::Yes {
        row.extend([text(&object.field_path), source(event), message]);
        row.extend([first_seen(event, now), count(event).to_string(), text(&event.metadata.name)]);
    } else {
        row.push(message);
    }
    row
}

/// `3s`, or `2m (x3 over 5m)` for one that happened more than once.
pub fn last_seen(event: &Event, now: Timestamp) -> String {
    let first = first_seen(event, now);
    match count(event) {
        ..=1 => first,
        count => {
            let last = event.last_timestamp.as_ref().map_or(first.clone(), |at| age::since(Some(at), now));
            format!("{last} (x{count} over {first})")
        }
    }
}

/// For sorting: when it last happened.
pub fn last_time(event: &Event) -> Option<Timestamp> {
    let time = event.last_timestamp.as_ref().or(event.first_timestamp.as_ref());
    time.map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0))
}

fn first_seen(event: &Event, now: Timestamp) -> String {
    let event_time = event.event_time.as_ref().map(|time| Time(time.0));
    age::since(event.first_timestamp.as_ref().or(event_time.as_ref()), now)
}

fn count(event: &Event) -> i32 {
    event.count.filter(|count| *count > 0).unwrap_or(1)
}

fn source(event: &Event) -> String {
    let filled = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let from = event.source.as_ref();
    let component = filled(from.and_then(|from| from.component.as_ref()))
        .or_else(|| filled(event.reporting_component.as_ref()))
        .unwrap_or_default();
    let host = filled(from.and_then(|from| from.host.as_ref()))
        .or_else(|| filled(event.reporting_instance.as_ref()));
    match host {
        Some(host) => format!("{component}, {host}"),
        None => component,
    }
}
