//! Refusals over HTTP: a status for each code, and requests that cannot be read.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct ApiError(Refusal);

/// What a handler answers.
pub(super) type Answer<T> = Result<T, ApiError>;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (status(self.0.code), Json(self.0)).into_response()
    }
}

/// The status of a code; one that is not listed says that the state does not allow it.
fn status(code: &str) -> StatusCode {
    match code {
        "bad-request" | "bad-image" | "image-damaged" => StatusCode::BAD_REQUEST,
        "wrong-account" | "wrong-token" => StatusCode::BAD_REQUEST,
        "invalid-name" | "invalid-port" | "invalid-device" | "network-twice"
        | "too-many-networks" | "invalid-volume" | "volume-twice" => StatusCode::BAD_REQUEST,
        "sign-in" | "wrong-password" => StatusCode::UNAUTHORIZED,
        "too-many-failures" => StatusCode::TOO_MANY_REQUESTS,
        "unknown-account" | "unknown-container" | "unknown-node" | "unknown-image"
        | "unknown-migration" | "unknown-network" | "unknown-volume" | "not-found" => {
            StatusCode::NOT_FOUND
        }
        "method-not-allowed" => StatusCode::METHOD_NOT_ALLOWED,
        "shutting-down" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "node-silent" => StatusCode::GATEWAY_TIMEOUT,
        "disk-full" => StatusCode::INSUFFICIENT_STORAGE,
        "internal" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::CONFLICT,
    }
}

fn bad_request(why: String) -> ApiError {
    Refusal::new("bad-request", why, "docs/REST.md shows the request with its fields").into()
}

/// A JSON body, whatever its content type: `curl -d` says none that fits.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|rejection| bad_request(rejection.body_text()))?;
        // No body at all means: everything as it is by default.
        let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
        Json::from_bytes(bytes)
            .map(|Json(body)| Self(body))
            .map_err(|rejection: JsonRejection| bad_request(rejection.body_text()))
    }
}

/// A query string.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection: QueryRejection| bad_request(rejection.body_text()))
    }
}
