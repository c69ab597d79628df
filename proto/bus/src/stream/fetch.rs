//! The receiving side: one task for each stream that is being received.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use godwit_proto::id::Digest;
use godwit_proto::stream::{
    Arrival, Extent, Manifest, OfferNews, Receiver, StopReason, StreamFrame, StreamId,
};
use godwit_proto::topic::Peer;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::stream::error::ReceiveError;
use crate::stream::journal::Subject;
use crate::stream::progress::Progress;
use crate::stream::shared::Shared;
use crate::stream::sink::Destination;
use crate::stream::worker::{Chunk, Handled, Settled, Worker, settle};
use crate::stream::{ReceiveOptions, Received};

/// So many garbled chunks in a row are not the link's fault.
const GARBLED_LIMIT: u32 = 16;

/// What arrives for one receiver.
pub(super) struct Inbound {
    pub(super) ctl: mpsc::Receiver<StreamFrame>,
    pub(super) bulk: mpsc::Receiver<Chunk>,
}

/// One stream being received.
pub(super) struct Fetch {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: StreamId,
    pub(super) from: Peer,
    pub(super) into: Destination,
    pub(super) options: ReceiveOptions,
    pub(super) progress: watch::Sender<Progress>,
}

/// What changes while it is received.
struct State {
    core: Receiver,
    session: u64,
    worker: Option<Worker>,
    wire_bytes: u64,
    garbled: u32,
    heard: Instant,
}

impl Fetch {
    /// Receives the stream. When `cancelled` resolves, what is stored stays on disk and
    /// the result is `None`; either way nothing touches the files any more on return.
    pub(super) async fn run(
        self,
        mut inbound: Inbound,
        cancelled: impl Future<Output = ()>,
    ) -> Option<Result<Received, ReceiveError>> {
        let mut state = match self.begin().await {
            Ok(state) => state,
            Err(error) => return Some(Err(error)),
        };
        let outcome = tokio::select! {
            biased;
            () = cancelled => None,
            outcome = self.drive(&mut state, &mut inbound) => Some(outcome),
        };
        let session = state.session;
        let result = match outcome {
            Some(Ok(digest)) => Some(self.complete(state, digest).await),
            Some(Err(error)) => {
                close(state).await;
                Some(Err(error))
            }
            None => {
                close(state).await;
                None
            }
        };
        let reason = match &result {
            Some(Ok(_)) => StopReason::Complete,
            Some(Err(error)) => error.stop_reason(),
            None => StopReason::Cancelled,
        };
        let stop = StreamFrame::Stop { stream: self.stream.clone(), session, reason };
        self.shared.send(&self.from, &stop).await;
        result
    }

    /// Takes up what an earlier attempt stored.
    async fn begin(&self) -> Result<State, ReceiveError> {
        let (into, stream) = (self.into.clone(), self.stream.clone());
        let resumed = blocking(move || into.resume(&stream)).await?;
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut session = clock.as_micros() as u64;
        let mut core = None;
        let mut worker = None;
        if let Some((mut sink, last_session)) = resumed {
            // The clock may have gone back; sessions must not.
            session = session.max(last_session + 1);
            sink.set_session(session)?;
            let fresh = Receiver::new(self.stream.clone(), session, self.options.bwlimit);
            let Subject { version, size_bytes, .. } = *sink.subject();
            let stored = sink.stored().clone();
            let end = stored.spans().last().map_or(0, |last| last.end);
            tracing::info!(stream = %self.stream, bytes = stored.bytes(), "taken up where it was left");
            let extent = size_bytes.map_or(Extent::growing(end), Extent::whole);
            core = Some(fresh.resume(version, extent, stored));
            worker = Some(Worker::start(sink));
        }
        let fresh = || Receiver::new(self.stream.clone(), session, self.options.bwlimit);
        let core = core.unwrap_or_else(fresh);
        Ok(State { core, session, worker, wire_bytes: 0, garbled: 0, heard: Instant::now() })
    }

    /// Receives until everything is stored and its digest is known.
    async fn drive(
        &self,
        state: &mut State,
        inbound: &mut Inbound,
    ) -> Result<Digest, ReceiveError> {
        loop {
            self.show(state);
            if state.core.is_full()
                && let Some(digest) = state.core.digest()
            {
                return Ok(digest);
            }
            state.core.set_window_cap(self.shared.window_cap());
            if let Some(want) = state.core.poll(self.shared.now()) {
                self.shared.send(&self.from, &StreamFrame::Want(want)).await;
            }
            let patience = self.options.patience.map(|patience| state.heard + patience);
            let wake = self.shared.instant(state.core.wake_at());
            // Every chunk that is let through is answered; so there is always room again.
            let room = state.worker.as_ref().is_none_or(|worker| worker.chunks.capacity() > 0);
            tokio::select! {
                biased;
                Some(handled) = answers(&mut state.worker) => {
                    self.on_handled(state, handled)?;
                }
                Some(frame) = inbound.ctl.recv() => self.on_ctl(state, frame).await?,
                Some(chunk) = inbound.bulk.recv(), if room => {
                    self.on_chunk(state, chunk).await?;
                }
                () = sleep_until(patience.map_or(wake, |patience| patience.min(wake))) => {
                    if let Some(limit) = self.options.patience
                        && state.heard.elapsed() >= limit
                    {
                        return Err(self.silent(state.heard.elapsed()));
                    }
                }
            }
        }
    }

