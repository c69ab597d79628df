//! What an agent's ledger says of one container: the durable half of the machines.

use serde::{Deserialize, Serialize};

use crate::container::{ContainerSpec, Mode};
use crate::id::{Digest, Epoch, Life, NodeId, Run};

/// How far a node is with a container under one epoch.
///
/// The order of the variants is the order of time: within an epoch a controller
/// keeps the highest that it has heard, so that a late message changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not in the ledger. Only ever reported, never persisted.
    Absent,
    /// The ledger was lost; the kernel shows it running.
    UnknownRunning,
    /// The ledger was lost; the kernel shows it frozen.
    UnknownFrozen,
    /// The ledger was lost; the kernel shows nothing of it.
    UnknownAbsent,
    /// Being made.
    Creating,
    /// Source: about to freeze, or freezing, or dumping.
    Arming,
    /// Source: refused to freeze for good under this epoch; it runs on, or is being thawed.
    Kept,
    /// Target: expects the image.
    Preparing,
    /// Source: frozen, the image complete. Only the controller ends this.
    Frozen,
    /// Target: every process rebuilt, held at the gate. Only the controller ends this.
    Staged,
    /// It never began to run under this epoch, and never will.
    Dead,
    /// As [`Phase::Dead`], said by a node that lost its ledger: whether it ran is unknown.
    DeadUnknown,
    /// Owner: about to start, or starting.
    Starting,
    /// Source: about to run again, or thawing.
    Thawing,
    /// Target: about to run, or the gate is opening.
    Opening,
    /// It runs here.
    Active,
    /// Stopped on request; its files are here.
    Stopped,
    /// It began to run under this epoch and its processes are gone for good.
    Ran,
    /// Removed. What is left is this tombstone.
    Gone,
}

impl Phase {
    /// The node holds the container and the fabric may ask it to move or stop it.
    pub fn is_owner(self) -> bool {
        matches!(self, Self::Active | Self::Kept | Self::Stopped)
    }
    /// The node runs it, or has begun to and cannot be told otherwise.
    pub fn runs(self) -> bool {
        matches!(
            self,
            Self::UnknownRunning
                | Self::Kept
                | Self::Starting
                | Self::Thawing
                | Self::Opening
                | Self::Active
                | Self::Stopped
        )
    }
    /// Nothing of it can run here again without a new epoch.
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::UnknownAbsent | Self::Dead | Self::DeadUnknown | Self::Ran | Self::Gone
        )
    }
    /// In the middle of a move: the node repeats its report until told how it ends.
    pub fn awaits_verdict(self) -> bool {
        matches!(
            self,
            Self::Arming
                | Self::Kept
                | Self::Preparing
                | Self::Frozen
                | Self::Staged
                | Self::Thawing
                | Self::Opening
        )
    }
}

/// What the node is to the container under its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It holds the container's files: made, started, or gave it away.
    Owner,
    /// It expects the container from another node.
    Target,
}

/// One row of an agent's ledger. Written, synced to disk, then acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The container; the target of a move needs all of it.
    pub spec: ContainerSpec,
    /// The highest epoch that the node knows.
    pub epoch: Epoch,
    /// How far it is under that epoch.
    pub phase: Phase,
    /// What the node is to the container.
    pub role: Role,
    /// The other node of the move that the epoch stands for.
    pub peer: Option<NodeId>,
    /// How it moves.
    pub mode: Mode,
    /// The digest of the image that was dumped or staged.
    pub image: Option<Digest>,
    /// Limit of the transfer in bytes per second.
    pub bwlimit: Option<u64>,
    /// Told to stop: how long it may take to end by itself; the node's own measure when `None`.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// Its volumes are another node's by now, or never were this one's: what is here of them is
    /// removed with the container.
    #[serde(default)]
    pub drops_volumes: bool,
    /// Why it is dead, kept or gone, for people.
    pub reason: Option<String>,
}

/// The run that a node obeys, and the life in which it promised so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The run.
    pub run: Run,
    /// A promise is void in any other life.
    pub life: Life,
    /// The first generation that was promised since the ledger was made. About epochs
    /// before it the node cannot know that it never took part in them.
    pub since: u32,
}
