//! The receiver's own thread: unpacks, verifies, writes, and hashes when idle. What comes
//! too early for a sink that writes in order it holds, as it came.

use std::collections::BTreeMap;

use bytes::Bytes;
use godwit_proto::id::Digest;
use godwit_proto::stream::ChunkHeader;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinHandle;

use crate::stream::chunk::unpack;
use crate::stream::error::ReceiveError;
use crate::stream::sink::Sink;

/// How many chunks wait for the thread; their bytes are bounded by the window.
const QUEUE: usize = 64;

/// A chunk that arrived.
pub(super) struct Chunk {
    pub(super) header: ChunkHeader,
    pub(super) body: Bytes,
    /// Its weight on the wire, header included.
    pub(super) wire_bytes: u64,
    /// Its share of what the receiver's memory may hold.
    pub(super) _weight: OwnedSemaphorePermit,
}

/// What became of a chunk.
pub(super) enum Handled {
    /// A restart finds its bytes.
    Stored(Chunk),
    /// It is good and waits for what comes before it; later it will be stored.
    Held(ChunkHeader, u64),
    /// Its bytes are not what its digest says.
    Garbled(Chunk),
    /// It could not be stored; the thread has ended.
    Failed(ReceiveError),
}

/// The thread, as its owner holds it.
pub(super) struct Worker {
    pub(super) chunks: mpsc::Sender<Chunk>,
    pub(super) handled: mpsc::UnboundedReceiver<Handled>,
    thread: JoinHandle<Sink>,
}

impl Worker {
    /// Starts a thread that owns `sink`.
    pub(super) fn start(sink: Sink) -> Self {
        let (chunks, queue) = mpsc::channel(QUEUE);
        // Holds at most two answers for each chunk that its owner let in: within the window.
        let (answers, handled) = mpsc::unbounded_channel();
        let thread = tokio::task::spawn_blocking(move || {
            Desk { sink, held: BTreeMap::new(), answers }.work(queue)
        });
        Self { chunks, handled, thread }
    }

    /// Waits for the thread to end, and takes the sink back.
    pub(super) async fn stop(self) -> std::io::Result<Sink> {
        drop(self.chunks);
        drop(self.handled);
        self.thread.await.map_err(std::io::Error::other)
    }
}

/// The thread's own.
struct Desk {
    sink: Sink,
    /// Chunks that came too early, packed as they came: together within the window.
    held: BTreeMap<u64, Chunk>,
    /// Nobody listens when the receiver was cancelled; what is stored is still worth it.
    answers: mpsc::UnboundedSender<Handled>,
}

impl Desk {
    fn work(mut self, mut queue: mpsc::Receiver<Chunk>) -> Sink {
        loop {
            let chunk = match queue.try_recv() {
                Ok(chunk) => chunk,
                Err(TryRecvError::Disconnected) => return self.sink,
                Err(TryRecvError::Empty) => match self.sink.hash_step() {
                    Ok(true) => continue,
                    Ok(false) => match queue.blocking_recv() {
                        Some(chunk) => chunk,
                        None => return self.sink,
                    },
                    Err(error) => return self.give_up(error),
                },
            };
            if let Err(error) = self.handle(chunk) {
                return self.give_up(error);
            }
        }
    }

    fn give_up(self, error: ReceiveError) -> Sink {
        let _ = self.answers.send(Handled::Failed(error));
        self.sink
    }

    fn handle(&mut self, chunk: Chunk) -> Result<(), ReceiveError> {
        let start = chunk.header.span.start;
        if self.sink.takes(start) {
            self.store(chunk)?;
        } else if unpack(&chunk.header, &chunk.body).is_some() {
            let _ = self.answers.send(Handled::Held(chunk.header.clone(), chunk.wire_bytes));
            let longer = |other: &Chunk| other.header.span.end < chunk.header.span.end;
            if self.held.get(&start).is_none_or(longer) {
                self.held.insert(start, chunk);
            }
        } else {
            let _ = self.answers.send(Handled::Garbled(chunk));
        }
        while let Some(next) = self.held.first_entry()
            && self.sink.takes(*next.key())
        {
            let chunk = next.remove();
            self.store(chunk)?;
        }
        Ok(())
    }

    fn store(&mut self, mut chunk: Chunk) -> Result<(), ReceiveError> {
        let Some(raw) = unpack(&chunk.header, &chunk.body) else {
            let _ = self.answers.send(Handled::Garbled(chunk));
            return Ok(());
        };
        self.sink.write(&chunk.header, &raw)?;
        chunk.body = Bytes::new();
        let _ = self.answers.send(Handled::Stored(chunk));
        Ok(())
    }
}

/// Ends a receiver's files: the digest of the whole, and the name if it is right.
pub(super) async fn settle(mut sink: Sink, expected: Digest) -> Result<Settled, ReceiveError> {
    let done = tokio::task::spawn_blocking(move || {
        let found = sink.whole_digest()?;
        if found == expected {
            sink.finish()?;
            return Ok(Settled::InPlace);
        }
        sink.discard();
        Ok(Settled::Discarded { found })
    });
    match done.await {
        Ok(settled) => settled,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// How a complete file ended.
pub(super) enum Settled {
    /// It has its name.
    InPlace,
    /// It was not what the sender hashed.
    Discarded {
        /// What it was.
        found: Digest,
    },
}
