//! `/containers`: 202 means recorded and ordered; the end comes as an event.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use serde::Deserialize;

use super::error::{Answer, Body, Query};
use super::{Api, Caller};
use crate::service::CreateRequest;
use crate::view::ContainerView;

type Ordered = (StatusCode, Json<ContainerView>);

fn ordered(view: ContainerView) -> Ordered {
    (StatusCode::ACCEPTED, Json(view))
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    node: Option<String>,
    state: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Vec<ContainerView>>> {
    let mut containers = api.service.containers(&tenant).await?;
    containers.retain(|one| {
        query.node.as_ref().is_none_or(|node| one.node.as_str() == node)
            && query.state.as_ref().is_none_or(|state| one.state.as_str() == state)
    });
    Ok(Json(containers))
}

pub(super) async fn create(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Body(request): Body<CreateRequest>,
) -> Answer<Ordered> {
    Ok(ordered(api.service.create(&tenant, request).await?))
}

pub(super) async fn inspect(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(container): Path<String>,
) -> Answer<Json<ContainerView>> {
    Ok(Json(api.service.container(&tenant, &container).await?))
}

#[derive(Deserialize)]
pub(super) struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(container): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Answer<Ordered> {
    Ok(ordered(api.service.remove(&tenant, &container, query.force).await?))
}

pub(super) async fn start(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(container): Path<String>,
) -> Answer<Ordered> {
    Ok(ordered(api.service.start(&tenant, &container).await?))
}

pub(super) async fn stop(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(container): Path<String>,
) -> Answer<Ordered> {
    Ok(ordered(api.service.stop(&tenant, &container).await?))
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    tail: Option<u32>,
}

pub(super) async fn logs(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(container): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Answer<impl IntoResponse> {
    let bytes = api.service.logs(&tenant, &container, query.tail).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes))
}
