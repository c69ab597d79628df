//! Why a stream did not arrive, or could not be offered.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use godwit_proto::id::Digest;
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
