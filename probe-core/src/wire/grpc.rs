//! A gRPC call's bytes, and what grpc-go says of an answer that is none (its client of v1.72, the kubelet's).

use std::time::Duration;

use super::http1::quote::quote;

/// Status codes that are given here.
const UNKNOWN: i32 = 2;
const UNIMPLEMENTED: i32 = 12;
pub const INTERNAL: i32 = 13;
pub const UNAVAILABLE: i32 = 14;
const RESOURCE_EXHAUSTED: i32 = 8;
const PERMISSION_DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;
const CANCELED: i32 = 1;

/// Flag and length of a message.
pub const PREFIX_BYTES: usize = 5;
const OK_STATUS: u16 = 200;
/// Most digits of a timeout.
const TIMEOUT_MAX: u128 = 99_999_999;

/// A status other than OK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: i32,
    pub message: String,
}

/// Headers or trailers, as far as they matter.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Fields<'a> {
    pub content_type: Option<&'a [u8]>,
    pub grpc_status: Option<&'a [u8]>,
    pub grpc_message: Option<&'a [u8]>,
}

fn refusal(code: i32, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

/// Judges the first headers: whether a gRPC server speaks. `reason` is the text of `status` (Go's `http.StatusText`).
///
/// # Errors
/// The call ends with this.
pub fn check_head(status: u16, reason: &str, fields: &Fields<'_>) -> Result<(), Refusal> {
    let mut errors = Vec::new();
    if status != OK_STATUS {
        errors.push(format!("unexpected HTTP status code received from server: {status} ({reason})"));
    }
    let is_grpc = fields.content_type.is_some_and(is_grpc);
    match fields.content_type {
        None => errors.push("malformed header: missing HTTP content-type".to_owned()),
        Some(_) if is_grpc => {}
        Some(other) => {
            errors.push(format!("transport: received unexpected content-type {}", quote(other)));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(refusal(code_of_http(status), errors.join("; "))) }
}

/// The status in trailers, or in headers that end the stream.
///
/// # Errors
/// It is not OK.
pub fn check_end(fields: &Fields<'_>) -> Result<(), Refusal> {
    let code = match fields.grpc_status {
        None => UNKNOWN,
        Some(text) => match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
            Some(code) => code,
            None => {
                let text = quote(text);
                let error = format!("transport: malformed grpc-status: strconv.ParseInt: parsing {text}: ");
                return Err(refusal(INTERNAL, error + "invalid syntax"));
            }
        },
    };
    let message = fields.grpc_message.map(decode_message).unwrap_or_default();
    if code == 0 { Ok(()) } else { Err(refusal(code, message)) }
}

/// A body that ended without trailers.
pub fn without_trailers() -> Refusal {
    refusal(INTERNAL, "server closed the stream without sending trailers")
}

/// HTTP/2's error codes in order: their names, and what a stream's reset with one of them means.
const ERRORS: [(&str, i32); 14] = [
    ("NO_ERROR", INTERNAL),
    ("PROTOCOL_ERROR", INTERNAL),
    ("INTERNAL_ERROR", INTERNAL),
    ("FLOW_CONTROL_ERROR", RESOURCE_EXHAUSTED),
    ("SETTINGS_TIMEOUT", INTERNAL),
    ("STREAM_CLOSED", INTERNAL),
    ("FRAME_SIZE_ERROR", INTERNAL),
    ("REFUSED_STREAM", UNAVAILABLE),
    ("CANCEL", CANCELED),
    ("COMPRESSION_ERROR", INTERNAL),
    ("CONNECT_ERROR", INTERNAL),
    ("ENHANCE_YOUR_CALM", RESOURCE_EXHAUSTED),
    ("INADEQUATE_SECURITY", PERMISSION_DENIED),
    ("HTTP_1_1_REQUIRED", INTERNAL),
];

/// The server has reset the stream.
pub fn reset(error: u32) -> Refusal {
    let code = known_error(error).map_or(UNKNOWN, |(_, code)| *code);
    refusal(code, format!("stream terminated by RST_STREAM with error code: {}", error_name(error)))
}

/// An HTTP/2 error code as Go prints it.
fn error_name(error: u32) -> String {
    known_error(error)
        .map_or_else(|| format!("unknown error code 0x{error:x}"), |(name, _)| (*name).to_owned())
}

fn known_error(error: u32) -> Option<&'static (&'static str, i32)> {
    usize::try_from(error).ok().and_then(|at| ERRORS.get(at))
}

