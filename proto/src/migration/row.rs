//! What the controller's database says of one attempt: the durable half of the decider.

use serde::{Deserialize, Serialize};

use super::event::Plan;
use crate::container::ContainerSpec;
use crate::id::{Epoch, NodeId, Run};

/// One end of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Where the container was.
    Source,
    /// Where it is to go.
    Target,
}

/// Why the container may run where the row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The verdict: both sides voted, the target runs it.
    Commit,
    /// The verdict: called off, the source runs on.
    Abort,
    /// After a commit the target refused for good before it began: no work is lost.
    Returned,
    /// After an abort the source's copy was dead; the target's is opened after all.
    Salvaged,
    /// What an agent had begun overruled the row.
    Overruled,
    /// The side that ran is gone; the other goes on from the freeze. Work may be lost.
    RolledBack,
    /// No copy is left on either side. The memory is lost; the files are not.
    MemoryLost,
}

impl Cause {
    /// The word under which it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Abort => "abort",
            Self::Returned => "returned",
            Self::Salvaged => "salvaged",
            Self::Overruled => "overruled",
            Self::RolledBack => "rolled-back",
            Self::MemoryLost => "memory-lost",
        }
    }
}

/// A standing decision: who may run, why, and which run said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// Who may run.
    pub side: End,
    /// Why.
    pub cause: Cause,
    /// The run that decided. Another run checks the conditions again before it acts on it.
    pub by: Run,
}

/// One attempt to move a container. The first verdict stands; only what it names may amend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The container.
    pub spec: ContainerSpec,
    /// The attempt.
    pub epoch: Epoch,
    /// Where it was.
    pub source: NodeId,
    /// Where it is to go.
    pub target: NodeId,
    /// How.
    pub plan: Plan,
    /// The run that opened the attempt; `None` when it is known only from a node's report.
    pub opener: Option<Run>,
    /// The standing decision.
    pub ruling: Option<Ruling>,
    /// Someone, or the deadline, asked to call it off; why.
    pub cancelled: Option<String>,
    /// Work since the freeze may have been lost, and people were told.
    pub possible_loss: bool,
    /// The target was seen running: the source's copy is of no more use.
    pub has_arrived: bool,
    /// The operator's word that an end lost its power or its copies.
    pub fenced: Vec<End>,
    /// Nothing is left to do.
    pub is_settled: bool,
    /// What went wrong, in the words of the node that said it first.
    pub reason: Option<String>,
}

impl Row {
    /// A new attempt of that run.
    pub fn open(
        spec: ContainerSpec,
        epoch: Epoch,
        ends: (NodeId, NodeId),
        plan: Plan,
        run: Run,
    ) -> Self {
        Self {
            spec,
            epoch,
            source: ends.0,
            target: ends.1,
            plan,
            opener: Some(run),
            ruling: None,
            cancelled: None,
            possible_loss: false,
            has_arrived: false,
            fenced: Vec::new(),
            is_settled: false,
            reason: None,
        }
    }

    /// The node at that end.
    pub fn node(&self, end: End) -> &NodeId {
        match end {
            End::Source => &self.source,
            End::Target => &self.target,
        }
    }

    /// The end that a node is, if it is one.
    pub fn end(&self, node: &NodeId) -> Option<End> {
        [End::Source, End::Target].into_iter().find(|end| self.node(*end) == node)
    }

    /// The side that may run, once decided.
    pub fn side(&self) -> Option<End> {
        self.ruling.map(|ruling| ruling.side)
    }

    /// The node that holds the container once the attempt is settled.
    pub fn holder(&self) -> &NodeId {
        self.node(self.side().unwrap_or(End::Source))
    }
}
