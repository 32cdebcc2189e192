//! Group GRPC of the conformance cases: the texts. `tests/grpc.rs` runs them against real servers.

use std::time::Duration;

use crate::decide::grpc::{CallEnd, connect_pause, judge};
use crate::model::limits::PROBE_OUTPUT_MAX_BYTES;
use crate::model::probe::Verdict;

/// Case, end, address, timeout in milliseconds, text.
type Case = (&'static str, CallEnd<'static>, &'static str, u64, &'static str);

const CASES: &[Case] = &[
    (
        "GRPC-01",
        CallEnd::NotConnected,
        ":32",
        1_000,
        "timeout: failed to connect service \":32\" within 1s: context deadline exceeded",
    ),
    (
        "GRPC-02",
        CallEnd::NotConnected,
        "127.0.0.1:80",
        60_000,
        "timeout: failed to connect service \"127.0.0.1:80\" within 1m0s: context deadline exceeded",
    ),
    (
        "GRPC-03",
        CallEnd::Answered { status: 2 },
        "h:1",
        1_000,
        "service unhealthy (responded with \"NOT_SERVING\")",
    ),
    ("GRPC-04", CallEnd::TimedOut, "h:1", 2_000, "timeout: health rpc did not complete within 2s"),
    (
        "GRPC-04, said by the server",
        CallEnd::Refused { code: 4, message: "late" },
        "h:1",
        2_000,
        "timeout: health rpc did not complete within 2s",
    ),
    (
        "GRPC-07",
        CallEnd::Refused { code: 12, message: "unknown service grpc.health.v1.Health" },
        "h:1",
        1_000,
        "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown \
     service grpc.health.v1.Health",
    ),
    (
        "section 7, other RPC error",
        CallEnd::Refused { code: 5, message: "unknown service" },
        "h:1",
        1_000,
        "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
    ),
    (
        "section 7, a code that gRPC does not have",
        CallEnd::Refused { code: 77, message: "" },
        "h:1",
        1_000,
        "error: health rpc probe failed: rpc error: code = Code(77) desc = ",
    ),
    (
        "section 7, UNKNOWN",
        CallEnd::Answered { status: 0 },
        "h:1",
        1_000,
        "service unhealthy (responded with \"UNKNOWN\")",
    ),
    (
        "section 7, SERVICE_UNKNOWN",
        CallEnd::Answered { status: 3 },
        "h:1",
        1_000,
        "service unhealthy (responded with \"SERVICE_UNKNOWN\")",
    ),
    (
        "section 7, a status that the protocol does not have",
        CallEnd::Answered { status: -9 },
        "h:1",
        1_000,
        "service unhealthy (responded with \"-9\")",
    ),
];

#[test]
fn every_end_in_kubelets_words() {
    for (case, end, address, timeout_ms, text) in CASES {
        let (verdict, detail) = judge(*end, address, Duration::from_millis(*timeout_ms));
        assert_eq!((verdict, detail.as_deref()), (Verdict::Failure, Some(*text)), "{case}");
    }
}

#[test]
fn grpc_05_grpc_06_serving_is_success_on_any_port() {
    for address in ["10.0.0.1:5000", "[::1]:41234"] {
        let judged = judge(CallEnd::Answered { status: 1 }, address, Duration::from_secs(1));
        assert_eq!(judged, (Verdict::Success, None), "{address}");
    }
}

#[test]
fn a_lack_of_our_own_says_nothing_of_the_target() {
    // ROW-7-02.
    let end = CallEnd::CannotDial { error: "Too many open files (os error 24)" };
    let (verdict, detail) = judge(end, "h:1", Duration::from_secs(1));
    let text = "error: failed to connect service at \"h:1\": Too many open files (os error 24)";
    assert_eq!((verdict, detail.as_deref()), (Verdict::Errored, Some(text)));
    let end =
        CallEnd::CannotTalk { error: "write tcp a->b: write: No buffer space available (os error 105)" };
    let (verdict, detail) = judge(end, "h:1", Duration::from_secs(1));
    let text = "error: health rpc probe failed: rpc error: code = Unavailable desc = write tcp a->b: write: No buffer \
                space available (os error 105)";
    assert_eq!((verdict, detail.as_deref()), (Verdict::Errored, Some(text)));
}

#[test]
fn a_long_message_is_cut() {
    let message = "é".repeat(PROBE_OUTPUT_MAX_BYTES);
    let (_, detail) = judge(CallEnd::Refused { code: 2, message: &message }, "h:1", Duration::from_secs(1));
    assert!(detail.is_some_and(|text| text.len() <= PROBE_OUTPUT_MAX_BYTES));
}

#[test]
fn pauses_between_connections_are_grpc_gos() {
    for (earlier, chance, ms) in [
        (0, 1.0, 1_000),
        (1, 0.0, 1_600),
        (1, -1.0, 1_280),
        (1, 1.0, 1_920),
        (2, 0.0, 2_560),
        (10, 0.0, 109_951),
        (11, 0.0, 120_000),
        (11, 1.0, 144_000),
        (u32::MAX, -1.0, 96_000),
    ] {
        assert_eq!(connect_pause(earlier, chance).as_millis(), ms, "{earlier} {chance}");
    }
}
