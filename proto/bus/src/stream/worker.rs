//! The receiver's own thread: unpacks, verifies, writes, and hashes when idle.

use bytes::Bytes;
use godwit_proto::id::Digest;
use godwit_proto::stream::ChunkHeader;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinHandle;

use crate::stream::chunk::unpack;
use crate::stream::error::ReceiveError;
use crate::stream::store::Store;

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

/// What became of a chunk; exactly one for each, in their order.
pub(super) enum Handled {
    /// A restart finds its bytes.
    Stored(Chunk),
    /// Its bytes are not what its digest says.
    Garbled(Chunk),
    /// It could not be stored; the thread has ended.
    Failed(ReceiveError),
}

/// The thread, as its owner holds it.
pub(super) struct Worker {
    pub(super) chunks: mpsc::Sender<Chunk>,
    pub(super) handled: mpsc::UnboundedReceiver<Handled>,
    thread: JoinHandle<Store>,
}

impl Worker {
    /// Starts a thread that owns `store`.
    pub(super) fn start(store: Store) -> Self {
        let (chunks, queue) = mpsc::channel(QUEUE);
        // Holds at most an answer for each chunk that its owner let in: within the window.
        let (answers, handled) = mpsc::unbounded_channel();
        let thread = tokio::task::spawn_blocking(move || work(store, queue, answers));
        Self { chunks, handled, thread }
    }

    /// Waits for the thread to end, and takes the store back.
    pub(super) async fn stop(self) -> std::io::Result<Store> {
        drop(self.chunks);
        drop(self.handled);
        self.thread.await.map_err(std::io::Error::other)
    }
}

fn work(
    mut store: Store,
    mut queue: mpsc::Receiver<Chunk>,
    answers: mpsc::UnboundedSender<Handled>,
) -> Store {
    loop {
        let chunk = match queue.try_recv() {
            Ok(chunk) => chunk,
            Err(TryRecvError::Disconnected) => return store,
            Err(TryRecvError::Empty) => match store.hash_step() {
                Ok(true) => continue,
                Ok(false) => match queue.blocking_recv() {
                    Some(chunk) => chunk,
                    None => return store,
                },
                Err(error) => {
                    let _ = answers.send(Handled::Failed(error));
                    return store;
                }
            },
        };
        let answer = handle(&mut store, chunk);
        let failed = matches!(answer, Handled::Failed(_));
        // Nobody listens when the receiver was cancelled; what is stored is still worth it.
        let _ = answers.send(answer);
        if failed {
            return store;
        }
    }
}

fn handle(store: &mut Store, mut chunk: Chunk) -> Handled {
    let Some(raw) = unpack(&chunk.header, &chunk.body) else { return Handled::Garbled(chunk) };
    match store.write(chunk.header.span, &raw) {
        Ok(()) => {
            chunk.body = Bytes::new();
            Handled::Stored(chunk)
        }
        Err(error) => Handled::Failed(error),
    }
}

/// Ends a receiver's files: the digest of the whole, and the name if it is right.
pub(super) async fn settle(mut store: Store, expected: Digest) -> Result<Settled, ReceiveError> {
    let done = tokio::task::spawn_blocking(move || {
        let found = store.whole_digest()?;
        if found == expected {
            store.finish()?;
            return Ok(Settled::InPlace);
        }
        store.discard();
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
