//! The topic tree: every topic of the fabric and every filter that a program uses.
//!
//! [`Topic`] has one variant for each row of the tree, and parsing is the inverse
//! of printing: whatever parses prints back byte for byte. [`Filter`] is the closed
//! set of subscriptions; brokers keep filters for ever, so there is one per node
//! and class, never one per migration or request.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::id::{ContainerName, MigrationId, NameError, NodeId, RequestId, Tenant};

/// What every topic of the fabric's own begins with: its name and version.
pub const ROOT: &str = "godwit/v1";

/// The name that no node may carry: the controller, when it is one end of a stream.
pub const CONTROLLER: &str = "controller";

/// The last level of [`Topic::ReplyUnparsed`], hence not a request id.
pub const UNPARSED: &str = "unparsed";

/// One topic of the fabric, with the names that stand in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the fields are the levels that the variant's line shows")]
pub enum Topic {
    /// `godwit/v1/node/<node>/state`, retained: online, draining, offline or lost.
    NodeState { node: NodeId },
    /// `godwit/v1/node/<node>/info`, retained: what the node is and has.
    NodeInfo { node: NodeId },
    /// `godwit/v1/node/<node>/metrics`: what the node is doing, every few seconds.
    NodeMetrics { node: NodeId },
    /// `godwit/v1/tenant/<tenant>/container/<name>/state`, retained.
    ContainerState { tenant: Tenant, container: ContainerName },
    /// `godwit/v1/tenant/<tenant>/container/<name>/log`: lines, while asked for.
    ContainerLog { tenant: Tenant, container: ContainerName },
    /// `godwit/v1/tenant/<tenant>/migration/<id>`, the last one retained.
    MigrationStatus { tenant: Tenant, id: MigrationId },
    /// `godwit/v1/tenant/<tenant>/command/<verb>`, never retained.
    Command { tenant: Tenant, verb: VerbName },
    /// `godwit/v1/tenant/<tenant>/reply/<id>`.
    Reply { tenant: Tenant, id: RequestId },
    /// `godwit/v1/tenant/<tenant>/reply/unparsed`: commands without a readable id.
    ReplyUnparsed { tenant: Tenant },
    /// `godwit/v1/admin/command/<verb>`, never retained.
    AdminCommand { verb: VerbName },
    /// `godwit/v1/agent/<node>/ctl`: frames from the controller, verdicts among them.
    AgentCtl { node: NodeId },
    /// `godwit/v1/agent/<to>/peer/<from>/ctl`: frames between the two ends of a stream.
    PeerCtl { to: Peer, from: Peer },
    /// `godwit/v1/agent/<to>/peer/<from>/bulk`: the chunks of a stream.
    PeerBulk { to: Peer, from: Peer },
    /// `godwit/v1/controller/in/<node>`: frames from a node to the controller.
    ControllerIn { node: NodeId },
    /// `godwit/v1/controller/hello`: a controller's run, so that agents announce again.
    ControllerHello,
    /// `godwit/v1/join/<id>/request`: somebody with a token asks to be let in as a node.
    JoinRequest { id: RequestId },
    /// `godwit/v1/join/<id>/answer`: what became of it.
    JoinAnswer { id: RequestId },
    /// `godwit/v1/renew/<node>/request`: a node asks for its next certificate.
    RenewRequest { node: NodeId },
    /// `godwit/v1/renew/<node>/answer`: and has it.
    RenewAnswer { node: NodeId },
    /// `app/<tenant>/<tail>`: the tenant's own.
    App { tenant: Tenant, tail: Tail },
    /// `$SYS/broker/<tail>`: what the broker says of itself.
    Sys { tail: Tail },
}

/// One end of a stream: a node, or the controller (which sends images to nodes).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// The controller, written `controller`.
    Controller,
    /// A node, by its name.
    Node(NodeId),
}

impl FromStr for Peer {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == CONTROLLER { Ok(Self::Controller) } else { text.parse().map(Self::Node) }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str(CONTROLLER),
            Self::Node(node) => node.fmt(f),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<NodeId> for Peer {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

/// The verb level of a command topic, known or not: an unknown one is answered too.
///
/// One topic level without wildcards; which verbs exist is [`crate::command::Verb`]'s.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerbName(Arc<str>);

impl VerbName {
    /// The verb as it stands in the topic.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VerbName {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() || text.contains('/') {
            return Err(TopicError::unknown(text));
        }
        plain(text).map(|text| Self(text.into()))
    }
}

