//! Images for the nodes that ask for them, over the streams of the bus.

use godwit_bus::stream::{Pending, Resolution, StreamSource};
use godwit_proto::stream::StreamId;
use godwit_proto::topic::Peer;

use crate::images::Images;

/// The controller as the source of streams: it has images and nothing else.
#[derive(Debug)]
pub struct Supply {
    images: Images,
}

impl Supply {
    /// Whatever `images` holds.
    pub fn new(images: Images) -> Self {
        Self { images }
    }
}

impl StreamSource for Supply {
    fn resolve<'a>(&'a self, stream: &'a StreamId, to: &'a Peer) -> Pending<'a, Resolution> {
        let resolution = match stream {
            StreamId::Image(id) => match self.images.path_of(id) {
                Some(path) => {
                    tracing::info!(image = id.short(), %to, "image on its way");
                    Resolution::Ready(path)
                }
                None => Resolution::Refused {
                    reason: format!("the controller does not hold image {}", id.short()),
                },
            },
            StreamId::Checkpoint { .. } | StreamId::Metadata { .. } | StreamId::Volumes { .. } => {
                Resolution::Refused { reason: "the controller holds no checkpoints".to_owned() }
            }
        };
        Box::pin(std::future::ready(resolution))
    }
}
