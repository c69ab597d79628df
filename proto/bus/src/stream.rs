//! Resumable streams between peers: files and archives of any size, over whatever sends
//! frames.
//!
//! The protocol is [`godwit_proto::stream`]'s; here are the files, the tasks and the
//! clock. A [`Streams`] does both directions. Its owner feeds it with what arrives on
//! the peers' topics ([`Streams::on_ctl`], [`Streams::on_bulk`]) and gives it a
//! [`StreamLink`] for what leaves, so it knows of MQTT only in [`MqttLink`].
//!
//! ```no_run
//! # async fn example(session: godwit_bus::Session, delivery: godwit_bus::Delivery)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! # use std::sync::Arc;
//! # use godwit_bus::stream::{MqttLink, OffersOnly, ReceiveOptions, Streams};
//! # use godwit_proto::{stream::StreamId, topic::{Peer, Topic}};
//! let me: Peer = "edge-b".parse()?;
//! let streams = Streams::new(Arc::new(MqttLink::new(session, me)), Arc::new(OffersOnly));
//!
//! // Whatever the session delivers:
//! match delivery.topic {
//!     Some(Topic::PeerCtl { from, .. }) => streams.on_ctl(&from, &delivery.payload),
//!     Some(Topic::PeerBulk { from, .. }) => streams.on_bulk(&from, delivery.payload),
//!     _ => {}
//! }
//!
//! let image = StreamId::Image("…".parse()?);
//! let receiving = streams.receive(
//!     image, "controller".parse()?, "/var/lib/godwit/image.tar".into(), ReceiveOptions::default(),
//! );
//! let progress = receiving.progress();
//! let received = receiving.await?;
//! # Ok(())
//! # }
//! ```
//!
//! Memory: a receiver holds at most its window, all of a node's receivers together at
//! most 24 MiB; a sender at most four chunks for each of at most sixteen receivers.
//!
//! Reading order: [`link`], [`source`], `shelf` (what is offered), `contents` and
//! [`archive`] (what it is made of), `hashing` (its digest), `serve` (sending), `fetch`
//! (receiving), `worker` (its thread), `sink`, `store`, `unpack` and `journal` (its files),
//! `chunk`, `tree`.

pub mod archive;
mod chunk;
mod contents;
pub mod error;
mod fetch;
mod hashing;
mod journal;
pub mod link;
pub mod made;
mod progress;
mod routes;
mod serve;
mod shared;
mod shelf;
mod sink;
pub mod source;
mod store;
mod tree;
mod unpack;
mod worker;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use godwit_proto::id::Digest;
use godwit_proto::stream::{ChunkHeader, Manifest, StreamFrame, StreamId};
use godwit_proto::topic::Peer;
use godwit_proto::wire;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::DropGuard;

pub use archive::Archive;
pub use error::{ArchiveError, LayoutError, OfferError, ReceiveError};
pub use link::{MqttLink, Pending, StreamLink};
pub use made::Made;
pub use progress::Progress;
pub use shelf::Audience;
pub use source::{OffersOnly, Resolution, StreamSource};

use crate::stream::fetch::Fetch;
use crate::stream::shared::Shared;
use crate::stream::shelf::Item;
use crate::stream::sink::Destination;

/// A node's streams, both ways; as many handles to them as you like.
///
/// All methods must be called within a Tokio runtime.
#[derive(Clone)]
pub struct Streams {
    shared: Arc<Shared>,
}

/// How a stream is to be received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveOptions {
    /// The most that the sender may put on the wire, in bytes per second.
    pub bwlimit: Option<u64>,
    /// How long the sender may be silent before the attempt is given up; `None` waits
    /// for ever. A sender that says "not yet" every few seconds is not silent.
    pub patience: Option<Duration>,
    /// How long the stream may be at the most; `None` takes what the disk takes.
    pub limit_bytes: Option<u64>,
}

/// A stream that arrived, whole and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where it is: the file, or the directory of an archive's files.
    pub path: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// What its chunks weighed on the wire in this attempt.
    pub wire_bytes: u64,
}

/// The digest of a manifest itself: what votes and verdicts quote.
///
/// Both ends compute the same from the same stream.
pub fn manifest_digest(manifest: &Manifest) -> Digest {
    // A manifest is far below its size limit, so this encodes.
    chunk::digest(&wire::encode(manifest).unwrap_or_default())
}

impl Streams {
    /// Streams over `link`; what nobody offered is asked of `source`.
    pub fn new(link: Arc<dyn StreamLink>, source: Arc<dyn StreamSource>) -> Self {
        Self { shared: Arc::new(Shared::new(link, source)) }
    }

    /// Limits what this node puts on the wire for all streams together, in bytes per
    /// second.
    pub fn set_node_limit(&self, bytes_per_second: Option<u64>) {
        self.shared.set_node_limit(bytes_per_second);
    }

