//! The merged view and the texts of probe events (kubelet-semantics 8, 17).

use super::world::{POD, at_s, now_s};
use crate::decide::events::{MergedEvents, SIMILAR_MAX};
use crate::decide::messages::probe_event;
use crate::model::event::{PodEvent, Reason};
use crate::model::pod::Role;
use crate::model::probe::{Phases, ProbeKind, RunResult, Target, Verdict};

fn event(container: &str, reason: Reason, message: &str, s: u64) -> PodEvent {
    PodEvent {
        pod: POD,
        namespace: "ns".into(),
        pod_name: "p".into(),
        container: Some((Role::Regular, container.into())),
        reason,
        message: message.into(),
        at: now_s(s),
    }
}

fn table(merged: &MergedEvents) -> Vec<(u32, String)> {
    merged.iter().map(|line| (line.count, line.event.message.to_string())).collect()
}

#[test]
fn identical_events_are_counted() {
    let mut merged = MergedEvents::new(100);
    for s in 1..=3 {
        merged.add(event("a", Reason::Unhealthy, "same", s));
    }
    merged.add(event("b", Reason::Unhealthy, "same", 4));
    merged.add(event("a", Reason::BackOff, "same", 5));
    let counts: Vec<u32> = merged.iter().map(|line| line.count).collect();
    assert_eq!(counts, [3, 1, 1], "container and reason tell events apart");
    let first = merged.iter().next().unwrap();
    assert_eq!((first.first, first.last), (now_s(1), now_s(3)));
}

#[test]
fn similar_events_collapse() {
    let mut merged = MergedEvents::new(100);
    let texts: Vec<String> = (0..SIMILAR_MAX + 3).map(|n| format!("m{n}")).collect();
    for (s, text) in (0..).zip(&texts) {
        merged.add(event("a", Reason::Unhealthy, text, s));
    }
    // One that stands alone already is counted there even now.
    merged.add(event("a", Reason::Unhealthy, "m0", 20));
    let mut expected: Vec<(u32, String)> = texts[1..SIMILAR_MAX].iter().map(|t| (1, t.clone())).collect();
    expected.push((3, "(combined from similar events): m12".to_owned()));
    expected.push((2, "m0".to_owned()));
    assert_eq!(table(&merged), expected);
    // After a pause of more than ten minutes the count begins anew.
    let added = merged.add(event("a", Reason::Unhealthy, "late", 20 + 601));
    assert_eq!((&*added.line.event.message, added.is_new), ("late", true));
}

#[test]
fn the_oldest_line_makes_room() {
    let mut merged = MergedEvents::new(3);
    for (s, container) in (1..).zip(["a", "b", "c"]) {
        merged.add(event(container, Reason::Started, "x", s));
    }
    merged.add(event("a", Reason::Started, "x", 4));
    let added = merged.add(event("d", Reason::Started, "x", 5));
    let evicted = added.evicted.unwrap();
    assert_eq!(evicted.event.container.unwrap().1.as_ref(), "b", "touched longest ago");
    assert_eq!(merged.len(), 3);
    let gone = merged.expire_before(at_s(5));
    assert_eq!((gone.len(), merged.len()), (2, 1));
    assert!(!merged.is_empty());
}

#[test]
fn probe_events() {
    let run =
        |verdict, detail: &str| RunResult { verdict, detail: Some(detail.into()), phases: Phases::default() };
    let broken = Target::Broken { error: "x".into() };
    let cases = [
        (ProbeKind::Liveness, Target::Exec, Verdict::Success, "ok", None),
        (
            ProbeKind::Liveness,
            Target::Exec,
            Verdict::Failure,
            "",
            Some((Reason::Unhealthy, "Liveness probe failed: ")),
        ),
        (
            ProbeKind::Readiness,
            Target::Exec,
            Verdict::Warning,
            "Probe terminated redirects, Response body: b",
            Some((
                Reason::ProbeWarning,
                "Readiness probe warning: Probe terminated redirects, Response body: b",
            )),
        ),
        (
            ProbeKind::Startup,
            broken,
            Verdict::Errored,
            "e",
            Some((Reason::Unhealthy, "Startup probe errored and resulted in unknown state: e")),
        ),
    ];
    for (kind, target, verdict, detail, expected) in cases {
        let found = probe_event(kind, &target, &run(verdict, detail));
        assert_eq!(found, expected.map(|(reason, text)| (reason, text.to_owned())));
    }
}
