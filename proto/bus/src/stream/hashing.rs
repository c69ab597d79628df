//! The digest of what is offered, computed beside the sending.
//!
//! Whoever sends a block has hashed it already ([`Hashing::sent`]); only what nobody sends,
//! or what was sent in pieces, is read for its digest alone.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_proto::id::Digest;
use godwit_proto::stream::{Extent, Span};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::stream::shelf::Item;
use crate::stream::tree::{BLOCK_BYTES, Tree};

/// How long a block waits for a sender that is at work.
const SENDER_PATIENCE: Duration = Duration::from_millis(2);
/// How many blocks are read in one go.
const STEP_BLOCKS: usize = 8;

/// What became of a block when it was sent.
#[derive(Debug, Clone, Copy)]
enum Sent {
    /// It has been hashed.
    Whole(Digest),
    /// It went in pieces: it must be read again.
    InPieces,
}

/// What is hashed of a stream.
pub(super) struct Hashing {
    progress: Mutex<Hashed>,
    /// Woken by every chunk that is sent.
    sent: Notify,
}

struct Hashed {
    tree: Tree,
    /// What was sent of the blocks that the tree does not cover yet.
    blocks: BTreeMap<u64, Sent>,
    /// True when something was sent since it was last looked at.
    is_sending: bool,
}

/// What there is to be done.
enum Next {
    /// The whole is hashed.
    Done(Digest),
    /// More of the stream has to appear.
    Grow,
    /// A sender is likely to hash the next block.
    Sender,
    /// The next block has to be read.
    Read(Span),
}

impl Hashing {
    pub(super) fn new() -> Self {
        let tree = Tree::new();
        let hashed = Hashed { tree, blocks: BTreeMap::new(), is_sending: false };
        Self { progress: Mutex::new(hashed), sent: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Hashed> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk is being sent; `block` is its digest if it is a whole block.
    pub(super) fn sent(&self, span: Span, block: Option<Digest>) {
        let mut hashed = self.lock();
        hashed.is_sending = true;
        let start = span.start - span.start % BLOCK_BYTES;
        if start + BLOCK_BYTES > hashed.tree.position() {
            match block {
                Some(value) => drop(hashed.blocks.insert(start, Sent::Whole(value))),
                None => drop(hashed.blocks.entry(start).or_insert(Sent::InPieces)),
            }
        }
        drop(hashed);
        self.sent.notify_one();
    }

    fn next(&self, extent: Extent) -> Next {
        let mut hashed = self.lock();
        loop {
            let at = hashed.tree.position();
            let span = Span::new(at, extent.bytes.min(at + BLOCK_BYTES));
            let is_tail = span.len() < BLOCK_BYTES;
            if is_tail && !extent.is_whole {
                return Next::Grow;
            }
            if span.is_empty() {
                return Next::Done(hashed.tree.digest());
            }
            while hashed.blocks.first_key_value().is_some_and(|(start, _)| *start < at) {
                hashed.blocks.pop_first();
            }
            let in_pieces = match hashed.blocks.get(&at).copied() {
                Some(Sent::Whole(value)) if hashed.tree.takes_block(span) => {
                    hashed.tree.add_block(value);
                    continue;
                }
                sent => sent.is_some(),
            };
            let is_sending = std::mem::take(&mut hashed.is_sending);
            return match is_sending && !in_pieces && !is_tail {
                true => Next::Sender,
                false => Next::Read(span),
            };
        }
    }
}

/// Hashes an item until it is whole or gone.
pub(super) async fn hash(item: Arc<Item>, digest: watch::Sender<Option<Digest>>) {
    let mut extent = item.extent.clone();
    let gone = item.gone.clone();
    let work = async {
        loop {
            let now = *extent.borrow_and_update();
            match item.hashing.next(now) {
                Next::Done(whole) => {
                    digest.send_replace(Some(whole));
                    return;
                }
                Next::Grow => {
                    if extent.changed().await.is_err() {
                        return;
                    }
                }
                Next::Sender => {
                    let _ = timeout(SENDER_PATIENCE, item.hashing.sent.notified()).await;
                }
                Next::Read(span) => {
                    let reader = item.clone();
                    let read = tokio::task::spawn_blocking(move || read(&reader, now, span)).await;
                    if let Ok(Err(error)) = read {
                        // Sending meets the same error and tells the receiver.
                        tracing::warn!(path = %item.path.display(), %error, "cannot hash it");
                        return;
                    }
                }
            }
        }
    };
    gone.run_until_cancelled(work).await;
}

/// Reads and hashes this block, and those after it that nobody is sending.
fn read(item: &Item, extent: Extent, mut span: Span) -> io::Result<()> {
    let mut bytes = vec![0; span.len() as usize];
    for _ in 0..STEP_BLOCKS {
        bytes.resize(span.len() as usize, 0);
        item.contents.read_exact_at(&mut bytes, span.start)?;
        item.hashing.lock().tree.update(&bytes);
        match item.hashing.next(extent) {
            Next::Read(next) => span = next,
            _ => return Ok(()),
        }
    }
    Ok(())
}
