//! A client of the agent's API: HTTP/1.1 over its Unix socket, one connection per request.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the agent may take to begin an answer. It waits at most ten seconds for itself.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Largest answer that is read whole: a full node's pods fit.
const ANSWER_MAX_BYTES: usize = 512 * 1024 * 1024;
/// Longest line of a watch.
const LINE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Everything that keeps a request from being answered.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error(
        "no agent answers on {}: {problem}; start one with `defib run FILE`, or name its socket with --socket",
        socket.display()
    )]
    Unreachable { socket: PathBuf, problem: io::Error },
    #[error("the agent on {} ended the connection: {problem}", socket.display())]
    Broken { socket: PathBuf, problem: Box<dyn std::error::Error + Send + Sync> },
    #[error("the agent on {} does not answer", socket.display())]
    Silent { socket: PathBuf },
    #[error("the agent on {} answered what is not expected: {problem}", socket.display())]
    Strange { socket: PathBuf, problem: String },
    /// The agent's own words.
    #[error("{0}")]
    Refused(Status),
}

impl ClientError {
    /// Whether nobody answers on the socket (exit code 69), in contrast to an answer that is an error.
    pub fn is_unreachable(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Silent { .. } => true,
            ClientError::Strange { .. } | ClientError::Refused(_) => false,
        }
    }

    /// HTTP status code of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            ClientError::Refused(status) => Some(status.code),
            ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::Silent { .. }
            | ClientError::Strange { .. } => None,
        }
    }
}

/// A `Status` object; it reads as kubectl prints one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub code: u16,
    pub reason: String,
    pub message: String,
    /// Of an invalid object: its kind, its name, and `field: message` of each cause.
    pub invalid: Option<(String, String, Vec<String>)>,
}

impl Status {
    /// From the object, as the API sends it.
    pub fn of(value: &Value) -> Option<Status> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if value["kind"] != "Status" {
            return None;
        }
        let reason = text(&value["reason"]);
        let details = &value["details"];
        let causes = details["causes"].as_array().filter(|_| reason == "Invalid");
        let cause = |cause: &Value| match cause["field"].as_str().unwrap_or_default() {
            "" => text(&cause["message"]),
            field => format!("{field}: {}", text(&cause["message"])),
        };
        Some(Status {
            code: value["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default(),
            message: text(&value["message"]),
            invalid: causes.map(|causes| {
                (text(&details["kind"]), text(&details["name"]), causes.iter().map(cause).collect())
            }),
            reason,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.invalid {
            Some((kind, name, causes)) => {
                write!(f, "The {kind} \"{name}\" is invalid: ")?;
                match &causes[..] {
                    [only] => f.write_str(only),
                    several => several.iter().try_for_each(|cause| write!(f, "\n* {cause}")),
                }
            }
            None if self.reason.is_empty() => write!(f, "Error from server: {}", self.message),
            None => write!(f, "Error from server ({}): {}", self.reason, self.message),
        }
    }
}

/// How long to wait for the start of an answer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Patience {
    Usual,
    /// The answer comes when something has been done that takes its own time.
    AsLongAsItTakes,
}

/// Talks to the agent behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::GET, path, None, Patience::Usual).await
    }

    /// Sends a request with an optional JSON body, and reads a JSON answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Patience,
    ) -> Result<Value, ClientError> {
        let answer = self.request(method, path, body, patience).await?;
        self.json(answer).await
    }

    /// The answer's body as it comes: a log.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(&self, path: &str) -> Result<ByteStream, ClientError> {
        let answer = self.request(Method::GET, path, None, Patience::Usual).await?;
        Ok(ByteStream { socket: self.socket.clone(), body: answer.into_body() })
    }

    /// The answer as one JSON value per line: a watch.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn lines(&self, path: &str) -> Result<LineStream, ClientError> {
        Ok(LineStream { bytes: self.stream(path).await?, rest: Vec::new() })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Patience,
    ) -> Result<Response<Incoming>, ClientError> {
        let answer = self.exchange(method, path, body);
        let answer = match patience {
            Patience::AsLongAsItTakes => answer.await?,
            Patience::Usual => timeout(ANSWER_MAX, answer)
                .await
                .map_err(|_| ClientError::Silent { socket: self.socket.clone() })??,
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status();
        let status = self.json(answer).await.ok().as_ref().and_then(Status::of);
        Err(match status {
            Some(status) => ClientError::Refused(status),
            None => self.strange(format!("HTTP status {code}")),
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |problem| ClientError::Unreachable { socket: self.socket.clone(), problem };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // It ends with the answer's body, or with this client.
        tokio::spawn(connection);
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "defib")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("defib/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| self.strange(format!("{path}: {error}")))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    async fn json(&self, answer: Response<Incoming>) -> Result<Value, ClientError> {
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let bytes =
            body.map_err(|problem| ClientError::Broken { socket: self.socket.clone(), problem })?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| self.strange(error.to_string()))
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), problem: error.into() }
    }

    fn strange(&self, problem: String) -> ClientError {
        ClientError::Strange { socket: self.socket.clone(), problem }
    }
}

