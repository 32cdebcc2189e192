//! Errors as the API server words them: a `Status` object with reason, message and code.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use thiserror::Error;

use super::backend::Refusal;
use super::change::MODIFIED;

/// One wrong field of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueForbidden`, …
    pub reason: Box<str>,
    /// `spec.containers[0].name`; empty for the object as a whole.
    pub field: Box<str>,
    /// `Required value: …`
    pub message: Box<str>,
}

impl Cause {
    fn text(&self) -> String {
        if self.field.is_empty() {
            self.message.to_string()
        } else {
            format!("{}: {}", self.field, self.message)
        }
    }
}

/// Every error that a request can end in.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ApiError {
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// `kind` is the plural: `pods`.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: Box<str> },
    #[error("pods \"{name}\" already exists")]
    AlreadyExists { name: Box<str> },
    #[error("object is being deleted: pods \"{name}\" already exists")]
    BeingDeleted { name: Box<str> },
    #[error("Operation cannot be fulfilled on pods \"{name}\": {problem}")]
    Conflict { name: Box<str>, problem: &'static str },
    #[error("Pod \"{name}\" is invalid: {}", list_of(causes))]
    Invalid { name: Box<str>, causes: Vec<Cause> },
    #[error("{0}")]
    BadRequest(String),
    #[error("too old resource version: {asked} ({oldest})")]
    Expired { asked: u64, oldest: u64 },
    #[error("Too large resource version: {asked}, current: {current}")]
    FutureVersion { asked: u64, current: u64 },
    #[error("Request entity too large: limit is {limit_bytes}")]
    TooLarge { limit_bytes: usize },
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json"
    )]
    MediaType,
    #[error("{0}; try again")]
    Unavailable(&'static str),
    #[error("the request was not completed within {0} seconds")]
    Timeout(u64),
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// How the agent's refusal reads to a client; `name` is the pod's.
    pub fn refused(refusal: Refusal, name: &str) -> ApiError {
        match refusal {
            Refusal::Exists => ApiError::AlreadyExists { name: name.into() },
            Refusal::Gone => ApiError::NotFound { kind: "pods", name: name.into() },
            Refusal::Modified => ApiError::Conflict { name: name.into(), problem: MODIFIED },
            Refusal::Full => ApiError::Unavailable("the node holds as many pods as it can"),
            Refusal::Busy => ApiError::Unavailable("too much is waiting to be done"),
            Refusal::Stopping => ApiError::Unavailable("the agent is stopping"),
        }
    }

    /// The `Status` object (kubernetes `meta/v1.Status`).
    pub fn status(&self) -> Value {
        let (code, reason) = self.code_and_reason();
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": reason,
            "code": code.as_u16(),
        });
        if let Some(details) = self.details() {
            status["details"] = details;
        }
        status
    }

    fn code_and_reason(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::NoSuchPath | ApiError::NotFound { .. } => (StatusCode::NOT_FOUND, "NotFound"),
            ApiError::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            ApiError::AlreadyExists { .. } | ApiError::BeingDeleted { .. } => {
                (StatusCode::CONFLICT, "AlreadyExists")
            }
            ApiError::Conflict { .. } => (StatusCode::CONFLICT, "Conflict"),
            ApiError::Invalid { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            ApiError::BadRequest(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            ApiError::Expired { .. } => (StatusCode::GONE, "Expired"),
            ApiError::FutureVersion { .. } | ApiError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
            ApiError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            ApiError::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
            ApiError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            ApiError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }

    fn details(&self) -> Option<Value> {
        match self {
            ApiError::NotFound { kind, name } => Some(json!({"name": name, "kind": kind})),
            ApiError::AlreadyExists { name }
            | ApiError::BeingDeleted { name }
            | ApiError::Conflict { name, .. } => Some(json!({"name": name, "kind": "pods"})),
            ApiError::Invalid { name, causes } => {
                let cause = |cause: &Cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field});
                Some(
                    json!({"name": name, "kind": "Pod", "causes": causes.iter().map(cause).collect::<Vec<_>>()}),
                )
            }
            ApiError::NoSuchPath
            | ApiError::MethodNotAllowed
            | ApiError::BadRequest(_)
            | ApiError::Expired { .. }
            | ApiError::FutureVersion { .. }
            | ApiError::TooLarge { .. }
            | ApiError::MediaType
            | ApiError::Unavailable(_)
            | ApiError::Timeout(_)
            | ApiError::Internal(_) => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code_and_reason().0, Json(self.status())).into_response()
    }
}

/// One error as it is, several in brackets (apimachinery `errors.Aggregate`).
fn list_of(causes: &[Cause]) -> String {
    match causes {
        [only] => only.text(),
        several => format!("[{}]", several.iter().map(Cause::text).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_pod_names_every_cause() {
        let cause = |field: &str| Cause {
            reason: "FieldValueRequired".into(),
            field: field.into(),
            message: "Required value".into(),
        };
        let one = ApiError::Invalid { name: "x".into(), causes: vec![cause("spec.containers")] };
        assert_eq!(one.to_string(), "Pod \"x\" is invalid: spec.containers: Required value");
        let two = ApiError::Invalid { name: "x".into(), causes: vec![cause("a"), cause("b")] };
        assert_eq!(two.to_string(), "Pod \"x\" is invalid: [a: Required value, b: Required value]");
        let status = two.status();
        assert_eq!(status["code"], 422);
        assert_eq!(status["details"]["causes"][1]["field"], "b");
    }
}
