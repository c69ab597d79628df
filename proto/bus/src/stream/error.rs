//! Why a stream did not arrive, or could not be offered.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use godwit_proto::id::Digest;
use godwit_proto::stream::record::RecordError;
use godwit_proto::stream::{StopReason, StreamId};
use godwit_proto::topic::Peer;

/// Why a stream was not received. What was stored stays for a later attempt unless the
/// variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The sender will not send it.
    #[error("`{from}` does not send {stream}: {reason}")]
    Refused {
        /// Which stream.
        stream: StreamId,
        /// Who refused.
        from: Peer,
        /// The sender's reason.
        reason: String,
    },
    /// The disk cannot take it.
    #[error("no room for {}: {needed_bytes} bytes needed, {free_bytes} free; make room there", path.display())]
    NoSpace {
        /// The file that was to be made.
        path: PathBuf,
        /// What it still needs.
        needed_bytes: u64,
        /// What its file system has left.
        free_bytes: u64,
    },
    /// The stream is longer than its receiver allows.
    #[error(
        "{stream} from `{from}` has {bytes} bytes, {limit_bytes} are allowed: make more room for it, or let the sender have less to send"
    )]
    TooLarge {
        /// Which stream.
        stream: StreamId,
        /// Who sends it.
        from: Peer,
        /// How long it is, so far or altogether.
        bytes: u64,
        /// [`crate::stream::ReceiveOptions::limit_bytes`].
        limit_bytes: u64,
    },
    /// What arrives is not an archive that may be written.
    #[error("what arrives for {} cannot be unpacked: the sender is of another version, or hostile", path.display())]
    Archive {
        /// The directory it was for.
        path: PathBuf,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// The disk failed otherwise.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file, or one beside it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// All bytes arrived, and together they are not what the sender hashed. They are
    /// discarded.
    #[error(
        "{stream} from `{from}` is corrupt: its digest is {found:?}, not {expected:?}; it was discarded, try again"
    )]
    Corrupt {
        /// Which stream.
        stream: StreamId,
        /// Who sent it.
        from: Peer,
        /// The sender's digest.
        expected: Digest,
        /// The digest of what arrived.
        found: Digest,
    },
    /// Chunk after chunk was not what its own digest says.
    #[error(
        "{chunks} chunks of {stream} from `{from}` in a row were garbled: check that node's memory, and that both run the same version"
    )]
    Garbled {
        /// Which stream.
        stream: StreamId,
        /// Who sent it.
        from: Peer,
        /// How many.
        chunks: u32,
    },
    /// The sender said nothing for longer than the receiver's patience.
    #[error(
        "`{from}` was silent for {silence:?} while {stream} was wanted from it: is it connected?"
    )]
    Silent {
        /// Which stream.
        stream: StreamId,
        /// Who was silent.
        from: Peer,
        /// For how long.
        silence: Duration,
    },
    /// The same stream is already being received from the same peer.
    #[error("{stream} is already being received from `{from}`: wait for that")]
    Busy {
        /// Which stream.
        stream: StreamId,
        /// From whom.
        from: Peer,
    },
    /// The streams were shut down.
    #[error("{stream} was not received: this node is shutting down")]
    Closed {
        /// Which stream.
        stream: StreamId,
    },
}

impl ReceiveError {
    /// What the sender is told.
    pub(super) fn stop_reason(&self) -> StopReason {
        match self {
            Self::NoSpace { needed_bytes, free_bytes, .. } => {
                StopReason::NoSpace { needed_bytes: *needed_bytes, free_bytes: *free_bytes }
            }
            Self::Corrupt { .. } => StopReason::Corrupt,
            Self::Closed { .. } | Self::Busy { .. } => StopReason::Cancelled,
            other => StopReason::failed(&other.to_string()),
        }
    }
}

/// Why the layout of an archive could not be kept, or an archive not be offered again.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not the layout of this stream's archive, or not all of it.
    #[error("{} is not the layout of {stream}: begin the archive anew", path.display())]
    Unusable {
        /// Which stream.
        stream: StreamId,
        /// Which file.
        path: PathBuf,
    },
}

/// What is wrong with an archive that arrives.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A record says what it may not.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It ends in the middle of a record.
    #[error("it ends in the middle of a record")]
    Cut,
    /// It has more files than any checkpoint.
    #[error("it has more than {limit} files")]
    Files {
        /// How many may be.
        limit: usize,
    },
}

/// Why a file could not be offered.
#[derive(Debug, thiserror::Error)]
#[error("cannot offer {} as {stream}", path.display())]
pub struct OfferError {
    /// As which stream.
    pub stream: StreamId,
    /// Which file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}
