//! Group GRACE.

use std::time::Duration;

use super::world::{container, pod};
use crate::decide::actions::KillReason::{self, LivenessProbe, Other, StartupProbe};
use crate::decide::grace::{GraceSources, deduct_s, hook_budget, stop_timeout_s, stop_waves};
use crate::model::id::ContainerIx;
use crate::model::pod::{RestartPolicy, Role};

struct Case {
    id: &'static str,
    pod_s: Option<u32>,
    startup_s: Option<u32>,
    liveness_s: Option<u32>,
    deletion_s: Option<u32>,
    reason: KillReason,
    grace_s: u32,
}

const fn case(id: &'static str, pod_s: u32, reason: KillReason, grace_s: u32) -> Case {
    Case { id, pod_s: Some(pod_s), startup_s: None, liveness_s: None, deletion_s: None, reason, grace_s }
}

#[test]
fn which_grace_period_counts() {
    let cases = [
        Case { pod_s: None, ..case("GRACE-01", 0, Other, 2) },
        Case { liveness_s: Some(10), ..case("GRACE-03", 60, LivenessProbe, 10) },
        Case { startup_s: Some(10), ..case("GRACE-04", 60, StartupProbe, 10) },
        Case { startup_s: Some(60), ..case("GRACE-05", 10, StartupProbe, 60) },
        Case { liveness_s: Some(60), ..case("GRACE-06", 10, LivenessProbe, 60) },
        Case { liveness_s: Some(10), ..case("GRACE-07", 60, Other, 60) },
        Case { startup_s: Some(10), ..case("GRACE-08", 60, Other, 60) },
        Case { startup_s: Some(10), liveness_s: Some(30), ..case("GRACE-09", 60, Other, 60) },
        Case { startup_s: Some(10), liveness_s: Some(30), ..case("GRACE-10", 60, StartupProbe, 10) },
        Case { deletion_s: Some(5), liveness_s: Some(9), ..case("13: deletion wins", 60, LivenessProbe, 5) },
        Case { liveness_s: Some(9), ..case("13: only its own probe", 60, StartupProbe, 60) },
        Case { startup_s: Some(9), ..case("13: only its own probe", 60, LivenessProbe, 60) },
    ];
    for case in cases {
        let Case { pod_s, startup_s, liveness_s, deletion_s, .. } = case;
        let sources = GraceSources { deletion_s, pod_s, startup_s, liveness_s };
        assert_eq!(sources.select(case.reason), case.grace_s, "{}", case.id);
    }
}

#[test]
fn what_a_hook_leaves() {
    let hang = |grace_s| hook_budget(grace_s).unwrap_or_default();
    let cases = [
        ("GRACE-13", 30, Duration::from_millis(12_900), 18),
        ("GRACE-14", 5, hang(5), 2),
        ("GRACE-15", 0, hang(0), 2),
    ];
    for (id, grace_s, waited, timeout_s) in cases {
        assert_eq!(stop_timeout_s(grace_s, waited), timeout_s, "{id}");
    }
    assert_eq!(hook_budget(5), Some(Duration::from_secs(5)), "GRACE-14: abandoned after 5 s");
    assert_eq!(hook_budget(0), None, "GRACE-15: skipped");
    assert_eq!(deduct_s(5, Duration::from_secs(9)), 0);
}

#[test]
fn sidecars_stop_last_and_in_reverse() {
    let spec = pod(
        RestartPolicy::Always,
        vec![
            container("init", Role::Init),
            container("side-1", Role::Sidecar),
            container("side-2", Role::Sidecar),
            container("main", Role::Regular),
        ],
    );
    let waves = [vec![ContainerIx(0), ContainerIx(3)], vec![ContainerIx(2)], vec![ContainerIx(1)]];
    assert_eq!(stop_waves(&spec), waves);
}
