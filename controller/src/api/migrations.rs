//! `/migrations`, and the move itself under its container.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;

use super::error::{Answer, Body, Query};
use super::{Api, Caller};
use crate::service::{MigrateAnswer, MigrateRequest};
use crate::view::MigrationView;

/// How many moves are listed unless said otherwise, and at most.
const LIMIT: u32 = 100;
const MOST: u32 = 10_000;

pub(super) async fn migrate(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(container): Path<String>,
    Body(request): Body<MigrateRequest>,
) -> Answer<Response> {
    Ok(match api.service.migrate(&tenant, &container, request).await? {
        MigrateAnswer::Admission(admission) => Json(admission).into_response(),
        MigrateAnswer::Started(view) => (StatusCode::ACCEPTED, Json(view)).into_response(),
    })
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    container: Option<String>,
    #[serde(default)]
    active: bool,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Vec<MigrationView>>> {
    let limit = query.limit.unwrap_or(LIMIT).min(MOST);
    let container = query.container.as_deref();
    Ok(Json(api.service.migrations(&tenant, container, query.active, limit).await?))
}

pub(super) async fn inspect(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Answer<Json<MigrationView>> {
    Ok(Json(api.service.migration(&tenant, &id).await?))
}

pub(super) async fn cancel(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<MigrationView>)> {
    Ok((StatusCode::ACCEPTED, Json(api.service.cancel(&tenant, &id).await?)))
}
