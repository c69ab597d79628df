//! What a receiver keeps on disk: the bytes, and a journal of which bytes they are.
//!
//! `NAME.part` holds the stream's bytes, `NAME.journal` a record for every span written
//! before the record was. A process may die anywhere between two writes: the journal
//! never claims a byte that the kernel was not given. After the machine itself lost its
//! memory that is not enough, so a record counts in another boot only if a later record
//! says that everything before it was synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use godwit_proto::id::Digest;
use godwit_proto::stream::{RangeSet, Span, StreamId};

use crate::stream::chunk::digest;
use crate::stream::error::ReceiveError;

/// Data that may be lost with the machine's memory, for streams worth syncing.
const SYNC_EVERY_BYTES: u64 = 64 << 20;
const HASH_STEP_BYTES: usize = 1 << 20;

const HEADER_BYTES: usize = 96;
const RECORD_BYTES: usize = 24;
/// In place of a span: all before it is on disk.
const SYNCED: Span = Span { start: u64::MAX, end: u64::MAX };

/// The files of one stream, open.
pub(super) struct Store {
    into: PathBuf,
    stream: StreamId,
    data: File,
    journal: File,
    journal_end: u64,
    version: u64,
    size_bytes: u64,
    stored: RangeSet,
    unsynced_bytes: u64,
    hasher: blake3::Hasher,
    hashed_bytes: u64,
}

/// What a journal tells.
struct Journal {
    version: u64,
    size_bytes: u64,
    session: u64,
    stored: RangeSet,
    end: u64,
}

fn beside(into: &Path, suffix: &str) -> PathBuf {
    let mut name = into.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReceiveError {
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
        let mut bytes = Vec::new();
        let mut open = OpenOptions::new();
        open.read(true).write(true);
        let mut journal = match open.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        journal.read_to_end(&mut bytes).map_err(io_error("read", &path))?;
        let Some(found) = Journal::parse(&bytes, stream) else { return Ok(None) };
        let Ok(data) = open.open(beside(into, ".part")) else { return Ok(None) };
        let length = data.metadata().map_err(io_error("examine", into))?.len();
        if found.stored.spans().last().is_some_and(|last| last.end > length) {
            return Ok(None);
        }
        let store = Self {
            into: into.to_owned(),
            stream: stream.clone(),
            data,
            journal,
            journal_end: found.end,
            version: found.version,
            size_bytes: found.size_bytes,
            stored: found.stored,
            unsynced_bytes: 0,
            hasher: blake3::Hasher::new(),
            hashed_bytes: 0,
        };
        store.check_space()?;
        Ok(Some((store, found.session)))
    }

    /// Begins anew; whatever was there for `into` is gone.
    pub(super) fn create(
        into: &Path,
        stream: &StreamId,
        version: u64,
        size_bytes: u64,
        session: u64,
    ) -> Result<Self, ReceiveError> {
        discard(into);
        if let Some(directory) = into.parent() {
            fs::create_dir_all(directory).map_err(io_error("create", directory))?;
        }
        let open = |path: &Path| {
            let mut open = OpenOptions::new();
            open.read(true).write(true).create(true).truncate(true);
            open.open(path).map_err(io_error("create", path))
        };
        let mut store = Self {
            into: into.to_owned(),
            stream: stream.clone(),
            data: open(&beside(into, ".part"))?,
            journal: open(&beside(into, ".journal"))?,
            journal_end: 0,
            version,
            size_bytes,
            stored: RangeSet::new(),
            unsynced_bytes: 0,
            hasher: blake3::Hasher::new(),
            hashed_bytes: 0,
        };
        if let Err(error) = store.check_space() {
            discard(into);
            return Err(error);
        }
        store.write_header(session)?;
        Ok(store)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
    pub(super) fn stored(&self) -> &RangeSet {
        &self.stored
    }

    /// Remembers the newest session, so that the next one can be above it.
    pub(super) fn write_header(&mut self, session: u64) -> Result<(), ReceiveError> {
        let header = header(&self.stream, self.version, self.size_bytes, session);
        self.journal.write_all_at(&header, 0).map_err(|e| self.failed(e))?;
        self.journal_end = self.journal_end.max(HEADER_BYTES as u64);
        Ok(())
    }

    /// Stores a chunk's bytes; on return a restarted process finds them.
    pub(super) fn write(&mut self, span: Span, bytes: &[u8]) -> Result<(), ReceiveError> {
        self.data.write_all_at(bytes, span.start).map_err(|e| self.failed(e))?;
        self.append(span)?;
        self.stored.insert(span);
        if span.start == self.hashed_bytes {
            self.hasher.update(bytes);
            self.hashed_bytes = span.end;
        }
        self.unsynced_bytes += span.len();
        // A checkpoint is worthless after a reboot, and its transfer is part of the gap.
        if matches!(self.stream, StreamId::Image(_)) && self.unsynced_bytes >= SYNC_EVERY_BYTES {
            self.data.sync_data().map_err(|e| self.failed(e))?;
            self.append(SYNCED)?;
            self.journal.sync_data().map_err(|e| self.failed(e))?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// Hashes a little of what is stored in one piece from the start; false when there
    /// is nothing to do.
    pub(super) fn hash_step(&mut self) -> Result<bool, ReceiveError> {
        let ready = self.stored.prefix().saturating_sub(self.hashed_bytes);
        if ready == 0 {
            return Ok(false);
        }
        let mut bytes = vec![0; HASH_STEP_BYTES.min(ready as usize)];
        self.data.read_exact_at(&mut bytes, self.hashed_bytes).map_err(|e| self.failed(e))?;
        self.hasher.update(&bytes);
        self.hashed_bytes += bytes.len() as u64;
        Ok(true)
    }

    /// The digest of the whole, when all of it is stored.
    pub(super) fn whole_digest(&mut self) -> Result<Digest, ReceiveError> {
        while self.hash_step()? {}
        Ok(Digest(*self.hasher.finalize().as_bytes()))
    }

    /// Gives the complete file its name; replaces what had it before.
    pub(super) fn finish(self) -> Result<(), ReceiveError> {
        // An empty stream was never written to; anything longer has its length by now.
        fs::rename(beside(&self.into, ".part"), &self.into)
            .map_err(io_error("put in place", &self.into))?;
        let journal = beside(&self.into, ".journal");
        fs::remove_file(&journal).map_err(io_error("remove", &journal))
    }

    /// Removes everything that is kept of the stream.
    pub(super) fn discard(self) {
        discard(&self.into);
    }

    fn append(&mut self, span: Span) -> Result<(), ReceiveError> {
        self.journal
            .write_all_at(&record(span), self.journal_end)
            .map_err(|e| self.failed(e))?;
        self.journal_end += RECORD_BYTES as u64;
        Ok(())
    }

    fn check_space(&self) -> Result<(), ReceiveError> {
        let needed_bytes = self.size_bytes - self.stored.bytes();
        let free_bytes = free_bytes(&self.into).map_err(io_error("examine", &self.into))?;
        if needed_bytes > free_bytes {
            return Err(self.no_space(free_bytes));
        }
        Ok(())
    }

    fn no_space(&self, free_bytes: u64) -> ReceiveError {
        let needed_bytes = self.size_bytes - self.stored.bytes();
        ReceiveError::NoSpace { path: self.into.clone(), needed_bytes, free_bytes }
    }

    fn failed(&self, error: io::Error) -> ReceiveError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.no_space(free_bytes(&self.into).unwrap_or(0))
            }
            _ => io_error("write", &self.into)(error),
        }
    }
}

