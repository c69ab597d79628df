//! What the two ends of a stream say to each other.
//!
//! [`StreamFrame`]s travel on the peers' `ctl` topics, [`ChunkHeader`]s with the
//! chunk's bytes behind them on `bulk`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, Digest, Epoch, ImageId};
use crate::stream::extent::Extent;
use crate::stream::range::Span;
use crate::wire::Frame;

/// The largest chunk, in bytes before compression; also the blocks that a stream's
/// digest is built of, see [`ChunkHeader::digest`]. A power of two.
pub const MAX_CHUNK_BYTES: u32 = 128 * 1024;

/// The most spans that one [`Want`] lists.
pub const MAX_MISSING: usize = 256;

/// The longest reason that a frame carries, in bytes.
pub const MAX_REASON_BYTES: usize = 1024;

/// What a stream carries; the same on both ends and over restarts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StreamId {
    /// The checkpoint of one attempt to move a container.
    Checkpoint {
        /// Whose memory and files it is.
        container: ContainerId,
        /// The attempt.
        epoch: Epoch,
    },
    /// A container image, as the engine saves it.
    Image(ImageId),
    /// The digests of an image's layers, the lowest first, as JSON.
    ImageLayers(ImageId),
    /// A container image of which some layers are left out.
    ImageParts {
        /// Which image.
        image: ImageId,
        /// The layers that are in it: the lowest is bit 0.
        layers: u64,
    },
    /// What the target needs to know of a container before its memory is dumped.
    Metadata {
        /// Of which container.
        container: ContainerId,
        /// The attempt.
        epoch: Epoch,
    },
    /// A part of what a container has in its volumes.
    Volumes {
        /// Of which container.
        container: ContainerId,
        /// The attempt.
        epoch: Epoch,
        /// Which part, from 1.
        part: u32,
    },
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint { container, epoch } => write!(f, "checkpoint {container} {epoch}"),
            Self::Image(image) => write!(f, "image {}", image.short()),
            Self::ImageLayers(image) => write!(f, "layers of image {}", image.short()),
            Self::ImageParts { image, layers } => {
                write!(f, "{} layers of image {}", layers.count_ones(), image.short())
            }
            Self::Metadata { container, epoch } => write!(f, "metadata {container} {epoch}"),
            Self::Volumes { container, epoch, part } => {
                write!(f, "volumes {container} {epoch} {part}")
            }
        }
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint { container, epoch } => {
                write!(f, "checkpoint {container:?} {epoch:?}")
            }
            Self::Image(image) => write!(f, "image {image:?}"),
            Self::ImageLayers(image) => write!(f, "layers of image {image:?}"),
            Self::ImageParts { image, layers } => write!(f, "layers {layers:b} of image {image:?}"),
            Self::Metadata { container, epoch } => write!(f, "metadata {container:?} {epoch:?}"),
            Self::Volumes { container, epoch, part } => {
                write!(f, "volumes {container:?} {epoch:?} {part}")
            }
        }
    }
}

/// A whole stream in three facts; its own digest is what votes and verdicts quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which stream.
    pub stream: StreamId,
    /// Its length.
    pub size_bytes: u64,
    /// Of all its bytes.
    pub digest: Digest,
}

impl Frame for Manifest {
    const NAME: &'static str = "manifest";
    const LIMIT_BYTES: usize = 256;
}

/// How a chunk's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// As they are.
    None,
    /// One LZ4 block.
    Lz4,
    /// One zstd frame.
    Zstd,
}

/// Frames about streams, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamFrame {
    /// Receiver to sender: what the receiver lacks.
    Want(Want),
    /// Receiver to sender: nothing more is wanted.
    Stop {
        /// Which stream.
        stream: StreamId,
        /// The session that ends.
        session: u64,
        /// Why.
        reason: StopReason,
    },
    /// Sender to receiver: what there is to receive.
    Offer(Offer),
    /// Sender to receiver: the want is remembered, an offer will follow by itself.
    NotYet {
        /// Which stream.
        stream: StreamId,
    },
    /// Sender to receiver: the stream will not come.
    Refused {
        /// Which stream.
        stream: StreamId,
        /// Why, for people; at most [`MAX_REASON_BYTES`].
        reason: String,
    },
}

