//! What `probe` prints: each phase with its time, then the verdict.

use probe_core::model::text::visible;
use serde_json::Value;

/// The phases in the order in which they happen, and what is said when one has ended.
const PHASES: [(&str, &str); 6] = [
    ("resolvedNs", "name resolved"),
    ("submittedNs", "submitted"),
    ("connectedNs", "connected"),
    ("sentNs", "request sent"),
    ("firstByteNs", "first byte"),
    ("doneNs", "done"),
];

/// The text of a `result` of the API (`api::result_json`). Times are microseconds: since the start, and
/// since the phase before.
pub fn result(result: &Value) -> String {
    let mut rows = vec![["PHASE".to_owned(), "AT".to_owned(), "TOOK".to_owned()]];
    let mut before_ns = 0;
    for (key, label) in PHASES {
        let Some(at_ns) = result["phases"][key].as_u64() else { continue };
        let took_ns = at_ns.saturating_sub(before_ns);
        rows.push([label.to_owned(), micros(at_ns), micros(took_ns)]);
        before_ns = at_ns;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    let mut out = String::new();
    for [label, at, took] in &rows {
        out.push_str(&format!("{label:first$}   {at:>second$}   {took:>third$}\n"));
    }
    out.push_str(result["verdict"].as_str().unwrap_or("unknown"));
    if let Some(detail) = result["detail"].as_str().filter(|detail| !detail.is_empty()) {
        out.push_str(": ");
        out.push_str(&visible(detail.trim_end()));
    }
    out.push('\n');
    out
}

/// Whether the exit code is 0: a warning counts as success (kubelet-semantics 8).
pub fn is_success(result: &Value) -> bool {
    matches!(result["verdict"].as_str(), Some("success" | "warning"))
}

fn micros(ns: u64) -> String {
    format!("{}.{}µs", ns / 1_000, ns % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn phases_and_verdict() {
        let failure = json!({
            "verdict": "failure",
            "detail": "HTTP probe failed with statuscode: 503",
            "phases": {
                "resolvedNs": null, "submittedNs": 1_200, "connectedNs": 41_000, "sentNs": 52_350,
                "firstByteNs": 1_204_000, "doneNs": 1_204_000,
            },
        });
        let expected = "\
PHASE                AT       TOOK
submitted         1.2µs      1.2µs
connected        41.0µs     39.8µs
request sent     52.3µs     11.3µs
first byte     1204.0µs   1151.6µs
done           1204.0µs      0.0µs
failure: HTTP probe failed with statuscode: 503
";
        assert_eq!(result(&failure), expected);
        assert!(!is_success(&failure));
        let loud = json!({"verdict": "failure", "detail": "\x1b[2Jbody\n", "phases": {}});
        assert_eq!(result(&loud), "PHASE   AT   TOOK\nfailure: ^[[2Jbody\n");
        let success = json!({"verdict": "success", "detail": null, "phases": {"doneNs": 90_000}});
        assert_eq!(result(&success), "PHASE       AT     TOOK\ndone    90.0µs   90.0µs\nsuccess\n");
        assert!(is_success(&success));
    }
}
