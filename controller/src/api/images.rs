//! `/images`: an upload streams to the disk while it is read.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde::Deserialize;

use super::error::{Answer, Query};
use super::{Api, Caller};
use crate::service::RemovedImage;
use crate::view::ImageView;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    node: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Vec<ImageView>>> {
    Ok(Json(match &query.node {
        Some(node) => api.service.images_of(node).await?,
        None => api.service.images(&tenant).await?,
    }))
}

#[derive(Deserialize)]
pub(super) struct UploadQuery {
    name: Option<String>,
}

pub(super) async fn upload(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Query(query): Query<UploadQuery>,
    body: Body,
) -> Answer<(StatusCode, Json<ImageView>)> {
    let pieces = body.into_data_stream();
    let (view, is_new) = api.service.upload_image(&tenant, query.name.as_deref(), pieces).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(view)))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Path(image): Path<String>,
) -> Answer<Json<RemovedImage>> {
    Ok(Json(api.service.remove_image(&tenant, &image).await?))
}
