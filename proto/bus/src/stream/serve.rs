//! The sending side: one task for each receiver of each stream.

use std::collections::VecDeque;
use std::future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_proto::id::Digest;
use godwit_proto::stream::codec::Chooser;
use godwit_proto::stream::pace::{Limiter, Rate, chunk_bytes};
use godwit_proto::stream::{
    ChunkHeader, Codec, Extent, Offer, Sender, StreamFrame, StreamId, Want,
};
use godwit_proto::topic::Peer;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::stream::chunk::{Packed, pack};
use crate::stream::progress::Progress;
use crate::stream::shared::Shared;
use crate::stream::shelf::Item;
use crate::stream::source::Resolution;

/// A receiver that wants nothing for so long is forgotten; it may come back any time.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// How many chunks are read and packed ahead of the link, side by side.
const AHEAD: usize = 4;

/// Serves one receiver until it is silent for long; cancelled from outside when it stops.
pub(super) async fn serve(
    shared: Arc<Shared>,
    stream: StreamId,
    to: Peer,
    mut wants: watch::Receiver<Want>,
) {
    loop {
        let Some(source) = find(&shared, &stream, &to, &mut wants).await else { return };
        let mut pump = Pump::new(&shared, &stream, &to, source.clone());
        tokio::select! {
            () = source.gone.cancelled() => {} // replaced: the newest want goes to its successor
            end = pump.run(&mut wants) => {
                if let Err(error) = end {
                    let reason = format!("cannot read {}: {error}", source.path.display());
                    tracing::warn!(%stream, peer = %to, %error, "a stream cannot be sent");
                    shared.send(&to, &StreamFrame::refused(stream.clone(), &reason)).await;
                }
                return;
            }
        }
    }
}

/// What is wanted, as soon as it is there; `None` when it will not be.
async fn find(
    shared: &Shared,
    stream: &StreamId,
    to: &Peer,
    wants: &mut watch::Receiver<Want>,
) -> Option<Arc<Item>> {
    let not_yet = StreamFrame::NotYet { stream: stream.clone() };
    let mut resolving = None;
    loop {
        let mut changed = Box::pin(shared.shelf.changed.notified());
        changed.as_mut().enable();
        if let Some(source) = shared.shelf.get(stream, to) {
            return Some(source);
        }
        let resolution = resolving.get_or_insert_with(|| shared.source.resolve(stream, to));
        tokio::select! {
            biased;
            answer = resolution => match answer {
                Resolution::Ready(path) => {
                    match shared.shelf.lend(stream.clone(), path, to).await {
                        Ok(source) => return Some(source),
                        Err(error) => {
                            let reason = format!("{error}: {}", error.source);
                            shared.send(to, &StreamFrame::refused(stream.clone(), &reason)).await;
                            return None;
                        }
                    }
                }
                Resolution::NotYet => {
                    shared.send(to, &not_yet).await;
                    resolving = Some(Box::pin(future::pending()));
                }
                Resolution::Refused { reason } => {
                    shared.send(to, &StreamFrame::refused(stream.clone(), &reason)).await;
                    return None;
                }
            },
            () = changed => {}
            again = timeout(FORGET_AFTER, wants.changed()) => match again {
                Ok(Ok(())) => {
                    shared.send(to, &not_yet).await;
                }
                _ => return None,
            },
        }
    }
}