/// The free end of an application's topic: any levels, no wildcard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tail(Arc<str>);

impl Tail {
    /// The levels, with their slashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tail {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        plain(text).map(|text| Self(text.into()))
    }
}

/// `text`, if nothing in it has a meaning to MQTT and it fits into a topic with
/// whatever the fabric puts before it.
fn plain(text: &str) -> Result<&str, TopicError> {
    const LONGEST: usize = 65_535 - 128;
    if text.contains(['+', '#', '\0']) || text.len() > LONGEST {
        return Err(TopicError::unknown(text));
    }
    Ok(text)
}

/// Why a text is not a topic of the fabric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No row of the tree looks like this.
    #[error("`{0}` is not a topic of the fabric: see docs/TOPICS.md for the tree")]
    Unknown(String),
    /// A row fits, but a level is not a name.
    #[error("`{topic}` is not a topic of the fabric")]
    Name {
        /// The whole topic, cut to 200 characters.
        topic: String,
        /// Which level, and what it should be.
        source: NameError,
    },
}

impl TopicError {
    fn unknown(topic: &str) -> Self {
        Self::Unknown(topic.chars().take(200).collect())
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let unknown = || TopicError::unknown(text);
        let name = |source| TopicError::Name { topic: text.chars().take(200).collect(), source };
        if let Some(rest) = text.strip_prefix("app/") {
            let (tenant, tail) = rest.split_once('/').ok_or_else(unknown)?;
            return Ok(Self::App { tenant: tenant.parse().map_err(name)?, tail: tail.parse()? });
        }
        if let Some(tail) = text.strip_prefix("$SYS/broker/") {
            return Ok(Self::Sys { tail: tail.parse()? });
        }
        let rest =
            text.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).ok_or_else(unknown)?;

        // The longest row has five levels below the root; a sixth fits none.
        let mut levels = [""; 6];
        let mut count = 0;
        for level in rest.splitn(6, '/') {
            levels[count] = level;
            count += 1;
        }
        Ok(match levels[..count] {
            ["node", id, "state"] => Self::NodeState { node: node(id).map_err(name)? },
            ["node", id, "info"] => Self::NodeInfo { node: node(id).map_err(name)? },
            ["node", id, "metrics"] => Self::NodeMetrics { node: node(id).map_err(name)? },
            ["tenant", tenant, "container", container, "state"] => Self::ContainerState {
                tenant: tenant.parse().map_err(name)?,
                container: container.parse().map_err(name)?,
            },
            ["tenant", tenant, "container", container, "log"] => Self::ContainerLog {
                tenant: tenant.parse().map_err(name)?,
                container: container.parse().map_err(name)?,
            },
            ["tenant", tenant, "migration", id] => Self::MigrationStatus {
                tenant: tenant.parse().map_err(name)?,
                id: id.parse().map_err(name)?,
            },
            ["tenant", tenant, "command", verb] => {
                Self::Command { tenant: tenant.parse().map_err(name)?, verb: verb.parse()? }
            }
            ["tenant", tenant, "reply", UNPARSED] => {
                Self::ReplyUnparsed { tenant: tenant.parse().map_err(name)? }
            }
            ["tenant", tenant, "reply", id] => {
                Self::Reply { tenant: tenant.parse().map_err(name)?, id: id.parse().map_err(name)? }
            }
            ["admin", "command", verb] => Self::AdminCommand { verb: verb.parse()? },
            ["agent", id, "ctl"] => Self::AgentCtl { node: node(id).map_err(name)? },
            ["agent", to, "peer", from, "ctl"] => {
                Self::PeerCtl { to: to.parse().map_err(name)?, from: from.parse().map_err(name)? }
            }
            ["agent", to, "peer", from, "bulk"] => {
                Self::PeerBulk { to: to.parse().map_err(name)?, from: from.parse().map_err(name)? }
            }
            ["controller", "in", id] => Self::ControllerIn { node: node(id).map_err(name)? },
            ["controller", "hello"] => Self::ControllerHello,
            ["join", id, "request"] => Self::JoinRequest { id: id.parse().map_err(name)? },
            ["join", id, "answer"] => Self::JoinAnswer { id: id.parse().map_err(name)? },
            ["renew", id, "request"] => Self::RenewRequest { node: node(id).map_err(name)? },
            ["renew", id, "answer"] => Self::RenewAnswer { node: node(id).map_err(name)? },
            _ => return Err(unknown()),
        })
    }
}

