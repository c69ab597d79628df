//! What others may have of this node's engine: images for peers, logs for the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_bus::stream::{Pending, Resolution, StreamSource};
use godwit_proto::frame::{NodeAnswer, NodeImage, NodeRequest};
use godwit_proto::id::{ContainerId, ImageId};
use godwit_proto::stream::{StopReason, StreamId};
use godwit_proto::topic::Peer;

use crate::engine::{Engine, EngineError};
use crate::hands::{ImageLocks, told};

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

/// Images that peers lack, written out of the engine when the first of them wants one, and
/// removed when the last has it.
pub(crate) struct ImageSource<E> {
    engine: Arc<E>,
    spool: PathBuf,
    saving: ImageLocks,
    /// The images that are saved, and who is sent them.
    saved: Mutex<BTreeMap<ImageId, BTreeSet<Peer>>>,
}

impl<E: Engine> ImageSource<E> {
    /// The images of `engine`; what an earlier life saved in `spool` is removed.
    pub(crate) fn new(engine: Arc<E>, spool: PathBuf) -> Self {
        for file in std::fs::read_dir(&spool).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().ends_with(SAVED) {
                drop(Unfinished(Some(file.path())));
            }
        }
        Self { engine, spool, saving: ImageLocks::default(), saved: Mutex::default() }
    }

    fn path(&self, image: &ImageId) -> PathBuf {
        self.spool.join(format!("{image}{SAVED}"))
    }

    fn saved(&self) -> MutexGuard<'_, BTreeMap<ImageId, BTreeSet<Peer>>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One file for all: another one would be another version, and begin every transfer anew.
    async fn save(&self, image: &ImageId, to: &Peer) -> Result<PathBuf, EngineError> {
        let path = self.path(image);
        let _saving = self.saving.lock(image).await;
        if let Some(peers) = self.saved().get_mut(image) {
            peers.insert(to.clone());
            return Ok(path);
        }
        let mut unfinished = Unfinished(Some(path.clone()));
        self.engine.save_image(image, &path).await?;
        unfinished.0 = None;
        self.saved().insert(image.clone(), BTreeSet::from([to.clone()]));
        Ok(path)
    }
}

impl<E: Engine> StreamSource for ImageSource<E> {
    fn resolve<'a>(&'a self, stream: &'a StreamId, to: &'a Peer) -> Pending<'a, Resolution> {
        Box::pin(async move {
            let StreamId::Image(image) = stream else {
                // A checkpoint is offered when it is written.
                return Resolution::NotYet;
            };
            match self.save(image, to).await {
                Ok(path) => Resolution::Ready(path),
                Err(error) => Resolution::Refused { reason: told(&error) },
            }
        })
    }

    fn ended(&self, stream: &StreamId, to: &Peer, _reason: &StopReason) {
        let StreamId::Image(image) = stream else { return };
        let mut saved = self.saved();
        let Some(peers) = saved.get_mut(image) else { return };
        peers.remove(to);
        if peers.is_empty() {
            saved.remove(image);
            // Under the lock: whoever saves it again does so afterwards.
            drop(Unfinished(Some(self.path(image))));
        }
    }
}

/// How files of saved images end.
const SAVED: &str = ".saved";

/// A file that nobody is to find: removed when this is dropped.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), %error, "cannot remove a saved image");
        }
    }
}
