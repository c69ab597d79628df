//! What others may have of this node's engine: images for peers, logs for the controller.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use godwit_bus::stream::{Made, Pending, Resolution, StreamSource};
use godwit_image::Layers;
use godwit_proto::frame::{FromNode, NodeAnswer, NodeImage, NodeRequest};
use godwit_proto::id::ContainerId;
use godwit_proto::stream::{StopReason, StreamId};
use godwit_proto::topic::Peer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::{Engine, EngineError};
use crate::hands::told;
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

/// Images that peers lack, or layers of them, written out of the engine.
pub(crate) struct ImageSource<E> {
    engine: Arc<E>,
    made: Made,
}

impl<E: Engine> ImageSource<E> {
    /// The images of `engine`, with room for their files in `spool`.
    pub(crate) fn new(engine: Arc<E>, spool: PathBuf) -> Self {
        Self { engine, made: Made::new(spool) }
    }

    async fn file(&self, stream: &StreamId, to: &Peer) -> Result<Option<PathBuf>, EngineError> {
        let place = self.made.place(stream);
        let failed = |source| EngineError::Io { what: format!("writing {stream}"), source };
        let made = match stream {
            StreamId::Image(image) => {
                self.made.file(stream, to, self.engine.save_image(image, &place)).await
            }
            StreamId::ImageLayers(image) => {
                let list = async {
                    let layers = self.engine.layers(image).await?;
                    // Texts always encode.
                    let text = serde_json::to_vec(&layers).unwrap_or_default();
                    tokio::fs::write(&place, text).await.map_err(failed)
                };
                self.made.file(stream, to, list).await
            }
            StreamId::ImageParts { image, layers } => {
                let wanted = Layers(*layers);
                let cut = async {
                    let whole = StreamId::Image(image.clone());
                    let lent = Lent { made: &self.made, stream: &whole, to };
                    let archive = Box::pin(self.file(&whole, to)).await?.unwrap_or_default();
                    let to = place.clone();
                    let cut = move || godwit_image::copy_file(&archive, wanted, &to);
                    let cut = tokio::task::spawn_blocking(cut).await;
                    drop(lent);
                    let cut = cut.unwrap_or_else(|panic| Err(io::Error::other(panic).into()));
                    cut.map_err(|error| failed(io::Error::other(error)))
                };
                self.made.file(stream, to, cut).await
            }
            // A checkpoint is offered when it is written.
            _ => return Ok(None),
        };
        made.map(Some)
    }
}

impl<E: Engine> StreamSource for ImageSource<E> {
    fn resolve<'a>(&'a self, stream: &'a StreamId, to: &'a Peer) -> Pending<'a, Resolution> {
        Box::pin(async move {
            match self.file(stream, to).await {
                Ok(Some(path)) => Resolution::Ready(path),
                Ok(None) => Resolution::NotYet,
                Err(error) => Resolution::Refused { reason: told(&error) },
            }
        })
    }

    fn ended(&self, stream: &StreamId, to: &Peer, _reason: &StopReason) {
        self.made.ended(stream, to);
    }
}

/// A whole image, for as long as layers of it are copied.
struct Lent<'a> {
    made: &'a Made,
    stream: &'a StreamId,
    to: &'a Peer,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.made.ended(self.stream, self.to);
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
