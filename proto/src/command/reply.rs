//! The answer to a command.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{RequestId, Tenant};
use crate::topic::Topic;

/// What became of a command. A command gets one `accepted`, any number of `progress`,
/// and one `done` or `failed`; or just the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The command's id, if it could be read.
    pub id: Option<RequestId>,
    /// How far it is.
    pub status: Status,
    /// For machines: `ok`, or what went wrong, the same word in every version.
    pub code: String,
    /// For people: what happened and what to do next.
    pub message: String,
    /// More, by command, beside the fields above: `migration`, `node`, `percent`, …
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It will be done.
    Accepted,
    /// It is being done.
    Progress,
    /// It is done; nothing follows.
    Done,
    /// It was not done; nothing follows.
    Failed,
}

impl Reply {
    /// An answer to `id` that nothing is wrong with.
    pub fn ok(id: RequestId, status: Status, message: impl Into<String>) -> Self {
        let (code, message) = ("ok".to_owned(), message.into());
        Self { id: Some(id), status, code, message, details: Map::new() }
    }

    /// An answer to `id` that it failed, with a stable code.
    pub fn failed(id: RequestId, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { id: Some(id), status: Status::Failed, code, message, details: Map::new() }
    }

    /// With one more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Where it is published for `tenant`.
    pub fn topic(&self, tenant: &Tenant) -> Topic {
        let tenant = tenant.clone();
        match &self.id {
            Some(id) => Topic::Reply { tenant, id: id.clone() },
            None => Topic::ReplyUnparsed { tenant },
        }
    }
}
