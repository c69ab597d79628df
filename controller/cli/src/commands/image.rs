//! `godwit image`.

use std::io::{self, IsTerminal};
use std::path::Path;

use futures_util::TryStreamExt;
use reqwest::Body;
use serde::Deserialize;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::{Context, items};
use crate::api::Image;
use crate::error::{Failure, say};
use crate::human;
use crate::progress::SendProgress;
use crate::render::{Format, cell, maybe, read};

/// Bytes that are read and sent at a time.
const CHUNK: usize = 256 * 1024;

/// Brings an image to the controller; memory stays small whatever its size.
pub(super) async fn load(
    context: &Context,
    file: &Path,
    name: Option<&str>,
    format: &Format,
) -> Result<(), Failure> {
    let (source, length) = open(file).await?;
    let shown =
        if file == Path::new("-") { "standard input".into() } else { file.to_string_lossy() };
    let progress = SendProgress::new(&shown, length, context.colours);
    let counter = progress.clone();
    let chunks = ReaderStream::with_capacity(source, CHUNK)
        .inspect_ok(move |chunk| counter.sent(chunk.len() as u64));
    let query: Vec<_> = name.iter().map(|name| ("name", *name)).collect();
    let loaded =
        context.client.upload(&["images"], &query, Body::wrap_stream(chunks), length).await;
    progress.end();
    let loaded = loaded?;
    context.screen.object(format, &loaded, || {
        let image: Image = read(&loaded)?;
        let name = image.names.first().map_or(image.id.as_str(), String::as_str);
        Ok(format!("Loaded image: {name}"))
    })
}

/// Opens a file, or standard input for `-`; with its length if it has one.
async fn open(file: &Path) -> Result<(Box<dyn AsyncRead + Send + Unpin>, Option<u64>), Failure> {
    if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            return Err(Failure::Usage {
                message: "standard input is a terminal, not an image".to_owned(),
                remedy: Some("`podman save IMAGE | godwit image load -`".to_owned()),
            });
        }
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let failure = |source| Failure::Io { what: format!("read {}", file.display()), source };
    let opened = tokio::fs::File::open(file).await.map_err(failure)?;
    let metadata = opened.metadata().await.map_err(failure)?;
    if metadata.is_dir() {
        return Err(failure(io::ErrorKind::IsADirectory.into()));
    }
    // A pipe (`<(podman save …)`) has a name and no length.
    Ok((Box::new(opened), metadata.is_file().then_some(metadata.len())))
}

/// Lists images.
pub(super) async fn ls(
    context: &Context,
    node: Option<&str>,
    format: &Format,
) -> Result<(), Failure> {
    let query: Vec<_> = node.iter().map(|node| ("node", *node)).collect();
    let images = items(&context.client, context.client.get(&["images"], &query).await?)?;
    let header = ["NAME", "IMAGE ID", "SIZE", "ARCH", "CONTAINERS", "CREATED"];
    context.screen.list(format, &images, header, |image: Image| {
        [
            cell(image.names.join(", ")),
            cell(image.id.chars().take(12).collect::<String>()),
            maybe(image.size_bytes, human::size),
            maybe(image.arch, |arch| arch),
            maybe(image.containers, |number| number.to_string()),
            maybe(image.created, |created| format!("{} ago", human::age(created))),
        ]
    })
}

/// An image that was removed, and how the nodes took it.
#[derive(Debug, Deserialize)]
struct Removed {
    id: String,
    #[serde(default)]
    nodes: Vec<RemovedFrom>,
}

#[derive(Debug, Deserialize)]
struct RemovedFrom {
    node: String,
    error: Option<String>,
}

/// Removes images. A node that keeps its copy is a warning: the copy serves nobody.
pub(super) async fn rm(context: &Context, images: &[String]) -> Result<(), Failure> {
    let act = async |image: &str| {
        let removed: Removed = read(&context.client.delete(&["images", image], &[]).await?)?;
        for RemovedFrom { node, error } in removed.nodes {
            if let Some(error) = error {
                say(&format!("godwit: {node} still holds a copy: {error}"));
            }
        }
        context.screen.line(&format!("Deleted: {}", removed.id))
    };
    context.each(images, act).await
}
