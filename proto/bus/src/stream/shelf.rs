//! What is offered: open, named by a version, hashed in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_proto::id::Digest;
use godwit_proto::stream::{Extent, StreamId};
use godwit_proto::topic::Peer;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::stream::contents::{Contents, Layout};
use crate::stream::error::OfferError;
use crate::stream::hashing::{Hashing, hash};
use crate::stream::progress::Progress;

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

/// What one stream's name stands for. Its bytes must not change; another state of them is
/// another item.
pub(super) struct Item {
    pub(super) contents: Contents,
    /// The file, or what an archive is called in messages.
    pub(super) path: PathBuf,
    pub(super) version: u64,
    pub(super) extent: watch::Receiver<Extent>,
    pub(super) hashing: Hashing,
    /// Absent until the whole was hashed.
    pub(super) digest: watch::Receiver<Option<Digest>>,
    pub(super) progress: watch::Sender<Progress>,
    /// Cancelled when this is no longer what the stream's name stands for.
    pub(super) gone: CancellationToken,
}

impl Item {
    /// An item whose digest begins to be computed. Call it inside the runtime.
    fn start(
        contents: Contents,
        path: PathBuf,
        version: u64,
        extent: watch::Receiver<Extent>,
    ) -> Arc<Self> {
        let (digest_tx, digest) = watch::channel(None);
        let total_bytes = extent.borrow().total();
        let item = Arc::new(Self {
            contents,
            path,
            version,
            extent,
            hashing: Hashing::new(),
            digest,
            progress: watch::Sender::new(Progress { total_bytes, ..Progress::default() }),
            gone: CancellationToken::new(),
        });
        tokio::spawn(hash(item.clone(), digest_tx));
        item
    }
}

struct Entry {
    item: Arc<Item>,
    audience: Audience,
    /// Made for those who asked: off the shelf, and closed, when the last of them is done.
    is_lent: bool,
}

/// Everything offered, by its stream's name.
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
    ) -> Result<Arc<Item>, OfferError> {
        self.shelve(stream, path, audience, false).await
    }

    /// Puts an archive on the shelf, in place of whatever had its name.
    pub(super) fn put_archive(
        &self,
        stream: StreamId,
        layout: Layout,
        version: u64,
        extent: watch::Receiver<Extent>,
        audience: Audience,
    ) -> Arc<Item> {
        let path = PathBuf::from(format!("the archive of {stream}"));
        let item = Item::start(Contents::Archive(layout), path, version, extent);
        self.enter(&mut self.entries(), stream, &item, audience, false);
        item
    }

    /// As [`Shelf::put`], until [`Shelf::give_back`] by everyone whom it was lent to.
    pub(super) async fn lend(
        &self,
        stream: StreamId,
        path: PathBuf,
        to: &Peer,
    ) -> Result<Arc<Item>, OfferError> {
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
    ) -> Result<Arc<Item>, OfferError> {
        let opened = path.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opened)).await;
        let (file, size_bytes, version) = opened
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|source| OfferError { stream: stream.clone(), path: path.clone(), source })?;
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&stream)
            && entry.item.version == version
        {
            match (&mut entry.audience, audience) {
                (Audience::Only(peers), Audience::Only(more)) => peers.extend(more),
                (widened, Audience::Anyone) => *widened = Audience::Anyone,
                (Audience::Anyone, _) => {}
            }
            entry.is_lent &= is_lent;
            self.changed.notify_waiters();
            return Ok(entry.item.clone());
        }
        let extent = watch::channel(Extent::whole(size_bytes)).1;
        let item = Item::start(Contents::File(file), path, version, extent);
        self.enter(&mut entries, stream, &item, audience, is_lent);
        Ok(item)
    }

    fn enter(
        &self,
        entries: &mut BTreeMap<StreamId, Entry>,
        stream: StreamId,
        item: &Arc<Item>,
        audience: Audience,
        is_lent: bool,
    ) {
        if let Some(old) = entries.insert(stream, Entry { item: item.clone(), audience, is_lent }) {
            old.item.gone.cancel();
        }
        self.changed.notify_waiters();
    }

    /// What is offered, if it is there and meant for `peer`.
    pub(super) fn get(&self, stream: &StreamId, peer: &Peer) -> Option<Arc<Item>> {
        let entries = self.entries();
        let entry = entries.get(stream)?;
        entry.audience.includes(peer).then(|| entry.item.clone())
    }

    /// The progress of sending a stream, if it is on the shelf.
    pub(super) fn progress(&self, stream: &StreamId) -> Option<watch::Receiver<Progress>> {
        Some(self.entries().get(stream)?.item.progress.subscribe())
    }

    /// Shows that a receiver has it all.
    pub(super) fn complete(&self, stream: &StreamId) {
        if let Some(entry) = self.entries().get(stream) {
            let size_bytes = entry.item.extent.borrow().bytes;
            entry.item.progress.send_modify(|progress| progress.bytes = size_bytes);
        }
    }

    /// Takes a stream off the shelf.
    pub(super) fn remove(&self, stream: &StreamId) {
        if let Some(entry) = self.entries().remove(stream) {
            entry.item.gone.cancel();
        }
    }

    /// True when this very item is what the name stands for.
    pub(super) fn holds(&self, stream: &StreamId, item: &Arc<Item>) -> bool {
        self.entries().get(stream).is_some_and(|entry| Arc::ptr_eq(&entry.item, item))
    }

    /// Takes everything off the shelf.
    pub(super) fn clear(&self) {
        for (_, entry) in std::mem::take(&mut *self.entries()) {
            entry.item.gone.cancel();
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
