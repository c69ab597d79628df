//! How a node comes to belong: what it asks, and what it is answered. JSON on both ways.
//!
//! Who asks first signs in to the broker with the secret of its token and asks with it; a node that
//! has a certificate asks for the next under its own account, by a topic that only it may publish to.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// The account that everybody signs in with who has only a token.
pub const JOIN_ACCOUNT: &str = "join";

/// What the name of a node's account begins with; the node's name follows.
pub const NODE_ACCOUNT: &str = "node:";

/// The largest request that is read, in bytes.
pub const LARGEST_REQUEST: usize = 16 << 10;

/// A node wants a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The name it wants to have, or has.
    pub node: NodeId,
    /// The token's secret, as the token writes it; nothing from a node that has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Its certificate request, PKCS #10 in PEM.
    pub request: String,
}

/// What a node is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinAnswer {
    /// It belongs.
    Joined {
        /// Its certificate and those above it, in PEM.
        certificate: String,
    },
    /// It does not.
    Refused {
        /// Why, and what to do next.
        why: String,
    },
}
