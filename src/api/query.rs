//! Query parameters as the API server reads them.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;

use super::error::ApiError;

/// What axum hands a handler that takes a query.
pub type Taken<T> = Result<Query<T>, QueryRejection>;

/// The query, or `400` in the server's words.
pub fn taken<T>(query: Taken<T>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|rejection| ApiError::BadRequest(rejection.body_text()))
}

/// `meta/v1.ListOptions`. Unknown parameters are ignored, as the API server does; `limit` is, too, since
/// a list is always complete.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ListQuery {
    pub watch: Option<String>,
    pub resource_version: Option<String>,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
    pub allow_watch_bookmarks: Option<String>,
    pub send_initial_events: Option<String>,
    pub timeout_seconds: Option<String>,
}

impl ListQuery {
    pub fn is_watch(&self) -> Result<bool, ApiError> {
        flag("watch", self.watch.as_deref())
    }

    pub fn wants_bookmarks(&self) -> Result<bool, ApiError> {
        flag("allowWatchBookmarks", self.allow_watch_bookmarks.as_deref())
    }

    pub fn wants_initial_events(&self) -> Result<bool, ApiError> {
        flag("sendInitialEvents", self.send_initial_events.as_deref())
    }

    /// None: from now, with everything that exists first. `0` means the same.
    pub fn version(&self) -> Result<Option<u64>, ApiError> {
        let version = number("resourceVersion", self.resource_version.as_deref())?;
        Ok(version.filter(|version| *version > 0))
    }

    pub fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let seconds = number("timeoutSeconds", self.timeout_seconds.as_deref())?;
        Ok(seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }
}

/// A boolean parameter: absent, `true`, `1`, empty (as in `?watch`), `false` or `0`.
pub fn flag(name: &str, text: Option<&str>) -> Result<bool, ApiError> {
    match text {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => Err(bad(name, other)),
    }
}

/// A number that is not negative; absent and empty are None.
pub fn number(name: &str, text: Option<&str>) -> Result<Option<u64>, ApiError> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| bad(name, text)),
    }
}

fn bad(name: &str, text: &str) -> ApiError {
    ApiError::BadRequest(format!("{name}: Invalid value: \"{text}\""))
}
