//! `godwit volume`.

use serde::Deserialize;

use super::{Context, items};
use crate::error::Failure;
use crate::render::{Format, cell, maybe};

#[derive(Deserialize)]
struct Volume {
    name: String,
    node: String,
    container: Option<String>,
}

/// Lists volumes.
pub(super) async fn ls(context: &Context, format: &Format) -> Result<(), Failure> {
    let volumes = items(&context.client, context.client.get(&["volumes"], &[]).await?)?;
    context.screen.list(format, &volumes, ["NAME", "NODE", "CONTAINER"], |volume: Volume| {
        [cell(&volume.name), cell(&volume.node), maybe(volume.container, |name| name)]
    })
}

/// Removes volumes.
pub(super) async fn rm(context: &Context, names: &[String]) -> Result<(), Failure> {
    let act = async |name: &str| {
        context.client.delete(&["volumes", name], &[]).await?;
        context.screen.line(name)
    };
    context.each(names, act).await
}
