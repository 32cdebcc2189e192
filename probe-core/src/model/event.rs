//! Events: what happened to a pod, in kubelet's reasons and wording (kubelet-semantics 17).

use super::id::PodUid;
use super::pod::Role;
use super::time::Now;

/// One raw event. The merged view with counts is made from these (`decide::events`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodEvent {
    pub pod: PodUid,
    pub namespace: Box<str>,
    pub pod_name: Box<str>,
    /// The container it is about, for `involvedObject.fieldPath`; None for the pod.
    pub container: Option<(Role, Box<str>)>,
    pub reason: Reason,
    pub message: Box<str>,
    pub at: Now,
}

impl PodEvent {
    /// `spec.containers{name}`, `spec.initContainers{name}`, or empty for the pod itself.
    pub fn field_path(&self) -> String {
        match &self.container {
            None => String::new(),
            Some((Role::Regular, name)) => format!("spec.containers{{{name}}}"),
            Some((Role::Init | Role::Sidecar, name)) => format!("spec.initContainers{{{name}}}"),
        }
    }
}

/// `type` of an event.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    /// As the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

/// Every reason that defib emits. The severity belongs to the reason.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    Created,
    Started,
    Killing,
    BackOff,
    Unhealthy,
    ProbeWarning,
    /// Of defib's own: many runs of a probe in a row could not be judged.
    ProbeInconclusive,
    Failed,
    FailedPostStartHook,
    FailedPreStopHook,
    NodePorts,
    /// Not one of kubelet's: it never learns of such a death.
    ChildOomKilled,
}

impl Reason {
    /// As the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Created => "Created",
            Reason::Started => "Started",
            Reason::Killing => "Killing",
            Reason::BackOff => "BackOff",
            Reason::Unhealthy => "Unhealthy",
            Reason::ProbeWarning => "ProbeWarning",
            Reason::ProbeInconclusive => "ProbeInconclusive",
            Reason::Failed => "Failed",
            Reason::FailedPostStartHook => "FailedPostStartHook",
            Reason::FailedPreStopHook => "FailedPreStopHook",
            Reason::NodePorts => "NodePorts",
            Reason::ChildOomKilled => "ChildOOMKilled",
        }
    }

    /// The severity that belongs to it (kubelet-semantics 17).
    pub const fn severity(self) -> Severity {
        match self {
            Reason::Created | Reason::Started | Reason::Killing => Severity::Normal,
            Reason::BackOff
            | Reason::Unhealthy
            | Reason::ProbeWarning
            | Reason::ProbeInconclusive
            | Reason::Failed
            | Reason::FailedPostStartHook
            | Reason::FailedPreStopHook
            | Reason::NodePorts
            | Reason::ChildOomKilled => Severity::Warning,
        }
    }
}
