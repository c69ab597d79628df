//! What changed, as everyone who watches is told: REST's event stream, MQTT, the log.

use crate::view::{ContainerView, MigrationView, NodeView};

/// One change; it carries the whole of what changed, so that the latest one suffices.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A container is in another state. The last one of a container says `removed`.
    Container(ContainerView),
    /// A move got on. The last one of a move is settled.
    Migration(MigrationView),
    /// A node's state, announcement or metrics changed.
    Node(NodeView),
}

/// How many events a slow watcher may be behind before it is told the state anew.
pub const BACKLOG: usize = 1024;
