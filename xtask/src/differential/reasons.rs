//! Why defib differs from Go's client, where it does. Each reason stands in docs/conformance.md.

use super::Opinion;
use super::behaviour::Behaviour;

/// Stands in docs/conformance.md to the letter.
const OVERSIZED_RECORD: &str = "the TLS library does not tell how long an oversized record says it is";

pub fn reason(_: &Behaviour, kubelet: &Opinion, defib: &Opinion) -> Option<&'static str> {
    let is_same = (&kubelet.verdict, &kubelet.requests) == (&defib.verdict, &defib.requests);
    let without_length = kubelet.text.split(" with length ").next();
    let is_oversized = defib.text.ends_with("tls: oversized record received");
    (is_same && is_oversized && without_length == Some(&defib.text)).then_some(OVERSIZED_RECORD)
}