/// The connection has ended in the middle of the call; `error` is what reading from it said. A goodbye that came before
/// is told of: error code and debug data.
pub fn broken(error: &str, goodbye: Option<(u32, &[u8])>) -> Refusal {
    let read = format!("error reading from server: {error}");
    let Some((code, debug)) = goodbye else { return refusal(UNAVAILABLE, read) };
    let debug = if debug.is_empty() { String::new() } else { format!(", debug data: {}", quote(debug)) };
    let read = quote(read.as_bytes());
    let code = error_name(code);
    let text = "closing transport due to: connection error: desc =";
    refusal(UNAVAILABLE, format!("{text} {read}, received prior goaway: code: {code}{debug}"))
}

/// The server took no new streams on two connections in a row.
pub fn draining() -> Refusal {
    refusal(UNAVAILABLE, "the connection is draining")
}

/// No second connection for a call that the first one has not processed.
pub fn not_again(error: &str) -> Refusal {
    refusal(UNAVAILABLE, format!("connection error: desc = {}", quote(error.as_bytes())))
}

/// `application/grpc`, bare or with a suffix.
fn is_grpc(content_type: &[u8]) -> bool {
    const BASE: &[u8] = b"application/grpc";
    let lower = content_type.to_ascii_lowercase();
    lower.strip_prefix(BASE).is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// grpc/doc/http-grpc-status-mapping.md.
fn code_of_http(status: u16) -> i32 {
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// Undoes percent-encoding; what is none stays as it is.
fn decode_message(text: &[u8]) -> String {
    let hex = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The header `grpc-timeout`: the smallest unit that eight digits hold, rounded up.
pub fn timeout(time: Duration) -> String {
    const UNITS: [(u128, char); 6] = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let in_unit = |ns: u128| time.as_nanos().div_ceil(ns);
    let found = UNITS.into_iter().find(|(ns, _)| in_unit(*ns) <= TIMEOUT_MAX);
    let (ns, unit) = found.unwrap_or((3_600_000_000_000, 'H'));
    format!("{}{unit}", in_unit(ns))
}

/// A `HealthCheckRequest` as it goes on the wire.
pub fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 16);
    if !service.is_empty() {
        // Field 1, with a length.
        message.push(0x0a);
        let mut left = service.len();
        while left >= 0x80 {
            message.push(left as u8 | 0x80);
            left >>= 7;
        }
        message.push(left as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// Looks at what has come of a message: one that says it is longer than `max_bytes` is not waited for.
///
/// # Errors
/// It does.
pub fn check_length(body: &[u8], max_bytes: usize) -> Result<(), Refusal> {
    let Some([_, length @ ..]) = body.first_chunk::<PREFIX_BYTES>() else { return Ok(()) };
    let length = u32::from_be_bytes(*length) as usize;
    if length <= max_bytes {
        return Ok(());
    }
    let text = format!("grpc: received message larger than max ({length} vs. {max_bytes})");
    Err(refusal(RESOURCE_EXHAUSTED, text))
}

/// The status in the body of an answer, which has ended and whose trailers say OK.
///
/// # Errors
/// What grpc-go says of such a body.
pub fn health_status(body: &[u8], max_bytes: usize) -> Result<i32, Refusal> {
    if body.is_empty() {
        let text = "cardinality violation: received no response message from non-server-streaming RPC";
        return Err(refusal(INTERNAL, text));
    }
    let Some((prefix, rest)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(refusal(INTERNAL, "unexpected EOF"));
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    check_length(body, max_bytes)?;
    let Some((message, rest)) = rest.split_at_checked(length) else {
        return Err(refusal(INTERNAL, "unexpected EOF"));
    };
    match flag {
        0 => {}
        1 => {
            let text = "grpc: compressed flag set with identity or empty encoding";
            return Err(refusal(INTERNAL, text));
        }
        other => {
            return Err(refusal(INTERNAL, format!("grpc: received unexpected payload format {other}")));
        }
    }
    if !rest.is_empty() {
        let text = "cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message";
        return Err(refusal(INTERNAL, text));
    }
    let error =
        "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data";
    status_field(message).ok_or_else(|| refusal(INTERNAL, error))
}

/// Field 1 of a `HealthCheckResponse`, the last one given; others are skipped.
fn status_field(mut message: &[u8]) -> Option<i32> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match (key >> 3, key & 7) {
            (0, _) => return None,
            // An enum is cut to 32 bits.
            (1, 0) => status = varint(&mut message)? as i32,
            (_, 0) => drop(varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