impl Frame for StreamFrame {
    const NAME: &'static str = "stream frame";
    const LIMIT_BYTES: usize = 8 * 1024;
}

impl StreamFrame {
    /// A refusal whose reason is cut to what a frame carries.
    pub fn refused(stream: StreamId, reason: &str) -> Self {
        Self::Refused { stream, reason: cut(reason) }
    }
}

/// Everything that a receiver lacks and may be sent: the newest replaces all before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Which stream.
    pub stream: StreamId,
    /// One life of the receiver; a later one has a higher number.
    pub session: u64,
    /// Counts the wants of a session, from 1.
    pub number: u32,
    /// The version that the receiver holds bytes of, if any.
    pub version: Option<u64>,
    /// True once the receiver knows the whole stream's digest.
    pub knows_digest: bool,
    /// Every byte below it is either in `missing` or stored. It may lie beyond what there
    /// is of the stream so far: that is to be sent as it appears.
    pub limit: u64,
    /// What lacks below `limit`, ascending, at most [`MAX_MISSING`] spans.
    pub missing: Vec<Missing>,
    /// Bytes stored in all: progress, for the sender's display.
    pub stored_bytes: u64,
    /// Bytes per second that arrive on the wire, 0 while unknown.
    pub wire_rate: u64,
    /// What the receiver allows the sender, in wire bytes per second.
    pub bwlimit: Option<u64>,
}

/// A span that lacks, and the want that last asked for it to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which bytes.
    pub span: Span,
    /// The number of that want: a span sent under an earlier one is lost. [`HELD`] when
    /// the span is not to be sent.
    pub asked: u32,
}

/// In [`Missing::asked`]: the span arrived and waits in the receiver's memory for what
/// comes before it. It need not be sent, and it is not stored either.
pub const HELD: u32 = 0;

/// What the sender has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which stream.
    pub stream: StreamId,
    /// Names this state of the sender's file.
    pub version: u64,
    /// Its length, so far or altogether.
    pub extent: Extent,
    /// Of all its bytes; absent while it grows, or the sender still computes it.
    pub digest: Option<Digest>,
}

/// Why a receiver wants no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// It has everything, and the digest is right.
    Complete,
    /// Its owner gave up.
    Cancelled,
    /// Its disk cannot take the stream.
    NoSpace {
        /// What the stream still needs.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// All bytes arrived and their digest is not the offered one.
    Corrupt,
    /// Anything else, for people; at most [`MAX_REASON_BYTES`].
    Failed(String),
}

impl StopReason {
    /// A failure whose reason is cut to what a frame carries.
    pub fn failed(reason: &str) -> Self {
        Self::Failed(cut(reason))
    }
}

fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON_BYTES)].to_owned()
}

/// What stands before a chunk's packed bytes.
///
/// It repeats what the offer says, because the two travel on different topics and
/// either may be first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkHeader {
    /// Which stream.
    pub stream: StreamId,
    /// The state of the sender's file.
    pub version: u64,
    /// The length of the stream, so far or altogether.
    pub extent: Extent,
    /// Which bytes of the stream these are.
    pub span: Span,
    /// The session whose wants it answers.
    pub session: u64,
    /// The newest want that the sender knew when it chose this chunk.
    pub want: u32,
    /// How the bytes behind the header are packed.
    pub codec: Codec,
    /// Of the unpacked bytes in their place in the stream. Those of its blocks
    /// ([`ChunkHeader::is_block`]) make the digest of the whole, so that both ends have it
    /// without hashing anything twice.
    pub digest: Digest,
}

impl Frame for ChunkHeader {
    const NAME: &'static str = "chunk";
    const LIMIT_BYTES: usize = MAX_CHUNK_BYTES as usize + 512;
}

impl ChunkHeader {
    /// True when the span is one that this stream and a chunk can have.
    pub fn is_sane(&self) -> bool {
        let Span { start, end } = self.span;
        start < end && end <= self.extent.bytes && end - start <= u64::from(MAX_CHUNK_BYTES)
    }

    /// True when the span is exactly one block of the stream.
    pub fn is_block(&self) -> bool {
        let block = u64::from(MAX_CHUNK_BYTES);
        self.span.start.is_multiple_of(block) && self.span.len() == block
    }
}
