//! Why defib differs from Go's client, where it does. Each reason stands in docs/conformance.md.

use super::Opinion;
use super::behaviour::{Act, Behaviour, Door};

/// Both stand in docs/conformance.md to the letter.
const OVERSIZED_RECORD: &str = "the TLS library does not tell how long an oversized record says it is";
const EARLY_GOODBYE: &str = "the TLS library passes over a close_notify within the handshake";

/// The alert close_notify as a record of its own.
const CLOSE_NOTIFY: &[u8] = b"\x15\x03\x03\x00\x02\x01\x00";

pub fn reason(behaviour: &Behaviour, kubelet: &Opinion, defib: &Opinion) -> Option<&'static str> {
    if (&kubelet.verdict, &kubelet.requests) != (&defib.verdict, &defib.requests) {
        return None;
    }
    let without_length = kubelet.text.split(" with length ").next();
    if defib.text.ends_with("tls: oversized record received") && without_length == Some(&defib.text) {
        return Some(OVERSIZED_RECORD);
    }
    let says_goodbye = behaviour.door == Door::Raw
        && matches!(behaviour.scripts.first().and_then(|script| script.first()), Some(Act::Send(bytes)) if bytes == CLOSE_NOTIFY);
    (says_goodbye && kubelet.text.ends_with(": EOF")).then_some(EARLY_GOODBYE)
}
