//! The REST API: a thin skin over [`Service`], for the command line, dashboards and scripts.
//!
//! Every answer is JSON but logs (text) and events (a stream); every refusal is
//! `{code, message, remedy, reasons}` with a fitting status (`error`). The rules are the
//! services'; here is only how requests are read and answers written.

mod accounts;
mod containers;
mod error;
mod events;
mod images;
mod migrations;
mod networks;
mod nodes;
mod volumes;

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::from_extractor_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use godwit_broker::Control;
use godwit_bus::Link;
use godwit_proto::id::Tenant;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::refusal::Refusal;
use crate::service::Service;
use error::ApiError;

/// The largest request but an image: descriptions are small.
const BODY_BYTES: usize = 1 << 20;

/// What the routes stand on.
#[derive(Clone)]
pub struct Api {
    /// What they ask.
    pub service: Service,
    /// The accounts, where the broker is here.
    pub accounts: Option<Accounts>,
    /// Whether the broker is there.
    pub link: watch::Receiver<Link>,
    /// The broker, if it is this program's.
    pub broker: Option<Control>,
    /// The fabric's id.
    pub fabric: Uuid,
    /// The program ends: so do the event streams.
    pub shutdown: CancellationToken,
}

/// Serves the API until `shutdown`; requests under way are finished, event streams ended.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, api: Api) -> std::io::Result<()> {
    let shutdown = api.shutdown.clone();
    let service = router(api).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Every route.
pub fn router(api: Api) -> Router {
    let broker = broker(&api);
    let v1 = Router::new()
        .nest("/broker", broker)
        .route("/nodes", get(nodes::list))
        .route("/nodes/{node}", get(nodes::inspect))
        .route("/nodes/{node}/fence", post(nodes::fence))
        .route("/containers", get(containers::list).post(containers::create))
        .route("/containers/{container}", get(containers::inspect).delete(containers::remove))
        .route("/containers/{container}/start", post(containers::start))
        .route("/containers/{container}/stop", post(containers::stop))
        .route("/containers/{container}/logs", get(containers::logs))
        .route("/containers/{container}/migrate", post(migrations::migrate))
        .route("/networks", get(networks::list).post(networks::create))
        .route("/networks/{network}", get(networks::inspect).delete(networks::remove))
        .route("/volumes", get(volumes::list))
        .route("/volumes/{volume}", get(volumes::inspect).delete(volumes::remove))
        .route("/migrations", get(migrations::list))
        .route("/migrations/{id}", get(migrations::inspect))
        .route("/migrations/{id}/cancel", post(migrations::cancel))
        .route("/images", get(images::list))
        .route("/images/{*image}", axum::routing::delete(images::remove))
        .route("/events", get(events::stream))
        .route("/accounts", get(accounts::list).post(accounts::add))
        .route("/accounts/{name}", axum::routing::delete(accounts::remove))
        .route("/accounts/{name}/password", post(accounts::password))
        .route("/tokens", post(accounts::invite))
        .route("/authority", get(accounts::authority))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        // After the layer: an image is as large as it is, and streams to the disk.
        .route("/images", post(images::upload).layer(DefaultBodyLimit::disable()));
    Router::new()
        .nest("/api/v1", v1)
        .route("/healthz", get(health))
        .route("/version", get(version))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
}

/// The broker's routes, for operators.
fn broker(api: &Api) -> Router<Api> {
    match &api.broker {
        Some(control) => godwit_broker::admin::api(control.clone())
            .layer(from_extractor_with_state::<accounts::Operator, Api>(api.clone())),
        None => Router::new().route("/{*rest}", any(broker_elsewhere)),
    }
}

async fn broker_elsewhere() -> ApiError {
    Refusal::new(
        "broker-elsewhere",
        "the broker is not this controller's own",
        "ask it where it runs: `godwit broker --url http://HOST:9883`, if it is a godwit-broker \
         with `admin`",
    )
    .into()
}

/// The tenant that a request is for: the default one, until accounts exist.
struct Caller(Tenant);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Tenant::default_tenant()))
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    broker: String,
    store: &'static str,
}

async fn health(State(api): State<Api>) -> Response {
    let link = api.link.borrow().clone();
    let broker = match &link {
        Link::Up => "up".to_owned(),
        Link::Connecting => "connecting".to_owned(),
        Link::Down { why } => format!("down: {why}"),
        Link::Closed => "closed".to_owned(),
    };
    let is_store_well = api.service.is_store_well().await;
    let store = if is_store_well { "ok" } else { "does not answer" };
    if link == Link::Up && is_store_well {
        Json(Health { status: "ok", broker, store }).into_response()
    } else {
        let health = Health { status: "unavailable", broker, store };
        (StatusCode::SERVICE_UNAVAILABLE, Json(health)).into_response()
    }
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    api: &'static str,
    fabric: Uuid,
}

async fn version(State(api): State<Api>) -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION"), api: "v1", fabric: api.fabric })
}

async fn not_found(uri: axum::http::Uri) -> ApiError {
    Refusal::new(
        "not-found",
        format!("there is nothing at {}", uri.path()),
        "the API begins at /api/v1: nodes, containers, networks, volumes, migrations, images, events, broker",
    )
    .into()
}

async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    Refusal::new(
        "method-not-allowed",
        format!("{} does not take {method}", uri.path()),
        "docs/REST.md lists the routes with their methods",
    )
    .into()
}

#[cfg(test)]
mod tests;