    async fn on_ctl(&self, state: &mut State, frame: StreamFrame) -> Result<(), ReceiveError> {
        state.heard = Instant::now();
        let now = self.shared.now();
        match frame {
            StreamFrame::Offer(offer) => {
                let news = state.core.on_offer(now, &offer);
                self.on_news(state, news).await
            }
            StreamFrame::NotYet { .. } => {
                state.core.on_not_yet(now);
                Ok(())
            }
            StreamFrame::Refused { reason, .. } => Err(ReceiveError::Refused {
                stream: self.stream.clone(),
                from: self.from.clone(),
                reason,
            }),
            // Not for a receiver: routed elsewhere.
            StreamFrame::Want(_) | StreamFrame::Stop { .. } => Ok(()),
        }
    }

    async fn on_chunk(&self, state: &mut State, chunk: Chunk) -> Result<(), ReceiveError> {
        state.heard = Instant::now();
        state.wire_bytes += chunk.wire_bytes;
        if state.core.judge(self.shared.now(), &chunk.header) != Arrival::Lacking {
            return Ok(());
        }
        let news = state.core.on_chunk_header(&chunk.header);
        self.on_news(state, news).await?;
        if let Some(worker) = &state.worker {
            // There is room: this task alone sends, and it looked before.
            let _ = worker.chunks.try_send(chunk);
        }
        Ok(())
    }

    fn on_handled(&self, state: &mut State, handled: Handled) -> Result<(), ReceiveError> {
        let now = self.shared.now();
        match handled {
            Handled::Stored(Chunk { header, wire_bytes, .. }) => {
                state.garbled = 0;
                state.core.stored(now, &header, wire_bytes);
                Ok(())
            }
            Handled::Held(header, wire_bytes) => {
                state.core.held(now, &header, wire_bytes);
                Ok(())
            }
            Handled::Garbled(Chunk { header, .. }) => {
                tracing::warn!(stream = %self.stream, peer = %self.from, span = ?header.span,
                    "a garbled chunk; asking again");
                state.garbled += 1;
                if state.garbled >= GARBLED_LIMIT {
                    return Err(ReceiveError::Garbled {
                        stream: self.stream.clone(),
                        from: self.from.clone(),
                        chunks: state.garbled,
                    });
                }
                state.core.on_corrupt(now, header.span);
                Ok(())
            }
            Handled::Failed(error) => Err(error),
        }
    }

    /// Acts on what was learned of the stream.
    async fn on_news(&self, state: &mut State, news: OfferNews) -> Result<(), ReceiveError> {
        if let (Some((_, extent)), Some(limit_bytes)) =
            (state.core.source(), self.options.limit_bytes)
            && extent.bytes > limit_bytes
        {
            let (stream, from) = (self.stream.clone(), self.from.clone());
            let bytes = extent.bytes;
            return Err(ReceiveError::TooLarge { stream, from, bytes, limit_bytes });
        }
        match news {
            OfferNews::Nothing | OfferNews::Grown => Ok(()),
            OfferNews::Known | OfferNews::Replaced => self.make_sink(state).await,
        }
    }

    /// Makes the files for what the sender now has, in place of any for another version.
    async fn make_sink(&self, state: &mut State) -> Result<(), ReceiveError> {
        if let Some(worker) = state.worker.take() {
            let _ = worker.stop().await;
        }
        let Some((version, extent)) = state.core.source() else { return Ok(()) };
        let size_bytes = extent.total();
        let subject = Subject { stream: self.stream.clone(), version, size_bytes };
        let (into, session) = (self.into.clone(), state.session);
        let make = move || into.create(subject, session);
        state.worker = Some(Worker::start(blocking(make).await?));
        Ok(())
    }

    /// Checks the whole and gives it its name.
    async fn complete(&self, state: State, digest: Digest) -> Result<Received, ReceiveError> {
        let State { worker, core, wire_bytes, .. } = state;
        let (Some(worker), Some((_, extent))) = (worker, core.source()) else {
            return Err(ReceiveError::Closed { stream: self.stream.clone() });
        };
        let path = self.into.path().to_owned();
        let sink = worker.stop().await.map_err(|source| ReceiveError::Io {
            doing: "write",
            path: path.clone(),
            source,
        })?;
        let size_bytes = extent.bytes;
        match settle(sink, digest).await? {
            Settled::InPlace => Ok(Received {
                path,
                manifest: Manifest { stream: self.stream.clone(), size_bytes, digest },
                wire_bytes,
            }),
            Settled::Discarded { found } => Err(ReceiveError::Corrupt {
                stream: self.stream.clone(),
                from: self.from.clone(),
                expected: digest,
                found,
            }),
        }
    }

    fn show(&self, state: &State) {
        let now = Progress {
            bytes: state.core.stored_bytes(),
            total_bytes: state.core.source().and_then(|(_, extent)| extent.total()),
            wire_bytes: state.wire_bytes,
            rate: state.core.rate().unwrap_or(0),
        };
        self.progress.send_if_modified(|shown| std::mem::replace(shown, now) != now);
    }

    fn silent(&self, silence: Duration) -> ReceiveError {
        ReceiveError::Silent { stream: self.stream.clone(), from: self.from.clone(), silence }
    }
}

async fn answers(worker: &mut Option<Worker>) -> Option<Handled> {
    match worker {
        Some(worker) => worker.handled.recv().await,
        None => std::future::pending().await,
    }
}

async fn close(state: State) {
    if let Some(worker) = state.worker {
        let _ = worker.stop().await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static,
) -> Result<T, ReceiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
