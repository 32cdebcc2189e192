//! grpc-go's texts, row by row.

use super::*;

const MAX: usize = 1_000;

fn text(refusal: &Refusal) -> String {
    format!("{} {}", refusal.code, refusal.message)
}

#[test]
fn servers_of_http_that_speak_no_grpc() {
    let head = |status, reason, content_type: Option<&'static str>| {
        let fields = Fields { content_type: content_type.map(str::as_bytes), ..Fields::default() };
        check_head(status, reason, &fields).map_err(|refusal| text(&refusal))
    };
    for good in ["application/grpc", "application/grpc+proto", "application/grpc;x", "Application/GRPC"] {
        assert_eq!(head(200, "OK", Some(good)), Ok(()), "{good}");
    }
    let unexpected = "unexpected HTTP status code received from server:";
    let html = "transport: received unexpected content-type \"text/html\"";
    let missing = "malformed header: missing HTTP content-type";
    let cases = [
        (200, "OK", Some("text/html"), format!("2 {html}")),
        (200, "OK", None, format!("2 {missing}")),
        (200, "OK", Some("application/grpcx"), {
            "2 transport: received unexpected content-type \"application/grpcx\"".to_owned()
        }),
        (404, "Not Found", Some("text/html"), format!("12 {unexpected} 404 (Not Found); {html}")),
        (404, "Not Found", None, format!("12 {unexpected} 404 (Not Found); {missing}")),
        (503, "Service Unavailable", Some("application/grpc"), {
            format!("14 {unexpected} 503 (Service Unavailable)")
        }),
        (400, "Bad Request", Some("text/html"), format!("13 {unexpected} 400 (Bad Request); {html}")),
        (401, "Unauthorized", Some("text/html"), format!("16 {unexpected} 401 (Unauthorized); {html}")),
        (403, "Forbidden", Some("text/html"), format!("7 {unexpected} 403 (Forbidden); {html}")),
        (429, "Too Many Requests", Some("text/html"), {
            format!("14 {unexpected} 429 (Too Many Requests); {html}")
        }),
        (502, "Bad Gateway", Some("text/html"), format!("14 {unexpected} 502 (Bad Gateway); {html}")),
        (504, "Gateway Timeout", Some("text/html"), format!("14 {unexpected} 504 (Gateway Timeout); {html}")),
        (599, "", Some("text/html"), format!("2 {unexpected} 599 (); {html}")),
    ];
    for (status, reason, content_type, wanted) in cases {
        assert_eq!(head(status, reason, content_type), Err(wanted), "{status} {content_type:?}");
    }
}

#[test]
fn the_status_at_the_end() {
    let end = |status: Option<&'static str>, message: Option<&'static str>| {
        let (grpc_status, grpc_message) = (status.map(str::as_bytes), message.map(str::as_bytes));
        let fields = Fields { grpc_status, grpc_message, content_type: None };
        check_end(&fields).map_err(|refusal| text(&refusal))
    };
    assert_eq!(end(Some("0"), Some("ignored")), Ok(()));
    assert_eq!(end(Some("5"), Some("a%20b%C3%A9 100% %zz")), Err("5 a bé 100% %zz".to_owned()));
    assert_eq!(end(Some("77"), None), Err("77 ".to_owned()), "a code that gRPC does not have");
    assert_eq!(end(None, Some("no status")), Err("2 no status".to_owned()));
    let malformed = "13 transport: malformed grpc-status: strconv.ParseInt: parsing \"x\": invalid syntax";
    assert_eq!(end(Some("x"), None), Err(malformed.to_owned()));
}

