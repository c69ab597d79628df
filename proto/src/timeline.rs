//! The moments of a hand-over, as those who were there saw them.

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, Epoch};

/// A moment of a hand-over. The order is that in which they come about when all goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// Target: all is done that can be done before the images come.
    Prepared,
    /// Source: the checkpoint waits for the word.
    Armed,
    /// Source: the freeze is asked for; the gap begins.
    Freezing,
    /// Source: every process stands still.
    Frozen,
    /// Source: nothing gets in or out any more.
    Cut,
    /// Source: CRIU has the word to dump.
    Dumping,
    /// Source: every image is written.
    Dumped,
    /// Source: CRIU has let go, and all is on offer.
    Offered,
    /// Target: the first byte of an image is here; the address is claimed.
    FirstByte,
    /// Target: the last one is, and all are verified.
    LastByte,
    /// Target: CRIU has the word to restore.
    Restoring,
    /// Target: every process is rebuilt and waits at the gate.
    Staged,
    /// Controller: the verdict is in the database.
    Verdict,
    /// Source: it runs again.
    Thawed,
    /// Target: the gate is told to open.
    Opening,
    /// Target: every process is about to run, and the network is open.
    Opened,
    /// Target: what came for it meanwhile has been handed over.
    Replayed,
    /// Target: CRIU has let go of every process; the gap ends.
    Running,
    /// Target: the engine knows that it runs.
    Known,
}

/// Moments of one attempt, by one node's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moments {
    /// The container.
    pub container: ContainerId,
    /// The attempt.
    pub epoch: Epoch,
    /// When each came, in microseconds since 1970 by the node's clock.
    pub seen: Vec<(Moment, i64)>,
    /// What that clock said when this was sent.
    pub sent_us: i64,
}
