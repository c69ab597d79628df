//! Images: those that the controller hands out, and those that nodes hold.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use godwit_proto::frame::{NodeAnswer, NodeRequest};
use godwit_proto::id::{ImageId, NodeId, Tenant};
use serde::Serialize;

use super::{Service, containers::odd_answer};
use crate::images::ImageError;
use crate::images::archive::ArchiveError;
use crate::placement::NodeState;
use crate::refusal::Refusal;
use crate::view::ImageView;

/// An image that was removed, and what became of the nodes' copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedImage {
    /// The image.
    pub id: ImageId,
    /// Every online node.
    pub nodes: Vec<NodeCopy>,
}

/// What became of a node's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeCopy {
    /// The node.
    pub node: NodeId,
    /// Why the copy is still there, if it is.
    pub error: Option<String>,
}

impl Service {
    /// Every image of a tenant, newest first.
    ///
    /// # Errors
    /// `internal`.
    pub async fn images(&self, tenant: &Tenant) -> Result<Vec<ImageView>, Refusal> {
        let images = self.parts.images.list(tenant).await.map_err(refusal)?;
        let rows = self.store("listing containers", |store| store.containers()).await?;
        let users = |id: &ImageId| {
            rows.iter().filter(|row| row.spec.tenant == *tenant && row.spec.image == *id).count()
        };
        Ok(images.iter().map(|image| ImageView::new(image, users(&image.id))).collect())
    }

    /// What a node's engine holds.
    ///
    /// # Errors
    /// `unknown-node`, `node-silent`.
    pub async fn images_of(&self, node: &str) -> Result<Vec<ImageView>, Refusal> {
        let node = self.node(node)?.name;
        match self.parts.core.ask_node(&node, NodeRequest::Images).await? {
            NodeAnswer::Images(images) => Ok(images
                .into_iter()
                .map(|image| ImageView {
                    id: image.id,
                    names: image.names,
                    size_bytes: image.size_bytes,
                    archive_bytes: None,
                    arch: None,
                    os: None,
                    created: None,
                    containers: None,
                })
                .collect()),
            _ => Err(odd_answer(&node)),
        }
    }

    /// Takes an upload; answers the image, and whether the tenant did not have it yet.
    ///
    /// # Errors
    /// `bad-image`, `bad-request`, `disk-full`.
    pub async fn upload_image<E>(
        &self,
        tenant: &Tenant,
        name: Option<&str>,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(ImageView, bool), Refusal>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let (row, is_new) = self.parts.images.receive(tenant, name, body).await.map_err(refusal)?;
        let used = self.images(tenant).await?.into_iter().find(|image| image.id == row.id);
        let containers = used.and_then(|image| image.containers).unwrap_or(0);
        Ok((ImageView::new(&row, containers), is_new))
    }

    /// Removes an image here, then from every online node as far as that goes.
    ///
    /// # Errors
    /// `unknown-image`, `image-in-use`.
    pub async fn remove_image(
        &self,
        tenant: &Tenant,
        reference: &str,
    ) -> Result<RemovedImage, Refusal> {
        let image = self.find_image(tenant, reference).await?;
        let _creating = self.parts.creating.lock().await;
        let rows = self.store("listing containers", |store| store.containers()).await?;
        let users: Vec<_> = rows
            .iter()
            .filter(|row| row.spec.image == image.id)
            .map(|row| row.spec.name.as_str())
            .collect();
        if !users.is_empty() {
            return Err(Refusal::new(
                "image-in-use",
                format!("image {} is used by {}", image.id.short(), users.join(", ")),
                "remove those containers first",
            ));
        }
        self.parts.images.remove(tenant, &image.id).await.map_err(refusal)?;
        let online = self
            .parts
            .registry
            .all_facts()
            .into_iter()
            .filter(|facts| matches!(facts.state, NodeState::Online | NodeState::Draining));
        let nodes = futures_util::future::join_all(online.map(async |facts| {
            let request = NodeRequest::RemoveImage { image: image.id.clone() };
            let answer = self.parts.core.ask_node(&facts.node, request).await;
            NodeCopy { node: facts.node, error: answer.err().map(|refusal| refusal.message) }
        }))
        .await;
        Ok(RemovedImage { id: image.id, nodes })
    }
}

pub(super) fn refusal(error: ImageError) -> Refusal {
    let bad = |remedy: &str| {
        let chain = crate::refusal::Chain(&error);
        Refusal::new("bad-image", chain.to_string(), remedy)
    };
    match &error {
        ImageError::Archive(ArchiveError::Compressed(how)) => {
            bad(&format!("decompress it first (it is {how})"))
        }
        ImageError::Archive(ArchiveError::NotOne(_)) => {
            bad("save one image at a time: `podman save NAME -o FILE`")
        }
        ImageError::Archive(ArchiveError::Damaged(_) | ArchiveError::Lacks(_)) => {
            Refusal { code: "image-damaged", ..bad("save it again: `podman save NAME -o FILE`") }
        }
        ImageError::Archive(_) => bad("write it with `podman save NAME -o FILE`"),
        ImageError::Nameless(_) => bad("give it one: `godwit image load FILE --name NAME`"),
        ImageError::Name(_) => Refusal::new(
            "bad-request",
            error.to_string(),
            "a name looks like counter, counter:2 or quay.io/team/counter:2",
        ),
        ImageError::CutOff(_) => bad("upload it again"),
        ImageError::Disk { path, source } if source.kind() == io::ErrorKind::StorageFull => {
            Refusal::new(
                "disk-full",
                format!("the controller's disk is full ({})", path.display()),
                "remove images that are not needed (`godwit image rm`), or make room",
            )
        }
        ImageError::Disk { .. } | ImageError::Store(_) => {
            Refusal::internal("keeping an image", &error)
        }
    }
}