/// Sends one item to one receiver.
struct Pump<'a> {
    shared: &'a Shared,
    stream: &'a StreamId,
    to: &'a Peer,
    source: Arc<Item>,
    core: Sender,
    extent: Extent,
    chooser: Chooser,
    packing: VecDeque<JoinHandle<io::Result<Packed>>>,
    limiter: Option<Limiter>,
    wire_rate: Option<u64>,
    chunk_bytes: u32,
    rate: Rate,
    wire_bytes: u64,
    digest_told: bool,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, stream: &'a StreamId, to: &'a Peer, source: Arc<Item>) -> Self {
        let extent = *source.extent.borrow();
        Self {
            shared,
            stream,
            to,
            core: Sender::new(source.version, extent),
            extent,
            source,
            chooser: Chooser::new(),
            packing: VecDeque::new(),
            limiter: None,
            wire_rate: None,
            chunk_bytes: chunk_bytes(None),
            rate: Rate::default(),
            wire_bytes: 0,
            digest_told: false,
        }
    }

    /// Runs until the receiver is silent for long.
    async fn run(&mut self, wants: &mut watch::Receiver<Want>) -> io::Result<()> {
        // A want may have come before the file did.
        let first = wants.borrow_and_update().clone();
        self.on_want(&first).await;
        let mut digests = self.source.digest.clone();
        let mut extents = self.source.extent.clone();
        self.grow(*extents.borrow_and_update());
        let mut idle_since = Instant::now();
        loop {
            self.pack_ahead();
            let told = self.digest_told;
            let busy = !self.packing.is_empty();
            let waiting = Instant::now();
            tokio::select! {
                biased;
                changed = wants.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    if !busy && !self.core.is_ahead() {
                        self.chooser.waited_for_link(waiting.elapsed());
                    }
                    let want = wants.borrow_and_update().clone();
                    if self.on_want(&want).await {
                        idle_since = Instant::now();
                    }
                }
                Ok(()) = extents.changed() => self.grow(*extents.borrow_and_update()),
                Ok(digest) = known(&mut digests), if !told => self.offer(Some(digest)).await,
                packed = next(&mut self.packing), if busy => {
                    self.send(packed?, waiting.elapsed()).await;
                }
                () = sleep(FORGET_AFTER.saturating_sub(idle_since.elapsed())), if !busy => {
                    return Ok(());
                }
            }
        }
    }

    /// Takes in how long the stream is now.
    fn grow(&mut self, extent: Extent) {
        self.extent = extent;
        self.core.grow(extent);
        self.show();
    }

    /// Takes in a want; false when it is an old one.
    async fn on_want(&mut self, want: &Want) -> bool {
        let before = self.core.stored_bytes();
        if !self.core.on_want(want) {
            return false;
        }
        let now = self.shared.now();
        self.rate.add(now, self.core.stored_bytes().saturating_sub(before));
        self.wire_rate = (want.wire_rate > 0).then_some(want.wire_rate);
        match (&mut self.limiter, want.bwlimit) {
            (Some(limiter), Some(limit)) => limiter.set(limit),
            (limiter, limit) => *limiter = limit.map(Limiter::new),
        }
        let limit = [self.wire_rate, want.bwlimit, self.shared.node_limit()];
        self.chunk_bytes = chunk_bytes(limit.into_iter().flatten().min());
        self.show();
        let known = *self.source.digest.borrow();
        let unaware = want.version != Some(self.source.version);
        let has_all = want.missing.iter().all(|lacks| lacks.span.start >= self.extent.bytes);
        let waits_for_digest = !want.knows_digest && has_all && known.is_some();
        if unaware || waits_for_digest {
            self.offer(known).await;
        } else if self.core.is_ahead() {
            let not_yet = StreamFrame::NotYet { stream: self.stream.clone() };
            self.shared.send(self.to, &not_yet).await;
        }
        true
    }

    async fn offer(&mut self, digest: Option<Digest>) {
        self.digest_told |= digest.is_some();
        let offer = Offer {
            stream: self.stream.clone(),
            version: self.source.version,
            // One that is known to be whole comes with its length, however late that was heard.
            extent: *self.source.extent.borrow(),
            digest,
        };
        self.shared.send(self.to, &StreamFrame::Offer(offer)).await;
    }

    /// Hands chunks to the blocking threads until enough are under way.
    fn pack_ahead(&mut self) {
        while self.packing.len() < AHEAD {
            let Some(span) = self.core.take(self.chunk_bytes) else { return };
            let (session, want) = self.core.newest_want();
            let header = ChunkHeader {
                stream: self.stream.clone(),
                version: self.source.version,
                extent: self.extent,
                span,
                session,
                want,
                codec: Codec::None,
                digest: Digest([0; 32]),
            };
            let (source, codec) = (self.source.clone(), self.chooser.choose());
            let job = tokio::task::spawn_blocking(move || pack(&source.contents, header, codec));
            self.packing.push_back(job);
        }
    }

    async fn send(&mut self, packed: Packed, waited_for_packing: Duration) {
        let Packed { frame, header, tried, raw_bytes, packed_bytes, took } = packed;
        let block = header.is_block().then_some(header.digest);
        self.source.hashing.sent(header.span, block);
        self.chooser.packed(tried, raw_bytes, packed_bytes, took);
        let begun = Instant::now();
        let wire = frame.len() as u64;
        let now = self.shared.now();
        let own = self.limiter.as_mut().map(|limiter| limiter.charge(now, wire));
        let wait = own.unwrap_or_default().max(self.shared.charge_node(now, wire));
        if !wait.is_zero() {
            sleep(wait).await;
        }
        // First: the receiver may have it, and all, before this task is on again.
        self.wire_bytes += wire;
        self.show();
        self.shared.link.send_bulk(self.to, frame).await;
        self.chooser.sent(waited_for_packing, begun.elapsed(), self.wire_rate);
    }

    fn show(&self) {
        let now = Progress {
            bytes: self.core.stored_bytes(),
            total_bytes: self.extent.total(),
            wire_bytes: self.wire_bytes,
            rate: self.rate.per_second().unwrap_or(0),
        };
        self.source.progress.send_if_modified(|shown| {
            // The receiver may have said meanwhile that it has it all, and this task not ended yet.
            let is_over = shown.total_bytes == Some(shown.bytes) && shown.bytes > now.bytes;
            !is_over && std::mem::replace(shown, now) != now
        });
    }
}

/// The oldest chunk that is being packed. Cancel-safe: it stays in line until it is done.
async fn next(packing: &mut VecDeque<JoinHandle<io::Result<Packed>>>) -> io::Result<Packed> {
    let Some(oldest) = packing.front_mut() else { return future::pending().await };
    let packed = oldest.await;
    packing.pop_front();
    packed.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// The digest as soon as it is known; an error when it never will be.
async fn known(digests: &mut watch::Receiver<Option<Digest>>) -> Result<Digest, ()> {
    let found = digests.wait_for(Option::is_some).await.map_err(|_| ())?;
    (*found).ok_or(())
}
