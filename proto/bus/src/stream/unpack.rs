//! What a receiver of an archive keeps on disk: the files themselves, each byte written
//! once where it belongs; beside the directory `NAME.journal`, how far the stream is
//! stored, and `NAME.layout`, the headers of its records, one after the other.
//!
//! A restart reads the headers again to know where in which file it was, and the files to
//! know the digest of what they hold.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use godwit_proto::id::Digest;
use godwit_proto::stream::record::{Demultiplexer, Piece, Record};
use godwit_proto::stream::{ChunkHeader, RangeSet, Span, StreamId};

use crate::stream::error::{ArchiveError, ReceiveError};
use crate::stream::journal::{Journal, Subject};
use crate::stream::store::{beside, free_bytes, io_error, is_full};
use crate::stream::tree::Tree;

/// More files than the largest checkpoint has.
const MAX_FILES: usize = 1 << 16;
const READ_BYTES: usize = 1 << 20;

/// An archive being unpacked, in order.
pub(super) struct Unpacker {
    into: PathBuf,
    subject: Subject,
    journal: Journal,
    layout: File,
    /// Where in the layout the open header begins.
    layout_end: u64,
    records: Demultiplexer,
    names: BTreeSet<Box<str>>,
    /// The file of the newest record.
    file: Option<(Box<str>, File)>,
    stored: RangeSet,
    /// How long the stream is known to be.
    bytes: u64,
    tree: Tree,
}

impl Unpacker {
    /// Opens what an earlier receiver left, and answers the number of its session.
    /// `None` when there is nothing that can be used.
    pub(super) fn resume(
        into: &Path,
        stream: &StreamId,
    ) -> Result<Option<(Self, u64)>, ReceiveError> {
        let path = beside(into, ".journal");
        let opened = Journal::open(&path, stream).map_err(io_error("read", &path))?;
        let Some((journal, found)) = opened else { return Ok(None) };
        let Ok(headers) = fs::read(beside(into, ".layout")) else { return Ok(None) };
        let layout = OpenOptions::new().write(true).open(beside(into, ".layout"));
        let Ok(layout) = layout else { return Ok(None) };
        let mut unpacker = Self::new(into, found.subject, journal, layout);
        unpacker.stored = found.stored;
        // Written in order: what lies beyond a gap was never ours.
        let is_usable = unpacker.stored.prefix() == unpacker.stored.bytes();
        if !is_usable || !unpacker.take_up(&headers).unwrap_or(false) {
            return Ok(None);
        }
        Ok(Some((unpacker, found.session)))
    }

    /// Begins anew; what an earlier receiver unpacked is gone.
    pub(super) fn create(
        into: &Path,
        subject: Subject,
        session: u64,
    ) -> Result<Self, ReceiveError> {
        discard(into);
        fs::create_dir_all(into).map_err(io_error("create", into))?;
        let path = beside(into, ".layout");
        let layout = File::create(&path).map_err(io_error("create", &path))?;
        let path = beside(into, ".journal");
        let journal =
            Journal::create(&path, &subject, session).map_err(io_error("create", &path))?;
        Ok(Self::new(into, subject, journal, layout))
    }

    fn new(into: &Path, subject: Subject, journal: Journal, layout: File) -> Self {
        Self {
            into: into.to_owned(),
            subject,
            journal,
            layout,
            layout_end: 0,
            records: Demultiplexer::default(),
            names: BTreeSet::new(),
            file: None,
            stored: RangeSet::new(),
            bytes: 0,
            tree: Tree::new(),
        }
    }

