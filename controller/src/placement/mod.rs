//! Where a container may go, and what it will cost: pure, from what nodes said of themselves.
//!
//! [`admit`] compares both nodes' facts and the container before anything is touched,
//! and answers with every reason at once. [`best`] picks among the nodes that would
//! be admitted. Both are asked again by nobody: what changes afterwards, the
//! choreography itself finds out and undoes.

mod checks;
mod facts;
mod predict;

use godwit_proto::container::Mode;
use godwit_proto::device::Device;
use godwit_proto::id::NodeId;
use serde::Serialize;

pub use facts::{NodeFacts, NodeState, Version};
pub use predict::{Past, predict};

use crate::refusal::Reason;
use crate::store::Prediction;

/// A container on its way to a node: to be made there, or to move there.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Where it is, unless it is yet to be made.
    pub source: Option<&'a NodeFacts>,
    /// The architecture of its image, in any terms.
    pub arch: Option<&'a str>,
    /// How it moves, if it does.
    pub mode: Mode,
    /// The memory that it uses, or may use at most; 0 when nobody knows.
    pub memory_bytes: u64,
    /// The size of its image.
    pub image_bytes: u64,
    /// The largest packet of the tenants' networks that it is in, if it is in any.
    pub overlay_mtu: Option<u16>,
    /// The disk that its volumes take, which come along.
    pub volume_bytes: u64,
    /// The devices that it uses.
    pub devices: &'a [Device],
}

/// Whether a container may move, and what it would cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Admission {
    /// It may.
    pub ok: bool,
    /// Where it is.
    pub source: NodeId,
    /// Where it would go; `None` when no node fits.
    pub target: Option<NodeId>,
    /// How.
    pub mode: Mode,
    /// Everything that stands in the way.
    pub reasons: Vec<Reason>,
    /// What it would cost.
    pub prediction: Option<Prediction>,
}

/// Everything that stands in the way of a wish at one node; nothing if it may go there.
pub fn admit(wish: &Wish<'_>, target: &NodeFacts) -> Vec<Reason> {
    checks::ALL.iter().filter_map(|check| check(wish, target)).collect()
}

/// The node that suits a wish best; if none does, the first reason of each.
///
/// `wish` is what is wished of a node: what it lacks differs. Most memory left wins,
/// then fewest containers, then the name, so that equal questions get equal answers.
///
/// # Errors
/// One reason for each node that was considered.
pub fn best<'w, 'n>(
    wish: impl Fn(&NodeId) -> Wish<'w>,
    nodes: impl IntoIterator<Item = &'n NodeFacts>,
) -> Result<&'n NodeFacts, Vec<Reason>> {
    let mut reasons = Vec::new();
    let mut best: Option<&NodeFacts> = None;
    for node in nodes {
        if let Some(reason) = admit(&wish(&node.node), node).into_iter().next() {
            reasons.push(reason);
        } else if best.is_none_or(|best| node.rank() > best.rank()) {
            best = Some(node);
        }
    }
    best.ok_or(reasons)
}

#[cfg(test)]
mod tests;
