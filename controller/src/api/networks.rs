//! `/networks`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;

use super::error::{Answer, Body};
use super::{Api, Caller};
use crate::service::NetworkRequest;
use crate::view::NetworkView;

pub(super) async fn list(
    State(api): State<Api>,
    Caller(tenant): Caller,
) -> Answer<Json<Vec<NetworkView>>> {
    Ok(Json(api.service.networks(&tenant).await?))
}

pub(super) async fn create(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Body(request): Body<NetworkRequest>,
) -> Answer<(StatusCode, Json<NetworkView>)> {
    Ok((StatusCode::CREATED, Json(api.service.create_network(&tenant, request).await?)))
}

pub(super) async fn inspect(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(network): Path<String>,
) -> Answer<Json<NetworkView>> {
    Ok(Json(api.service.network(&tenant, &network).await?))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(network): Path<String>,
) -> Answer<Json<NetworkView>> {
    Ok(Json(api.service.remove_network(&tenant, &network).await?))
}
