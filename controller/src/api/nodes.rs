//! `/nodes`

use axum::extract::{Path, State};
use axum::response::Json;

use super::Api;
use super::error::Answer;
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
