//! What others may have of this node's engine: images for peers, logs for the controller.

use std::path::PathBuf;
use std::sync::Arc;

use godwit_bus::stream::{Pending, Resolution, StreamSource};
use godwit_proto::frame::{NodeAnswer, NodeImage, NodeRequest};
use godwit_proto::id::{ContainerId, ImageId};
use godwit_proto::stream::{StopReason, StreamId};
use godwit_proto::topic::Peer;

use crate::engine::{Engine, EngineError};
use crate::hands::told;

/// The most of a log that one answer carries.
const LOG_LIMIT_BYTES: usize = 384 << 10;

/// Answers a request of the controller's, or says why not in words for the operator.
pub(crate) async fn answer<E: Engine>(
    engine: &E,
    request: NodeRequest,
) -> Result<NodeAnswer, String> {
    let answered = match request {
        NodeRequest::Logs { container, tail } => logs(engine, container, tail).await,
        NodeRequest::Images => images(engine).await,
        NodeRequest::RemoveImage { image } => {
            engine.remove_image(&image).await.map(|()| NodeAnswer::Done)
        }
    };
    answered.map_err(|error| told(&error))
}

async fn logs<E: Engine>(
    engine: &E,
    container: ContainerId,
    tail: Option<u32>,
) -> Result<NodeAnswer, EngineError> {
    let Some(spec) = engine.spec(container).await? else {
        return Err(EngineError::Refused {
            what: format!("reading the log of container {container}"),
            message: "it is not on this node".into(),
        });
    };
    let lines = engine.logs(&spec, tail).await?;
    let cut = lines.len().saturating_sub(LOG_LIMIT_BYTES);
    // What does not fit is left out at the front, up to the end of a line.
    let start = match cut {
        0 => 0,
        cut => lines[cut..].iter().position(|b| *b == b'\n').map_or(cut, |at| cut + at + 1),
    };
    Ok(NodeAnswer::Logs(lines[start..].to_vec()))
}

async fn images<E: Engine>(engine: &E) -> Result<NodeAnswer, EngineError> {
    let held = engine.images().await?.into_iter();
    let image = |held: crate::engine::HeldImage| NodeImage {
        id: held.id,
        names: held.names,
        size_bytes: held.size_bytes,
    };
    Ok(NodeAnswer::Images(held.map(image).collect()))
}

/// Images that peers lack, written out of the engine when one of them wants it.
pub(crate) struct ImageSource<E> {
    pub(crate) engine: Arc<E>,
    pub(crate) spool: PathBuf,
}

impl<E> ImageSource<E> {
    fn path(&self, image: &ImageId, to: &Peer) -> PathBuf {
        self.spool.join(format!("{image}-for-{to}.image"))
    }
}

impl<E: Engine> StreamSource for ImageSource<E> {
    fn resolve<'a>(&'a self, stream: &'a StreamId, to: &'a Peer) -> Pending<'a, Resolution> {
        Box::pin(async move {
            let StreamId::Image(image) = stream else {
                // A checkpoint is offered when it is written.
                return Resolution::NotYet;
            };
            let path = self.path(image, to);
            match self.engine.save_image(image, &path).await {
                Ok(()) => Resolution::Ready(path),
                Err(error) => Resolution::Refused { reason: told(&error) },
            }
        })
    }

    fn ended(&self, stream: &StreamId, to: &Peer, _reason: &StopReason) {
        if let StreamId::Image(image) = stream {
            let path = self.path(image, to);
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(file = %path.display(), %error, "cannot remove a sent image");
            }
        }
    }
}
