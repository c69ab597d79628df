//! Refusals over HTTP: what is wrong and what to do next, as the controller words them.

use std::error::Error;

use axum::extract::rejection::QueryRejection;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;

use crate::control::NoAnswer;

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    words: Words,
}

#[derive(Debug, Serialize)]
struct Words {
    /// Stable, for programs.
    code: &'static str,
    message: String,
    remedy: &'static str,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: String, remedy: &'static str) -> Self {
        Self { status, words: Words { code, message, remedy } }
    }

    pub(super) fn bad_request(why: String) -> Self {
        let remedy = "docs/OPERATIONS.md shows the requests of the broker";
        Self::new(StatusCode::BAD_REQUEST, "bad-request", why, remedy)
    }

    pub(super) fn unknown_client(user: Option<&str>, client: &str) -> Self {
        let of = user.map(|user| format!(" of user {user}")).unwrap_or_default();
        let message = format!("no client `{client}`{of} is connected");
        let remedy = "`godwit broker clients` lists those that are";
        Self::new(StatusCode::NOT_FOUND, "unknown-client", message, remedy)
    }

    pub(super) fn not_reloaded(error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let remedy = "correct the file and try again; what was read before stays in force";
        Self::new(StatusCode::CONFLICT, "not-reloaded", message, remedy)
    }

    pub(super) fn browser() -> Self {
        let message = "a page of a browser may not ask here".to_owned();
        let remedy = "ask with curl or `godwit broker`, by 127.0.0.1 or localhost";
        Self::new(StatusCode::FORBIDDEN, "browser", message, remedy)
    }
}

impl From<NoAnswer> for Problem {
    fn from(why: NoAnswer) -> Self {
        let remedy = "look into the broker's log, then try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why.to_string(), remedy)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.words)).into_response()
    }
}

pub(super) async fn not_found(uri: Uri) -> Problem {
    let message = format!("there is nothing at {}", uri.path());
    let remedy = "there are /metrics, /healthz and /api/v1/broker: clients, sessions, retained, \
                  topics, inventory, reload";
    Problem::new(StatusCode::NOT_FOUND, "not-found", message, remedy)
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let message = format!("{} does not take {method}", uri.path());
    let remedy = "docs/OPERATIONS.md lists the requests with their methods";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message, remedy)
}
