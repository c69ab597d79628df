//! Images for the nodes that ask for them, over the streams of the bus.

use std::path::PathBuf;

use godwit_bus::stream::{Made, Pending, Resolution, StreamSource};
use godwit_image::{ArchiveError, Layers};
use godwit_proto::stream::{StopReason, StreamId};
use godwit_proto::topic::Peer;

use crate::images::Images;

/// The controller as the source of streams: it has images and nothing else.
#[derive(Debug)]
pub struct Supply {
    images: Images,
    made: Made,
}

impl Supply {
    /// Whatever `images` holds.
    pub fn new(images: Images) -> Self {
        let made = Made::new(images.incoming());
        Self { images, made }
    }

    async fn file(&self, stream: &StreamId, to: &Peer) -> Result<PathBuf, String> {
        let (StreamId::Image(image)
        | StreamId::ImageLayers(image)
        | StreamId::ImageParts { image, .. }) = stream
        else {
            return Err("the controller holds no checkpoints".to_owned());
        };
        let archive = self.images.path_of(image);
        let archive = archive
            .ok_or_else(|| format!("the controller does not hold image {}", image.short()))?;
        if let StreamId::Image(_) = stream {
            return Ok(archive);
        }
        let (what, place) = (stream.clone(), self.made.place(stream));
        let make = move || -> Result<(), ArchiveError> {
            match what {
                StreamId::ImageParts { layers, .. } => {
                    godwit_image::copy_file(&archive, Layers(layers), &place)
                }
                _ => {
                    // Texts always encode.
                    let layers = serde_json::to_vec(&godwit_image::layers_of_file(&archive)?);
                    Ok(std::fs::write(&place, layers.unwrap_or_default())?)
                }
            }
        };
        let making = async {
            let made = tokio::task::spawn_blocking(make).await;
            made.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())
        };
        self.made.file(stream, to, making).await
    }
}

impl StreamSource for Supply {
    fn resolve<'a>(&'a self, stream: &'a StreamId, to: &'a Peer) -> Pending<'a, Resolution> {
        Box::pin(async move {
            match self.file(stream, to).await {
                Ok(path) => {
                    tracing::info!(%stream, %to, "on its way");
                    Resolution::Ready(path)
                }
                Err(reason) => Resolution::Refused { reason },
            }
        })
    }

    fn ended(&self, stream: &StreamId, to: &Peer, _reason: &StopReason) {
        self.made.ended(stream, to);
    }
}
