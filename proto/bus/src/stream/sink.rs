//! Where a stream goes: into one file, or into a directory as the files of an archive.

use std::path::{Path, PathBuf};

use godwit_proto::id::Digest;
use godwit_proto::stream::{ChunkHeader, RangeSet, StreamId};

use crate::stream::error::ReceiveError;
use crate::stream::journal::Subject;
use crate::stream::store::Store;
use crate::stream::unpack::Unpacker;

/// What a stream is to become.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// This file.
    File(PathBuf),
    /// The files of an archive, in this directory.
    Directory(PathBuf),
}

impl Destination {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Directory(path) => path,
        }
    }

    /// Opens what an earlier receiver left, and answers the number of its session.
    /// `None` when there is nothing that can be used.
    pub(super) fn resume(&self, stream: &StreamId) -> Result<Option<(Sink, u64)>, ReceiveError> {
        Ok(match self {
            Self::File(path) => {
                Store::resume(path, stream)?.map(|(store, session)| (Sink::File(store), session))
            }
            Self::Directory(path) => Unpacker::resume(path, stream)?
                .map(|(unpacker, session)| (Sink::Directory(unpacker), session)),
        })
    }

    /// Begins anew; whatever was kept is gone.
    pub(super) fn create(&self, subject: Subject, session: u64) -> Result<Sink, ReceiveError> {
        Ok(match self {
            Self::File(path) => Sink::File(Store::create(path, subject, session)?),
            Self::Directory(path) => Sink::Directory(Unpacker::create(path, subject, session)?),
        })
    }
}

/// A destination, open.
pub(super) enum Sink {
    File(Store),
    Directory(Unpacker),
}

impl Sink {
    pub(super) fn subject(&self) -> &Subject {
        match self {
            Self::File(store) => store.subject(),
            Self::Directory(unpacker) => unpacker.subject(),
        }
    }
    pub(super) fn stored(&self) -> &RangeSet {
        match self {
            Self::File(store) => store.stored(),
            Self::Directory(unpacker) => unpacker.stored(),
        }
    }

    /// True when a chunk that begins there can be written now.
    pub(super) fn takes(&self, start: u64) -> bool {
        match self {
            Self::File(_) => true,
            Self::Directory(unpacker) => start <= unpacker.position(),
        }
    }

    /// Remembers the newest session, so that the next one can be above it.
    pub(super) fn set_session(&mut self, session: u64) -> Result<(), ReceiveError> {
        match self {
            Self::File(store) => store.set_session(session),
            Self::Directory(unpacker) => unpacker.set_session(session),
        }
    }

    /// Stores a chunk's bytes, which it [`Sink::takes`]; on return a restarted process finds
    /// them.
    pub(super) fn write(&mut self, header: &ChunkHeader, bytes: &[u8]) -> Result<(), ReceiveError> {
        match self {
            Self::File(store) => store.write(header, bytes),
            Self::Directory(unpacker) => unpacker.write(header, bytes),
        }
    }

    /// Hashes a little of what was stored out of order; false when there is nothing to do.
    pub(super) fn hash_step(&mut self) -> Result<bool, ReceiveError> {
        match self {
            Self::File(store) => store.hash_step(),
            Self::Directory(_) => Ok(false),
        }
    }

    /// The digest of the whole, when all of it is stored.
    pub(super) fn whole_digest(&mut self) -> Result<Digest, ReceiveError> {
        match self {
            Self::File(store) => store.whole_digest(),
            Self::Directory(unpacker) => unpacker.whole_digest(),
        }
    }

    /// The stream is complete: what is only needed for receiving it goes.
    pub(super) fn finish(self) -> Result<(), ReceiveError> {
        match self {
            Self::File(store) => store.finish(),
            Self::Directory(unpacker) => unpacker.finish(),
        }
    }

    /// Removes everything that is kept of the stream.
    pub(super) fn discard(self) {
        match self {
            Self::File(store) => store.discard(),
            Self::Directory(unpacker) => unpacker.discard(),
        }
    }
}
