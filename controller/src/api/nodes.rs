//! `/nodes`

use axum::extract::{Path, State};
use axum::response::Json;
use serde::Deserialize;

use super::Api;
use super::error::{Answer, Query};
use crate::service::FenceAnswer;
use crate::view::NodeView;

pub(super) async fn list(State(api): State<Api>) -> Json<Vec<NodeView>> {
    Json(api.service.nodes())
}

pub(super) async fn inspect(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> Answer<Json<NodeView>> {
    Ok(Json(api.service.node(&node)?))
}

#[derive(Deserialize)]
pub(super) struct FenceQuery {
    #[serde(default)]
    force: bool,
}

pub(super) async fn fence(
    State(api): State<Api>,
    Path(node): Path<String>,
    Query(query): Query<FenceQuery>,
) -> Answer<Json<FenceAnswer>> {
    Ok(Json(api.service.fence(&node, query.force).await?))
}