/// Removes whatever is kept for `into` so far.
fn discard(into: &Path) {
    // The journal first: without it the data claims nothing.
    let _ = fs::remove_file(beside(into, ".journal"));
    let _ = fs::remove_file(beside(into, ".part"));
}

fn free_bytes(into: &Path) -> io::Result<u64> {
    let directory = into.parent().filter(|p| !p.as_os_str().is_empty());
    let stat = nix::sys::statvfs::statvfs(directory.unwrap_or(Path::new(".")))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

fn boot() -> Digest {
    // Where the kernel does not tell, nothing is trusted beyond what was synced.
    let id = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    digest(&id)
}

fn identity(stream: &StreamId) -> Digest {
    match stream {
        StreamId::Checkpoint { container, epoch } => digest(format!("{container} {epoch}").as_bytes()),
        StreamId::Image(image) => digest(image.as_str().as_bytes()),
    }
}

fn header(stream: &StreamId, version: u64, size_bytes: u64, session: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let mut out = &mut bytes[..];
    let mut put = |part: &[u8]| {
        let (head, tail) = std::mem::take(&mut out).split_at_mut(part.len());
        head.copy_from_slice(part);
        out = tail;
    };
    put(b"godwit\0\x01");
    put(&identity(stream).0[..16]);
    put(&boot().0[..16]);
    put(&version.to_le_bytes());
    put(&size_bytes.to_le_bytes());
    put(&session.to_le_bytes());
    let check = digest(&bytes[..64]);
    bytes[64..].copy_from_slice(&check.0);
    bytes
}

fn record(span: Span) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&span.start.to_le_bytes());
    bytes[8..16].copy_from_slice(&span.end.to_le_bytes());
    let check = digest(&bytes[..16]);
    bytes[16..].copy_from_slice(&check.0[..8]);
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Journal {
    /// What the bytes claim for this boot; `None` when they are no journal of `stream`.
    fn parse(bytes: &[u8], stream: &StreamId) -> Option<Self> {
        let head = bytes.get(..HEADER_BYTES)?;
        let (version, size_bytes) = (number(&head[40..48]), number(&head[48..56]));
        let session = number(&head[56..64]);
        let this_boot = header(stream, version, size_bytes, session);
        let intact = digest(&head[..64]).0 == head[64..];
        if !intact || head[..24] != this_boot[..24] {
            return None;
        }
        let same_boot = head[24..40] == this_boot[24..40];
        let (mut written, mut synced) = (RangeSet::new(), RangeSet::new());
        let (mut end, mut synced_end) = (HEADER_BYTES, HEADER_BYTES);
        for bytes in bytes[HEADER_BYTES..].chunks_exact(RECORD_BYTES) {
            let span = Span::new(number(&bytes[..8]), number(&bytes[8..16]));
            if record(span) != bytes || (span != SYNCED && span.end > size_bytes) {
                break;
            }
            end += RECORD_BYTES;
            if span == SYNCED {
                (synced, synced_end) = (written.clone(), end);
            } else {
                written.insert(span);
            }
        }
        let (stored, end) = if same_boot { (written, end) } else { (synced, synced_end) };
        Some(Self { version, size_bytes, session, stored, end: end as u64 })
    }
}
