//! `started` and `ready` of a container (kubelet-semantics 11).

use super::view::{ContainerView, ResultState};
use crate::model::pod::{ContainerSpec, Role};

/// Is the container started: it runs, and its startup probe (if any) has succeeded.
///
/// Kubelet asks whether a startup *worker* exists; sidecars and regular containers have one whenever they
/// have the probe, ordinary init containers have neither.
pub fn started(spec: &ContainerSpec, view: &ContainerView<'_>) -> bool {
    if !view.is_running() {
        return false;
    }
    match view.startup {
        Some(result) => result == ResultState::Success,
        None => spec.startup.is_none(),
    }
}

/// Is the container ready?
pub fn ready(spec: &ContainerSpec, view: &ContainerView<'_>) -> bool {
    match spec.role {
        Role::Init => view.newest.and_then(super::view::Record::exit_code) == Some(0),
        Role::Sidecar | Role::Regular => {
            started(spec, view) && (view.readiness == Some(ResultState::Success) || spec.readiness.is_none())
        }
    }
}

/// Does kubelet poke the readiness probe for this state: started, a readiness probe, no success? The probe
/// then runs at once and not only at its next tick (E2E-C-17).
pub fn pokes_readiness(spec: &ContainerSpec, view: &ContainerView<'_>) -> bool {
    spec.role != Role::Init && spec.readiness.is_some() && started(spec, view) && !ready(spec, view)
}
