//! `/volumes`

use axum::extract::{Path, State};
use axum::response::Json;

use super::error::Answer;
use super::{Api, Caller};
use crate::view::VolumeView;

pub(super) async fn list(
    State(api): State<Api>,
    Caller(tenant): Caller,
) -> Answer<Json<Vec<VolumeView>>> {
    Ok(Json(api.service.volumes(&tenant).await?))
}

pub(super) async fn inspect(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(volume): Path<String>,
) -> Answer<Json<VolumeView>> {
    Ok(Json(api.service.volume(&tenant, &volume).await?))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(volume): Path<String>,
) -> Answer<Json<VolumeView>> {
    Ok(Json(api.service.remove_volume(&tenant, &volume).await?))
}
