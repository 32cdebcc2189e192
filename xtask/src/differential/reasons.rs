//! Why defib differs from Go's client, where it does. Each reason stands in docs/conformance.md.

use super::Opinion;
use super::behaviour::Behaviour;

pub fn reason(_behaviour: &Behaviour, _kubelet: &Opinion, _defib: &Opinion) -> Option<&'static str> {
    None
}
