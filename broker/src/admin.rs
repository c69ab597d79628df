//! The broker for operators and Prometheus, over HTTP.
//!
//! There is no sign-in here: a broker of its own shows it on loopback only, and whoever embeds one
//! puts [`api`] behind its own.

mod problem;

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::problem::Problem;
use crate::access::Filter;
use crate::control::Control;
use crate::exposition::CONTENT_TYPE as OPEN_METRICS;
use crate::report::{Inventory, RetainedReport, SessionReport, TopicReport};

/// How many retained messages are told of at a time, and at the most.
const PAGE: usize = 1_000;
const MAX_PAGE: usize = 10_000;

/// Why operators cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Everybody on the network could cut clients off.
    #[error(
        "{0} can be reached from other machines, and there is no sign-in: take 127.0.0.1, or say \
         `admin-anywhere = true` if only those who may can reach it"
    )]
    Reachable(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {address} for operators: is it another program's?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Takes the address, which must be of loopback unless `is_anywhere`.
///
/// # Errors
/// When it is not, or cannot be had.
pub async fn bind(address: SocketAddr, is_anywhere: bool) -> Result<TcpListener, AdminError> {
    if !address.ip().to_canonical().is_loopback() && !is_anywhere {
        return Err(AdminError::Reachable(address));
    }
    TcpListener::bind(address).await.map_err(|source| AdminError::Listen { address, source })
}

/// Answers until `shutdown`.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    control: Control,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let is_local = listener.local_addr()?.ip().to_canonical().is_loopback();
    let guarded = router(control)
        .layer(from_fn(move |request, next| refuse_browsers(is_local, request, next)));
    axum::serve(listener, guarded).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Everything, with its path.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .with_state(control.clone())
        .nest("/api/v1/broker", api(control))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
}

/// What there is below `/api/v1/broker`, for whoever embeds the broker.
pub fn api<S: Clone + Send + Sync + 'static>(control: Control) -> Router<S> {
    Router::new()
        .route("/clients", get(clients))
        .route("/clients/{client}", delete(kick))
        .route("/sessions", get(sessions))
        .route("/retained", get(retained))
        .route("/topics", get(topics))
        .route("/inventory", get(inventory))
        .route("/reload", post(reload))
        .route("/metrics", get(metrics))
        .with_state(control)
}

type Answer<T> = Result<Json<T>, Problem>;

async fn clients(State(control): State<Control>) -> Answer<Vec<SessionReport>> {
    Ok(Json(control.clients().await?))
}

async fn sessions(State(control): State<Control>) -> Answer<Vec<SessionReport>> {
    Ok(Json(control.sessions().await?))
}

async fn topics(State(control): State<Control>) -> Answer<Vec<TopicReport>> {
    Ok(Json(control.topics().await?))
}

async fn inventory(State(control): State<Control>) -> Answer<Inventory> {
    Ok(Json(control.inventory().await?))
}

#[derive(Deserialize)]
struct Wanted {
    filter: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn retained(
    State(control): State<Control>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Answer<Vec<RetainedReport>> {
    let Query(Wanted { filter, after, limit }) = wanted?;
    let filter = filter.as_deref().unwrap_or("#");
    filter.parse::<Filter>().map_err(|error| Problem::bad_request(error.to_string()))?;
    let limit = limit.unwrap_or(PAGE).min(MAX_PAGE);
    Ok(Json(control.retained(filter, after.as_deref(), limit).await?))
}

#[derive(Deserialize)]
struct Whose {
    user: Option<String>,
}

async fn kick(
    State(control): State<Control>,
    Path(client): Path<String>,
    whose: Result<Query<Whose>, axum::extract::rejection::QueryRejection>,
) -> Answer<Value> {
    let Query(Whose { user }) = whose?;
    match control.kick(user.as_deref(), &client).await? {
        0 => Err(Problem::unknown_client(user.as_deref(), &client)),
        disconnected => Ok(Json(json!({ "client": client, "disconnected": disconnected }))),
    }
}

async fn reload(State(control): State<Control>) -> Answer<Value> {
    // It reads files.
    let reloaded = spawn_blocking(move || control.reload()).await;
    match reloaded {
        Ok(Ok(())) => Ok(Json(json!({ "reloaded": true }))),
        Ok(Err(error)) => Err(Problem::not_reloaded(&error)),
        Err(panicked) => Err(Problem::not_reloaded(&panicked)),
    }
}

async fn metrics(State(control): State<Control>) -> Response {
    ([(CONTENT_TYPE, OPEN_METRICS)], control.exposition().await).into_response()
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    round_trip_us: u64,
}

async fn health(State(control): State<Control>) -> Answer<Health> {
    let took = control.health().await?;
    let round_trip_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    Ok(Json(Health { status: "ok", round_trip_us }))
}

/// A page that an operator's browser shows must not give orders in their name, nor read by a name
/// that leads here.
async fn refuse_browsers(is_local: bool, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let is_elsewhere = is_local && !host.is_none_or(is_loopback_name);
    if is_elsewhere || request.headers().contains_key(ORIGIN) {
        return Problem::browser().into_response();
    }
    next.run(request).await
}

/// True for a `Host` that names this machine to itself, whatever its port.
pub fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_many_names() {
        for name in ["localhost", "localhost:9883", "127.0.0.1:9883", "[::1]:9883", "[::1]"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in ["localhost.example.org", "10.0.0.1:9883", "evil.example:9883", ""] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[tokio::test]
    async fn an_address_that_others_reach_is_taken_only_when_that_is_meant() {
        let open = "0.0.0.0:0".parse().unwrap();
        let error = bind(open, false).await.unwrap_err();
        assert!(error.to_string().contains("admin-anywhere"), "{error}");
        assert!(bind(open, true).await.is_ok());
        assert!(bind("[::ffff:127.0.0.1]:0".parse().unwrap(), false).await.is_ok());
    }
}