/// A node's name where only a node may stand.
fn node(text: &str) -> Result<NodeId, NameError> {
    if text == CONTROLLER {
        return Err(NameError { what: "node name (`controller` is reserved)", text: text.into() });
    }
    text.parse()
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeState { node } => write!(f, "{ROOT}/node/{node}/state"),
            Self::NodeInfo { node } => write!(f, "{ROOT}/node/{node}/info"),
            Self::NodeMetrics { node } => write!(f, "{ROOT}/node/{node}/metrics"),
            Self::ContainerState { tenant, container } => {
                write!(f, "{ROOT}/tenant/{tenant}/container/{container}/state")
            }
            Self::ContainerLog { tenant, container } => {
                write!(f, "{ROOT}/tenant/{tenant}/container/{container}/log")
            }
            Self::MigrationStatus { tenant, id } => {
                write!(f, "{ROOT}/tenant/{tenant}/migration/{id}")
            }
            Self::Command { tenant, verb } => {
                write!(f, "{ROOT}/tenant/{tenant}/command/{}", verb.0)
            }
            Self::Reply { tenant, id } => write!(f, "{ROOT}/tenant/{tenant}/reply/{id}"),
            Self::ReplyUnparsed { tenant } => write!(f, "{ROOT}/tenant/{tenant}/reply/{UNPARSED}"),
            Self::AdminCommand { verb } => write!(f, "{ROOT}/admin/command/{}", verb.0),
            Self::AgentCtl { node } => write!(f, "{ROOT}/agent/{node}/ctl"),
            Self::PeerCtl { to, from } => write!(f, "{ROOT}/agent/{to}/peer/{from}/ctl"),
            Self::PeerBulk { to, from } => write!(f, "{ROOT}/agent/{to}/peer/{from}/bulk"),
            Self::ControllerIn { node } => write!(f, "{ROOT}/controller/in/{node}"),
            Self::ControllerHello => write!(f, "{ROOT}/controller/hello"),
            Self::JoinRequest { id } => write!(f, "{ROOT}/join/{id}/request"),
            Self::JoinAnswer { id } => write!(f, "{ROOT}/join/{id}/answer"),
            Self::RenewRequest { node } => write!(f, "{ROOT}/renew/{node}/request"),
            Self::RenewAnswer { node } => write!(f, "{ROOT}/renew/{node}/answer"),
            Self::App { tenant, tail } => write!(f, "app/{tenant}/{}", tail.0),
            Self::Sys { tail } => write!(f, "$SYS/broker/{}", tail.0),
        }
    }
}

/// The subscriptions in use, and no others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// Everything addressed to one agent (or, as one end of streams, the controller).
    Inbox(Peer),
    /// What nodes send to the controller.
    ControllerIn,
    /// A controller's greeting.
    ControllerHello,
    /// State, info and metrics of every node.
    Nodes,
    /// The state of every node.
    NodeStates,
    /// What nodes ask that want to be let in.
    JoinRequests,
    /// What one of them is answered.
    JoinAnswer(RequestId),
    /// What nodes ask that need their next certificate.
    RenewRequests,
    /// What one of them is answered.
    RenewAnswer(NodeId),
    /// Every tenant's commands.
    Commands,
    /// Operators' commands.
    AdminCommands,
    /// Everything of one tenant's: states, migrations, replies.
    Tenant(Tenant),
    /// One tenant's own topics.
    App(Tenant),
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox(peer) => write!(f, "{ROOT}/agent/{peer}/#"),
            Self::ControllerIn => write!(f, "{ROOT}/controller/in/+"),
            Self::ControllerHello => write!(f, "{ROOT}/controller/hello"),
            Self::Nodes => write!(f, "{ROOT}/node/#"),
            Self::NodeStates => write!(f, "{ROOT}/node/+/state"),
            Self::JoinRequests => write!(f, "{ROOT}/join/+/request"),
            Self::JoinAnswer(id) => write!(f, "{ROOT}/join/{id}/answer"),
            Self::RenewRequests => write!(f, "{ROOT}/renew/+/request"),
            Self::RenewAnswer(node) => write!(f, "{ROOT}/renew/{node}/answer"),
            Self::Commands => write!(f, "{ROOT}/tenant/+/command/+"),
            Self::AdminCommands => write!(f, "{ROOT}/admin/command/+"),
            Self::Tenant(tenant) => write!(f, "{ROOT}/tenant/{tenant}/#"),
            Self::App(tenant) => write!(f, "app/{tenant}/#"),
        }
    }
}

#[cfg(test)]
mod tests;