    /// Offers a file: whoever of `to` wants it, or has wanted it already, is sent it at
    /// once, and again whenever it asks, until it is withdrawn.
    ///
    /// The file must not change meanwhile. Offered again in the same state it only
    /// reaches more peers; in another state it replaces the former.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn offer(
        &self,
        stream: StreamId,
        path: impl Into<PathBuf>,
        to: impl Into<Audience>,
    ) -> Result<Offered, OfferError> {
        let item = self.shared.shelf.put(stream.clone(), path.into(), to.into()).await?;
        Ok(Offered { stream, item })
    }

    /// Withdraws what was offered; receivers in the middle of it are refused.
    pub fn withdraw(&self, stream: &StreamId) {
        self.shared.withdraw(stream);
    }

    /// The progress of sending a stream, while it is offered.
    ///
    /// With several receivers it shows whichever asked last.
    pub fn sending(&self, stream: &StreamId) -> Option<watch::Receiver<Progress>> {
        self.shared.shelf.progress(stream)
    }

    /// Receives a stream from a peer into a file, which appears only when it is whole.
    ///
    /// What arrives is kept beside it (`.part`, `.journal`) over failures, cancellation
    /// and restarts: the next attempt with the same stream and path goes on from there.
    /// An existing file is replaced. No two streams may share a path.
    pub fn receive(
        &self,
        stream: StreamId,
        from: Peer,
        into: PathBuf,
        options: ReceiveOptions,
    ) -> Receiving {
        self.fetch(stream, from, Destination::File(into), options)
    }

    /// Receives an [`Archive`] from a peer into a directory, file by file as it comes.
    ///
    /// The files are written in place, so they are worth something only once the stream is
    /// whole. What tells how far it is stands beside the directory (`.journal`, `.layout`)
    /// until then, for an attempt after a failure, cancellation or restart. Files that were
    /// there before and have names of the archive's are replaced, others stay. The total is
    /// unknown until the sender has finished the archive.
    pub fn receive_archive(
        &self,
        stream: StreamId,
        from: Peer,
        into: PathBuf,
        options: ReceiveOptions,
    ) -> Receiving {
        self.fetch(stream, from, Destination::Directory(into), options)
    }

    fn fetch(
        &self,
        stream: StreamId,
        from: Peer,
        into: Destination,
        options: ReceiveOptions,
    ) -> Receiving {
        let (done, result) = oneshot::channel();
        let (progress, shown) = watch::channel(Progress::default());
        let cancel = self.shared.stop.child_token();
        let guard = cancel.clone().drop_guard();
        let closed = ReceiveError::Closed { stream: stream.clone() };
        let shared = self.shared.clone();
        self.shared.tasks.spawn(async move {
            let (inbound, seat) = match shared.routes.take_seat(&stream, &from, &cancel).await {
                Ok(seated) => seated,
                Err(busy) => return drop(done.send(Err(busy))),
            };
            let fetch = Fetch { shared: shared.clone(), stream, from, into, options, progress };
            let result = fetch.run(inbound, cancel.cancelled()).await;
            drop(seat);
            let _ = done.send(result.unwrap_or(Err(closed)));
        });
        Receiving { result, progress: shown, _guard: guard }
    }

    /// Takes in a frame that `from` sent on its `ctl` topic. Never waits; what it cannot
    /// take is asked for again by the protocol.
    pub fn on_ctl(&self, from: &Peer, frame: &[u8]) {
        match wire::decode::<StreamFrame>(frame) {
            Ok(StreamFrame::Want(want)) => self.shared.on_want(from, want),
            Ok(StreamFrame::Stop { stream, session, reason }) => {
                self.shared.on_stop(from, &stream, session, &reason);
            }
            Ok(frame) => self.shared.routes.ctl(from, frame),
            Err(error) => tracing::warn!(peer = %from, %error, "not a frame of a stream"),
        }
    }

    /// Takes in a chunk that `from` sent on its `bulk` topic. Never waits.
    pub fn on_bulk(&self, from: &Peer, frame: Bytes) {
        match wire::decode_with_tail::<ChunkHeader>(&frame) {
            Ok((header, body)) if header.is_sane() => {
                let body = frame.slice_ref(body);
                self.shared.routes.bulk(from, header, body, frame.len());
            }
            Ok((header, _)) => {
                tracing::warn!(peer = %from, span = ?header.span, "a chunk out of its bounds");
            }
            Err(error) => tracing::warn!(peer = %from, %error, "not a chunk"),
        }
    }

    /// Ends every stream, keeping what was received, and waits until nothing is at work.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.shelf.clear();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// A stream on its way in; resolves when it is whole.
///
/// Dropping it cancels: the sender is told, what arrived stays for a later attempt.
pub struct Receiving {
    result: oneshot::Receiver<Result<Received, ReceiveError>>,
    progress: watch::Receiver<Progress>,
    _guard: DropGuard,
}

impl Receiving {
    /// How far it has come, now and as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}

impl Future for Receiving {
    type Output = Result<Received, ReceiveError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The task always answers, unless it panicked: then so does whoever waits for it.
        Pin::new(&mut self.result).poll(cx).map(|answer| match answer {
            Ok(result) => result,
            Err(_) => panic!("the task that received the stream is gone without an answer"),
        })
    }
}

/// A file on offer, or an archive that is whole.
#[derive(Clone)]
pub struct Offered {
    stream: StreamId,
    item: Arc<Item>,
}

impl Offered {
    /// How far its receiver has come, now and as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.item.progress.subscribe()
    }

    /// What is offered, once it is hashed; `None` if it is withdrawn or fails before.
    /// Cancel-safe.
    pub async fn manifest(&self) -> Option<Manifest> {
        let mut digest = self.item.digest.clone();
        let digest = (*digest.wait_for(Option::is_some).await.ok()?)?;
        let size_bytes = self.item.extent.borrow().bytes;
        Some(Manifest { stream: self.stream.clone(), size_bytes, digest })
    }
}