/// A body as it comes.
pub struct ByteStream {
    socket: PathBuf,
    body: Incoming,
}

impl ByteStream {
    /// The next piece; None at the end.
    ///
    /// # Errors
    /// The connection broke before the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(ClientError::Broken { socket: self.socket.clone(), problem: error.into() });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// JSON values, one per line.
pub struct LineStream {
    bytes: ByteStream,
    rest: Vec<u8>,
}

impl LineStream {
    /// The next value; None at the end.
    ///
    /// # Errors
    /// The connection broke, or a line is not JSON.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(found) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=searched + found).collect();
                let value = serde_json::from_slice(&line).map_err(|error| self.strange(error.to_string()))?;
                return Ok(Some(value));
            }
            searched = self.rest.len();
            if searched > LINE_MAX_BYTES {
                return Err(self.strange("an endless line".to_owned()));
            }
            match self.bytes.next().await? {
                Some(data) => self.rest.extend_from_slice(&data),
                None => return Ok(None),
            }
        }
    }

    fn strange(&self, problem: String) -> ClientError {
        ClientError::Strange { socket: self.bytes.socket.clone(), problem }
    }
}

/// Runs a verb's future to its end, on a runtime of its own.
///
/// # Errors
/// What the future fails with, or that there is no runtime.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// `/api/v1/namespaces/<namespace>/<rest>`.
pub fn namespaced(namespace: &str, rest: &str) -> String {
    format!("/api/v1/namespaces/{}/{rest}", escaped(namespace))
}

/// `?key=value&…` of those that have a value; empty without any.
pub fn query(pairs: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            text.push_str(&escaped(value));
        }
    }
    text
}

/// One segment of a path, or a value of a query (RFC 3986 section 2.3: all but unreserved characters).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The path as text for a query.
pub fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn queries_are_escaped() {
        let pairs = [("a", Some("x=1&y".to_owned())), ("b", None), ("c", Some("ü".to_owned()))];
        assert_eq!(query(&pairs), "?a=x%3D1%26y&c=%C3%BC");
        assert_eq!(query(&[]), "");
    }

    #[test]
    fn errors_read_as_kubectl_prints_them() {
        let text = |value: Value| Status::of(&value).unwrap().to_string();
        let not_found =
            json!({"kind": "Status", "reason": "NotFound", "message": "pods \"x\" not found", "code": 404});
        assert_eq!(text(not_found), "Error from server (NotFound): pods \"x\" not found");
        let invalid = |causes: Value| {
            let details = json!({"kind": "Pod", "name": "x", "causes": causes});
            text(json!({"kind": "Status", "reason": "Invalid", "message": "m", "details": details}))
        };
        let cause = |field: &str| json!({"field": field, "message": "Required value"});
        assert_eq!(invalid(json!([cause("a")])), "The Pod \"x\" is invalid: a: Required value");
        assert_eq!(
            invalid(json!([cause("a"), cause("")])),
            "The Pod \"x\" is invalid: \n* a: Required value\n* Required value"
        );
        assert_eq!(Status::of(&json!({"kind": "Pod"})), None);
    }

    #[tokio::test]
    async fn without_an_agent_the_socket_is_named() {
        let error = Client::new("/nonexistent/defib.sock".into()).get("/version").await.unwrap_err();
        assert!(error.is_unreachable());
        let text = error.to_string();
        assert!(text.contains("/nonexistent/defib.sock") && text.contains("defib run"), "{text}");
    }
}