    /// Reads again what is stored; false when it is not what the journal claims.
    fn take_up(&mut self, headers: &[u8]) -> io::Result<bool> {
        let end = self.stored.prefix();
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let rest = headers.get(self.layout_end as usize..).unwrap_or_default();
            let Ok(parsed) = Record::parse(rest) else { return Ok(false) };
            let left = end - self.tree.position();
            let (record, header_bytes) = match parsed {
                Some((record, header_bytes)) if header_bytes as u64 <= left => {
                    (record, header_bytes)
                }
                // The last header, not all of which was claimed.
                _ => {
                    let Some(header) = rest.get(..left as usize) else { return Ok(false) };
                    self.tree.update(header);
                    self.records = Demultiplexer::resume(header.to_vec(), 0, 0);
                    return Ok(true);
                }
            };
            self.tree.update(&rest[..header_bytes]);
            self.layout_end += header_bytes as u64;
            self.names.insert(record.name.clone());
            let file = File::open(self.into.join(&*record.name))?;
            let stored = record.len.min(left - header_bytes as u64);
            let mut at = 0;
            while at < stored {
                let step = READ_BYTES.min((stored - at) as usize);
                file.read_exact_at(&mut bytes[..step], record.offset + at)?;
                self.tree.update(&bytes[..step]);
                at += step as u64;
            }
            if self.tree.position() == end {
                let (offset, left) = (record.offset + stored, record.len - stored);
                self.records = Demultiplexer::resume(Vec::new(), offset, left);
                if left > 0 {
                    self.open(&record.name)?;
                }
                return Ok(true);
            }
        }
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }
    pub(super) fn stored(&self) -> &RangeSet {
        &self.stored
    }
    /// Where the bytes belong that can be written next.
    pub(super) fn position(&self) -> u64 {
        self.tree.position()
    }

    /// Remembers the newest session, so that the next one can be above it.
    pub(super) fn set_session(&mut self, session: u64) -> Result<(), ReceiveError> {
        self.journal.set_session(&self.subject, session).map_err(|e| self.failed(e))
    }

    /// Stores a chunk that begins at the position or before it; on return a restarted
    /// process finds it.
    pub(super) fn write(&mut self, header: &ChunkHeader, bytes: &[u8]) -> Result<(), ReceiveError> {
        let (span, at) = (header.span, self.position());
        self.bytes = self.bytes.max(header.extent.bytes);
        let Some(new) = bytes.get(at.saturating_sub(span.start) as usize..) else { return Ok(()) };
        let mut input = new;
        while let Some(piece) = self.records.next(&mut input).map_err(|e| self.bad(e.into()))? {
            match piece {
                Piece::Begins(record) => self.begin(&record)?,
                Piece::Bytes { offset, bytes } => {
                    if let Some((_, file)) = &self.file {
                        file.write_all_at(bytes, offset).map_err(|e| self.failed(e))?;
                    }
                }
            }
        }
        // Kept before it is claimed: a restart cannot ask for the front of a header again.
        let layout = self.layout.write_all_at(self.records.header(), self.layout_end);
        layout.map_err(|e| self.failed(e))?;
        self.journal.claim(Span::new(at, span.end)).map_err(|e| self.failed(e))?;
        self.stored.insert(Span::new(at, span.end));
        if self.tree.takes_block(span) {
            self.tree.add_block(header.digest);
        } else {
            self.tree.update(new);
        }
        Ok(())
    }

    fn begin(&mut self, record: &Record) -> Result<(), ReceiveError> {
        let header = record.header();
        let layout = self.layout.write_all_at(&header, self.layout_end);
        layout.map_err(|e| self.failed(e))?;
        self.layout_end += header.len() as u64;
        if self.file.as_ref().is_some_and(|(name, _)| *name == record.name) {
            return Ok(());
        }
        self.open(&record.name).map_err(|e| self.failed(e))?;
        if self.names.len() > MAX_FILES {
            return Err(self.bad(ArchiveError::Files { limit: MAX_FILES }));
        }
        Ok(())
    }

    /// Opens a file to be written to; one that is met for the first time is emptied.
    fn open(&mut self, name: &str) -> io::Result<()> {
        let is_new = self.names.insert(name.into());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(is_new).mode(0o600);
        options.custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(self.into.join(name))?;
        self.file = Some((name.into(), file));
        Ok(())
    }

    /// The digest of all that is stored.
    pub(super) fn whole_digest(&self) -> Result<Digest, ReceiveError> {
        if !self.records.is_between() {
            return Err(self.bad(ArchiveError::Cut));
        }
        Ok(self.tree.digest())
    }

    /// Forgets how the files came about: they are complete.
    pub(super) fn finish(self) -> Result<(), ReceiveError> {
        for path in [beside(&self.into, ".journal"), beside(&self.into, ".layout")] {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// Removes everything that was unpacked.
    pub(super) fn discard(self) {
        discard(&self.into);
    }

    fn bad(&self, source: ArchiveError) -> ReceiveError {
        ReceiveError::Archive { path: self.into.clone(), source }
    }

    fn failed(&self, error: io::Error) -> ReceiveError {
        if !is_full(&error) {
            return io_error("write", &self.into)(error);
        }
        ReceiveError::NoSpace {
            path: self.into.clone(),
            needed_bytes: self.bytes.saturating_sub(self.position()),
            free_bytes: free_bytes(&self.into).unwrap_or(0),
        }
    }
}

/// Removes the files that the layout names, and what tells about them.
fn discard(into: &Path) {
    let headers = fs::read(beside(into, ".layout")).unwrap_or_default();
    // The journal first: without it nothing is claimed.
    let _ = fs::remove_file(beside(into, ".journal"));
    let mut rest = &headers[..];
    while let Ok(Some((record, header_bytes))) = Record::parse(rest) {
        let _ = fs::remove_file(into.join(&*record.name));
        rest = &rest[header_bytes..];
    }
    let _ = fs::remove_file(beside(into, ".layout"));
}
