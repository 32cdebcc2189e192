use std::time::Duration;

use http_body_util::BodyExt;
use probe_core::model::id::{ContainerIx, PodUid};
use probe_core::model::probe::{ProbeKind, Verdict};
use probe_core::model::tally::{Tallied, Tally};

use super::world::with_api;

/// Runs of the first container of a pod: how each ended, and after how many milliseconds.
fn told(uid: u128, kind: ProbeKind, runs: &[(Verdict, u64)]) -> Tallied {
    let mut tally = Tally::default();
    runs.iter().for_each(|(verdict, ms)| tally.count(*verdict, Duration::from_millis(*ms)));
    Tallied { pod: PodUid(uid), container: ContainerIx(0), kind, tally }
}

#[test]
fn probes_are_told_under_kubelets_names() {
    with_api(|world| async move {
        world.publish(7, "b", &["app"]);
        world.publish(8, "a", &["app"]);
        let runs = [(Verdict::Success, 4), (Verdict::Warning, 700), (Verdict::Success, 11_000)];
        *world.agent.tallies.lock().unwrap() = Some(vec![
            vec![told(7, ProbeKind::Liveness, &runs), told(9, ProbeKind::Liveness, &runs)],
            vec![
                told(8, ProbeKind::Readiness, &[(Verdict::Failure, 1), (Verdict::Failure, 1)]),
                told(7, ProbeKind::Startup, &[(Verdict::Errored, 1)]),
            ],
        ]);
        let answer = world.send("GET", "/metrics/probes", "").await;
        assert_eq!(answer.status(), 200);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
        let text =
            String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let uid = |uid| PodUid(uid).to_string();
        let expected = format!(
            "# HELP prober_probe_total Cumulative number of a liveness, readiness or startup probe for a container by result.\n\
             # TYPE prober_probe_total counter\n\
             prober_probe_total{{container=\"app\",namespace=\"default\",pod=\"a\",pod_uid=\"{}\",probe_type=\"Readiness\",result=\"failed\"}} 2\n\
             prober_probe_total{{container=\"app\",namespace=\"default\",pod=\"b\",pod_uid=\"{}\",probe_type=\"Liveness\",result=\"successful\"}} 3\n\
             # HELP prober_probe_duration_seconds Duration in seconds for a probe response.\n\
             # TYPE prober_probe_duration_seconds histogram\n",
            uid(8),
            uid(7)
        );
        assert!(text.starts_with(&expected), "{text}");
        let labels = "container=\"app\",namespace=\"default\",pod=\"b\",probe_type=\"Liveness\"";
        let line = |name: &str, value: &str| format!("prober_probe_duration_seconds_{name} {value}");
        let mut lines = Vec::new();
        for (bound, count) in [
            ("0.005", 1),
            ("0.01", 1),
            ("0.025", 1),
            ("0.05", 1),
            ("0.1", 1),
            ("0.25", 1),
            ("0.5", 1),
            ("1", 2),
            ("2.5", 2),
            ("5", 2),
            ("10", 2),
            ("+Inf", 3),
        ] {
            lines.push(line(&format!("bucket{{{labels},le=\"{bound}\"}}"), &count.to_string()));
        }
        lines.push(line(&format!("sum{{{labels}}}"), "11.704"));
        lines.push(line(&format!("count{{{labels}}}"), "3"));
        assert_eq!(text[expected.len()..].lines().collect::<Vec<_>>(), lines);
    });
}

#[test]
fn too_many_questions_are_refused() {
    with_api(|world| async move {
        let answer = world.get("/metrics/probes").await;
        answer.assert_error(503, "ServiceUnavailable", "as many ask for metrics as may; try again");
    });
}
