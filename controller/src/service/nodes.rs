//! Nodes: how they are, and what an operator says of them.

use godwit_proto::id::NodeId;
use serde::Serialize;

use super::{Service, unknown_node};
use crate::placement::NodeState;
use crate::refusal::Refusal;
use crate::view::{Fenced, NodeView};

/// What became of a fence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FenceAnswer {
    /// The node as it is now.
    pub node: NodeView,
    /// What hung on it.
    #[serde(flatten)]
    pub fenced: Fenced,
}

impl Service {
    /// Every node, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.parts.registry.nodes()
    }

    /// One node.
    ///
    /// # Errors
    /// `unknown-node`.
    pub fn node(&self, name: &str) -> Result<NodeView, Refusal> {
        self.joined(name).map(|(_, view)| view)
    }

    /// Takes an operator's word that a node lost its power, or that its copies were killed.
    /// One that the broker still has online is believed to be off only by `force`.
    ///
    /// # Errors
    /// `unknown-node`, `node-unjoined`, `node-online`, and the core's.
    pub async fn fence(&self, name: &str, force: bool) -> Result<FenceAnswer, Refusal> {
        let (id, view) = self.joined(name)?;
        match view.state {
            NodeState::Unjoined => {
                return Err(Refusal::new(
                    "node-unjoined",
                    format!("{id} has never joined this fabric: nothing hangs on it"),
                    "list the nodes with `godwit node ls`",
                ));
            }
            NodeState::Online | NodeState::Draining if !force => {
                return Err(Refusal::new(
                    "node-online",
                    format!(
                        "{id} is {}: its agent says itself what runs there, and a fence that is \
                         wrong can make a container run twice",
                        view.state
                    ),
                    format!(
                        "if its power has just gone, wait until `godwit node ls` shows it lost; \
                         if you know better than the broker, `godwit node fence --force {id}`"
                    ),
                ));
            }
            _ => {}
        }
        let fenced = self.parts.core.fence(&id).await?;
        self.parts.registry.fence(&id);
        Ok(FenceAnswer { node: self.node(name)?, fenced })
    }

    fn joined(&self, name: &str) -> Result<(NodeId, NodeView), Refusal> {
        let id = name.parse::<NodeId>().map_err(|_| unknown_node(name))?;
        let view = self.parts.registry.node(&id).ok_or_else(|| unknown_node(name))?;
        Ok((id, view))
    }
}
