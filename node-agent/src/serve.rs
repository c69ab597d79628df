//! What others may have of this node's engine: images for peers, logs for the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_bus::stream::{Pending, Resolution, StreamSource};
use godwit_proto::frame::{FromNode, NodeAnswer, NodeImage, NodeRequest};
use godwit_proto::id::{ContainerId, ImageId};
use godwit_proto::stream::{StopReason, StreamId};
use godwit_proto::topic::Peer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::{Engine, EngineError};
use crate::hands::{ImageLocks, told};
use crate::volumes::Volumes;

/// The most of a log that one answer carries.
const LOG_LIMIT_BYTES: usize = 384 << 10;

/// So many requests of the controller's are answered at a time.
const AT_A_TIME: usize = 8;
/// How long one may take: whoever hangs must not keep its place.
const ANSWER: Duration = Duration::from_secs(60);

/// The controller's requests that are being answered: a few at a time, the others are told
/// to come again. Dropped, it gives all of them up.
pub(crate) struct Requests {
    messages: mpsc::Sender<FromNode>,
    at_work: JoinSet<()>,
}

impl Requests {
    /// None yet; answers go to `messages`.
    pub(crate) fn new(messages: mpsc::Sender<FromNode>) -> Self {
        Self { messages, at_work: JoinSet::new() }
    }

    /// Has request `number` answered by `answering`, or answered at once that the node is busy.
    /// Never waits.
    pub(crate) fn take(
        &mut self,
        number: u64,
        answering: impl Future<Output = Result<NodeAnswer, String>> + Send + 'static,
    ) {
        while self.at_work.try_join_next().is_some() {}
        if self.at_work.len() >= AT_A_TIME {
            let why = format!("the node is busy with {AT_A_TIME} other requests: try again soon");
            // A full queue loses it, as it would lose any other message.
            let _ = self.messages.try_send(FromNode::Answer { number, answer: Err(why) });
            return;
        }
        let messages = self.messages.clone();
        self.at_work.spawn(async move {
            let late = |_| Err(format!("podman did not answer within {} s", ANSWER.as_secs()));
            let answer = tokio::time::timeout(ANSWER, answering).await.unwrap_or_else(late);
            let _ = messages.send(FromNode::Answer { number, answer }).await;
        });
    }
}

/// Answers a request of the controller's, or says why not in words for the operator.
pub(crate) async fn answer<E: Engine>(
    engine: &E,
    volumes: Volumes,
    request: NodeRequest,
) -> Result<NodeAnswer, String> {
    let answered = match request {
        NodeRequest::Logs { container, tail } => logs(engine, container, tail).await,
        NodeRequest::Images => images(engine).await,
        NodeRequest::RemoveImage { image } => {
            engine.remove_image(&image).await.map(|()| NodeAnswer::Done)
        }
        NodeRequest::Ports(ports) => {
            let held = tokio::task::spawn_blocking(move || crate::holders::of(&ports)).await;
            return held.map(NodeAnswer::Ports).map_err(|error| told(&error));
        }
        NodeRequest::VolumeBytes { tenant, volumes: names } => {
            let bytes = move || volumes.bytes(&tenant, &names).map(NodeAnswer::Bytes);
            return on_disk(bytes).await;
        }
        NodeRequest::RemoveVolume { tenant, volume } => {
            return on_disk(move || volumes.remove(&tenant, &volume).map(|()| NodeAnswer::Done))
                .await;
        }
    };
    answered.map_err(|error| told(&error))
}

/// What becomes of work on volumes.
async fn on_disk(
    work: impl FnOnce() -> std::io::Result<NodeAnswer> + Send + 'static,
) -> Result<NodeAnswer, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| told(&error))?;
    done.map_err(|error| format!("its volumes: {error}"))
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

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn one_request_too_many_is_told_that_the_node_is_busy() {
        let (messages, mut sent) = mpsc::channel(64);
        let mut requests = Requests::new(messages);
        let release = watch::Sender::new(false);
        let held = || {
            let mut released = release.subscribe();
            async move {
                released.wait_for(|released| *released).await.map_err(|e| e.to_string())?;
                Ok(NodeAnswer::Done)
            }
        };
        for number in 0..AT_A_TIME as u64 {
            requests.take(number, held());
        }
        requests.take(99, held());
        let Some(FromNode::Answer { number: 99, answer: Err(why) }) = sent.recv().await else {
            panic!("the last one was taken as well");
        };
        assert!(why.contains("busy"), "{why}");
        release.send_replace(true);
        for _ in 0..AT_A_TIME {
            let answer = sent.recv().await;
            assert!(matches!(answer, Some(FromNode::Answer { answer: Ok(_), .. })), "{answer:?}");
        }
        while requests.at_work.join_next().await.is_some() {}
        requests.take(100, held());
        let answer = sent.recv().await;
        assert!(matches!(answer, Some(FromNode::Answer { number: 100, answer: Ok(_) })));
    }
}