#[test]
fn resets_and_broken_connections() {
    let reset_is = "stream terminated by RST_STREAM with error code:";
    for (error, wanted) in [
        (0, format!("13 {reset_is} NO_ERROR")),
        (2, format!("13 {reset_is} INTERNAL_ERROR")),
        (3, format!("8 {reset_is} FLOW_CONTROL_ERROR")),
        (7, format!("14 {reset_is} REFUSED_STREAM")),
        (8, format!("1 {reset_is} CANCEL")),
        (11, format!("8 {reset_is} ENHANCE_YOUR_CALM")),
        (12, format!("7 {reset_is} INADEQUATE_SECURITY")),
        (13, format!("13 {reset_is} HTTP_1_1_REQUIRED")),
        (300, format!("2 {reset_is} unknown error code 0x12c")),
    ] {
        assert_eq!(text(&reset(error)), wanted);
    }
    assert_eq!(text(&broken("EOF", None)), "14 error reading from server: EOF");
    let prior = "14 closing transport due to: connection error: desc = \"error reading from server: EOF\", \
                 received prior goaway: code:";
    assert_eq!(text(&broken("EOF", Some((0, b"")))), format!("{prior} NO_ERROR"));
    let debug = format!("{prior} NO_ERROR, debug data: \"graceful_stop\"");
    assert_eq!(text(&broken("EOF", Some((0, b"graceful_stop")))), debug);
}

#[test]
fn timeouts_are_rounded_up_as_grpc_go_encodes_them() {
    for (ns, wanted) in [
        (0, "0n"),
        (99_999_999, "99999999n"),
        (100_000_000, "100000u"),
        (100_000_001, "100001u"),
        (999_999_999, "1000000u"),
        (99_999_999_001, "100000m"),
        (1_000_000_000, "1000000u"),
        (100_000_000_000, "100000m"),
        (99_999_999_000_001, "100000S"),
        (u64::MAX, "5124096H"),
    ] {
        assert_eq!(timeout(Duration::from_nanos(ns)), wanted, "{ns} ns");
    }
    assert_eq!(timeout(Duration::from_secs(100_000_000)), "1666667M");
    assert_eq!(timeout(Duration::from_secs(6_000_000_000_000)), "1666666667H");
}

#[test]
fn requests_and_answers() {
    assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
    assert_eq!(health_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    let long = health_request(&"x".repeat(300));
    assert_eq!((&long[..8], long.len()), (&[0, 0, 0, 1, 0x2f, 0x0a, 0xac, 2][..], 308));

    let status = |body: &[u8]| health_status(body, MAX).map_err(|refusal| text(&refusal));
    let good: [(&[u8], i32); 6] = [
        (&[0, 0, 0, 0, 2, 8, 1], 1),
        (&[0, 0, 0, 0, 0], 0),
        (&[0, 0, 0, 0, 4, 8, 2, 8, 3], 3),
        (&[0, 0, 0, 0, 11, 8, 0xf7, 255, 255, 255, 255, 255, 255, 255, 255, 1], -9),
        // Fields that the protocol does not have: a text, 32 bits, a number.
        (&[0, 0, 0, 0, 13, 0x12, 2, 1, 2, 0x1d, 1, 2, 3, 4, 0x20, 9, 8, 1], 1),
        (&[0, 0, 0, 0, 11, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1], 1),
    ];
    for (body, wanted) in good {
        assert_eq!(status(body), Ok(wanted), "{body:?}");
    }
    let bad: [(&[u8], &str); 9] = [
        (&[], "13 cardinality violation: received no response message"),
        (&[0, 0, 0], "13 unexpected EOF"),
        (&[0, 0, 0, 0, 3, 8, 1], "13 unexpected EOF"),
        (&[0, 0, 1, 0, 0, 8, 1], "8 grpc: received message larger than max (65536 vs. 1000)"),
        (&[1, 0, 0, 0, 2, 8, 1], "13 grpc: compressed flag set with identity or empty encoding"),
        (&[9, 0, 0, 0, 2, 8, 1], "13 grpc: received unexpected payload format 9"),
        (&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 0], "13 cardinality violation: expected <EOF>"),
        (&[0, 0, 0, 0, 1, 8], "13 grpc: failed to unmarshal the received message"),
        (&[0, 0, 0, 0, 2, 0, 1], "13 grpc: failed to unmarshal the received message"),
    ];
    for (body, wanted) in bad {
        let said = status(body);
        assert!(said.as_ref().is_err_and(|said| said.starts_with(wanted)), "{body:?}: {said:?}");
    }
}
