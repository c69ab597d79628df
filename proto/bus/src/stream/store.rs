//! What a receiver keeps on disk: `NAME.part` with the stream's bytes, and
//! `NAME.journal` that tells which bytes they are, until `NAME` is whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use godwit_proto::id::Digest;
use godwit_proto::stream::{ChunkHeader, RangeSet, StreamId};

use crate::stream::error::ReceiveError;
use crate::stream::journal::{Journal, Subject};
use crate::stream::tree::Tree;

/// Data that may be lost with the machine's memory, for streams worth syncing.
const SYNC_EVERY_BYTES: u64 = 64 << 20;
const HASH_STEP_BYTES: u64 = 1 << 20;

/// The files of one stream, open.
pub(super) struct Store {
    into: PathBuf,
    subject: Subject,
    data: File,
    journal: Journal,
    stored: RangeSet,
    unsynced_bytes: u64,
    /// How long the stream is known to be.
    bytes: u64,
    tree: Tree,
}

pub(super) fn beside(into: &Path, suffix: &str) -> PathBuf {
    let mut name = into.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReceiveError {
    let path = path.to_owned();
    move |source| ReceiveError::Io { doing, path, source }
}

impl Store {
    /// Opens what an earlier receiver left, and answers the number of its session.
    /// `None` when there is nothing that can be used.
    pub(super) fn resume(
        into: &Path,
        stream: &StreamId,
    ) -> Result<Option<(Self, u64)>, ReceiveError> {
        let path = beside(into, ".journal");
        let opened = Journal::open(&path, stream).map_err(io_error("read", &path))?;
        let Some((journal, found)) = opened else { return Ok(None) };
        let part = OpenOptions::new().read(true).write(true).open(beside(into, ".part"));
        let Ok(data) = part else { return Ok(None) };
        let length = data.metadata().map_err(io_error("examine", into))?.len();
        if found.stored.spans().last().is_some_and(|last| last.end > length) {
            return Ok(None);
        }
        let store = Self::new(into, found.subject, data, journal, found.stored);
        store.check_space()?;
        Ok(Some((store, found.session)))
    }

    /// Begins anew; whatever was kept for `into` is gone.
    pub(super) fn create(
        into: &Path,
        subject: Subject,
        session: u64,
    ) -> Result<Self, ReceiveError> {
        discard(into);
        if let Some(directory) = into.parent() {
            fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        }
        let (part, path) = (beside(into, ".part"), beside(into, ".journal"));
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(true);
        let data = open.open(&part).map_err(io_error("create", &part))?;
        let journal =
            Journal::create(&path, &subject, session).map_err(io_error("create", &path))?;
        let store = Self::new(into, subject, data, journal, RangeSet::new());
        store.check_space().inspect_err(|_| discard(into))?;
        Ok(store)
    }

    fn new(into: &Path, subject: Subject, data: File, journal: Journal, stored: RangeSet) -> Self {
        let bytes = subject.size_bytes.unwrap_or(0);
        let (into, unsynced_bytes, tree) = (into.to_owned(), 0, Tree::new());
        Self { into, subject, data, journal, stored, unsynced_bytes, bytes, tree }
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }
    pub(super) fn stored(&self) -> &RangeSet {
        &self.stored
    }

    /// Remembers the newest session, so that the next one can be above it.
    pub(super) fn set_session(&mut self, session: u64) -> Result<(), ReceiveError> {
        self.journal.set_session(&self.subject, session).map_err(|e| self.failed(e))
    }

    /// Stores a chunk's bytes; on return a restarted process finds them.
    pub(super) fn write(&mut self, header: &ChunkHeader, bytes: &[u8]) -> Result<(), ReceiveError> {
        let span = header.span;
        self.bytes = self.bytes.max(header.extent.bytes);
        self.data.write_all_at(bytes, span.start).map_err(|e| self.failed(e))?;
        self.journal.claim(span).map_err(|e| self.failed(e))?;
        self.stored.insert(span);
        if self.tree.takes_block(span) {
            self.tree.add_block(header.digest);
        } else if span.start == self.tree.position() {
            self.tree.update(bytes);
        }
        self.unsynced_bytes += span.len();
        // A checkpoint is worthless after a reboot, and its transfer is part of the gap.
        let worth_syncing = matches!(self.subject.stream, StreamId::Image(_));
        if worth_syncing && self.unsynced_bytes >= SYNC_EVERY_BYTES {
            self.data.sync_data().map_err(|e| self.failed(e))?;
            self.journal.claim_synced().map_err(|e| self.failed(e))?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// Hashes a little of what is stored in one piece from the start; false when there
    /// is nothing to do.
    pub(super) fn hash_step(&mut self) -> Result<bool, ReceiveError> {
        let at = self.tree.position();
        let ready = self.stored.prefix().saturating_sub(at);
        if ready == 0 {
            return Ok(false);
        }
        let mut bytes = vec![0; HASH_STEP_BYTES.min(ready) as usize];
        self.data.read_exact_at(&mut bytes, at).map_err(|e| self.failed(e))?;
        self.tree.update(&bytes);
        Ok(true)
    }

    /// The digest of the whole, when all of it is stored.
    pub(super) fn whole_digest(&mut self) -> Result<Digest, ReceiveError> {
        while self.hash_step()? {}
        Ok(self.tree.digest())
    }

    /// Gives the complete file its name; replaces what had it before.
    pub(super) fn finish(self) -> Result<(), ReceiveError> {
        fs::rename(beside(&self.into, ".part"), &self.into)
            .map_err(io_error("put in place", &self.into))?;
        let journal = beside(&self.into, ".journal");
        fs::remove_file(&journal).map_err(io_error("remove", &journal))
    }

    /// Removes everything that is kept of the stream.
    pub(super) fn discard(self) {
        discard(&self.into);
    }

    fn check_space(&self) -> Result<(), ReceiveError> {
        let free_bytes = free_bytes(&self.into).map_err(io_error("examine", &self.into))?;
        if self.needed_bytes() > free_bytes {
            return Err(self.no_space(free_bytes));
        }
        Ok(())
    }

    fn needed_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.stored.bytes())
    }

    fn no_space(&self, free_bytes: u64) -> ReceiveError {
        let needed_bytes = self.needed_bytes();
        ReceiveError::NoSpace { path: self.into.clone(), needed_bytes, free_bytes }
    }

    fn failed(&self, error: io::Error) -> ReceiveError {
        match is_full(&error) {
            true => self.no_space(free_bytes(&self.into).unwrap_or(0)),
            false => io_error("write", &self.into)(error),
        }
    }
}

/// True when a disk says that it has no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn discard(into: &Path) {
    // The journal first: without it the data claims nothing.
    let _ = fs::remove_file(beside(into, ".journal"));
    let _ = fs::remove_file(beside(into, ".part"));
}

pub(super) fn free_bytes(into: &Path) -> io::Result<u64> {
    let directory = into.parent().filter(|parent| !parent.as_os_str().is_empty());
    let stat = nix::sys::statvfs::statvfs(directory.unwrap_or(Path::new(".")))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}
