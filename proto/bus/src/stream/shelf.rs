//! The files that are offered: open, named by a version, hashed in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_proto::id::Digest;
use godwit_proto::stream::StreamId;
use godwit_proto::topic::Peer;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::stream::error::OfferError;
use crate::stream::progress::Progress;

const HASH_STEP_BYTES: usize = 1 << 20;

/// Who may ask for an offered stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Whoever can reach this peer.
    Anyone,
    /// These alone.
    Only(BTreeSet<Peer>),
}

impl From<Peer> for Audience {
    fn from(peer: Peer) -> Self {
        Self::Only(BTreeSet::from([peer]))
    }
}

impl Audience {
    fn includes(&self, peer: &Peer) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(peers) => peers.contains(peer),
        }
    }
}

/// One offered file. It must not change; a new state of it is a new offer.
pub(super) struct SourceFile {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) version: u64,
    /// Absent until the whole file was read once.
    pub(super) digest: watch::Receiver<Option<Digest>>,
    pub(super) progress: watch::Sender<Progress>,
    /// Cancelled when the file is no longer what the stream's name stands for.
    pub(super) gone: CancellationToken,
}

struct Entry {
    file: Arc<SourceFile>,
    audience: Audience,
    /// Made for those who asked: off the shelf, and closed, when the last of them is done.
    is_lent: bool,
}

/// Every offered file by its stream's name.
#[derive(Default)]
pub(super) struct Shelf {
    entries: Mutex<BTreeMap<StreamId, Entry>>,
    /// Woken whenever something new is on the shelf.
    pub(super) changed: Notify,
}

impl Shelf {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<StreamId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a file on the shelf and begins to hash it. The same file offered again only
    /// widens the audience; another one replaces it.
    pub(super) async fn put(
        &self,
        stream: StreamId,
        path: PathBuf,
        audience: Audience,
    ) -> Result<Arc<SourceFile>, OfferError> {
        self.shelve(stream, path, audience, false).await
    }

    /// As [`Shelf::put`], until [`Shelf::give_back`] by everyone whom it was lent to.
    pub(super) async fn lend(
        &self,
        stream: StreamId,
        path: PathBuf,
        to: &Peer,
    ) -> Result<Arc<SourceFile>, OfferError> {
        self.shelve(stream, path, Audience::from(to.clone()), true).await
    }

    /// `peer` needs a stream no more that may have been lent to it.
    pub(super) fn give_back(&self, stream: &StreamId, peer: &Peer) {
        let mut entries = self.entries();
        let Some(Entry { audience: Audience::Only(peers), is_lent: true, .. }) =
            entries.get_mut(stream)
        else {
            return;
        };
        peers.remove(peer);
        if peers.is_empty() {
            entries.remove(stream);
        }
    }

    async fn shelve(
        &self,
        stream: StreamId,
        path: PathBuf,
        audience: Audience,
        is_lent: bool,
    ) -> Result<Arc<SourceFile>, OfferError> {
        let opened = path.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opened)).await;
        let (file, size_bytes, version) = opened
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|source| OfferError { stream: stream.clone(), path: path.clone(), source })?;
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&stream)
            && (entry.file.version, entry.file.size_bytes) == (version, size_bytes)
        {
            match (&mut entry.audience, audience) {
                (Audience::Only(peers), Audience::Only(more)) => peers.extend(more),
                (widened, Audience::Anyone) => *widened = Audience::Anyone,
                (Audience::Anyone, _) => {}
            }
            entry.is_lent &= is_lent;
            self.changed.notify_waiters();
            return Ok(entry.file.clone());
        }
        let (digest_tx, digest) = watch::channel(None);
        let progress = Progress { total_bytes: Some(size_bytes), ..Progress::default() };
        let file = Arc::new(SourceFile {
            file: Arc::new(file),
            path,
            size_bytes,
            version,
            digest,
            progress: watch::Sender::new(progress),
            gone: CancellationToken::new(),
        });
        hash_in_background(&file, digest_tx);
        let entry = Entry { file: file.clone(), audience, is_lent };
        if let Some(old) = entries.insert(stream, entry) {
            old.file.gone.cancel();
        }
        self.changed.notify_waiters();
        Ok(file)
    }

    /// The file, if it is there and meant for `peer`.
    pub(super) fn get(&self, stream: &StreamId, peer: &Peer) -> Option<Arc<SourceFile>> {
        let entries = self.entries();
        let entry = entries.get(stream)?;
        entry.audience.includes(peer).then(|| entry.file.clone())
    }

    /// The progress of sending a stream, if it is on the shelf.
    pub(super) fn progress(&self, stream: &StreamId) -> Option<watch::Receiver<Progress>> {
        Some(self.entries().get(stream)?.file.progress.subscribe())
    }

    /// Shows that a receiver has it all.
    pub(super) fn complete(&self, stream: &StreamId) {
        if let Some(entry) = self.entries().get(stream) {
            let size_bytes = entry.file.size_bytes;
            entry.file.progress.send_modify(|progress| progress.bytes = size_bytes);
        }
    }

    /// Takes a stream off the shelf.
    pub(super) fn remove(&self, stream: &StreamId) {
        if let Some(entry) = self.entries().remove(stream) {
            entry.file.gone.cancel();
        }
    }

    /// Takes everything off the shelf.
    pub(super) fn clear(&self) {
        for (_, entry) in std::mem::take(&mut *self.entries()) {
            entry.file.gone.cancel();
        }
    }
}

/// Opens a file and names its state: another inode, time or length is another version.
fn open(path: &Path) -> io::Result<(File, u64, u64)> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let state =
        [meta.dev(), meta.ino(), meta.size(), meta.mtime() as u64, meta.mtime_nsec() as u64];
    let bytes: Vec<u8> = state.iter().flat_map(|part| part.to_le_bytes()).collect();
    let hash = blake3::hash(&bytes);
    let version = hash.as_bytes()[..8].iter().fold(0, |v, byte| v << 8 | u64::from(*byte));
    Ok((file, meta.size(), version))
}

/// Hashes the whole beside the sending: at 3 GB/s it is long done when the last chunk
/// leaves, and no byte waits for it.
fn hash_in_background(source: &Arc<SourceFile>, digest: watch::Sender<Option<Digest>>) {
    let source = source.clone();
    tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = vec![0; HASH_STEP_BYTES];
        let mut at = 0;
        while at < source.size_bytes && !source.gone.is_cancelled() {
            let step = bytes.len().min((source.size_bytes - at) as usize);
            if let Err(error) = source.file.read_exact_at(&mut bytes[..step], at) {
                // Sending meets the same error and tells the receiver.
                tracing::warn!(path = %source.path.display(), %error, "cannot hash an offered file");
                return;
            }
            hasher.update(&bytes[..step]);
            at += step as u64;
        }
        if at == source.size_bytes {
            digest.send_replace(Some(Digest(*hasher.finalize().as_bytes())));
        }
    });
}
