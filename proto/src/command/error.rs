//! What can be wrong with a command, and the answer to it.

use super::{Reply, Status, Verb};
use crate::id::{RequestId, Tenant};
use crate::topic::Topic;

/// A command that cannot be carried out as it stands.
#[derive(Debug, thiserror::Error)]
#[error("command of tenant {tenant}: {fault}")]
pub struct CommandError {
    /// Whose command it was.
    pub tenant: Tenant,
    /// Its id, if one could be read.
    pub id: Option<RequestId>,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a command.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing in it: how a retained command is cleared, not a command.
    #[error("the payload is empty: send a JSON object")]
    Empty,
    /// It was retained, so the broker would repeat it to every controller to come.
    #[error("commands must not be retained: send it again without the retain flag")]
    Retained,
    /// Its topic ends in no verb.
    #[error("`{verb}` is not a verb: use one of {}", known())]
    UnknownVerb {
        /// The topic's last level, cut to 80 characters.
        verb: String,
    },
    /// A verb that is only served elsewhere so far.
    #[error("`{verb}` is not served over MQTT by this version: use the godwit command line")]
    NotServed {
        /// The verb.
        verb: Verb,
    },
    /// Not JSON.
    #[error("the payload is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON, but no object.
    #[error("the payload is {found}: send a JSON object, as in {{\"id\":\"1\"}}")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// A field is needed.
    #[error("`{field}` is missing: add it")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field has the wrong type.
    #[error("`{field}` is {found}: it must be {expected}")]
    Type {
        /// Its name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A field has the right type and an impossible value.
    #[error("`{field}`: {why}")]
    Value {
        /// Its name.
        field: &'static str,
        /// What is impossible and what would be possible.
        why: String,
    },
}

impl Fault {
    /// The stable code, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Retained => "retained",
            Self::UnknownVerb { .. } => "unknown-verb",
            Self::NotServed { .. } => "verb-not-served",
            Self::Json(_) => "not-json",
            Self::NotAnObject { .. } => "not-an-object",
            Self::Missing { .. } => "missing-field",
            Self::Type { .. } => "wrong-type",
            Self::Value { .. } => "invalid-value",
        }
    }
}

impl CommandError {
    /// What to answer, and where: under the command's id if it could be read, else
    /// on `reply/unparsed`. `None` for an empty payload: answering it would answer
    /// the clearing of a retained command.
    pub fn answer(&self) -> Option<(Topic, Reply)> {
        if matches!(self.fault, Fault::Empty) {
            return None;
        }
        let reply = Reply {
            id: self.id.clone(),
            status: Status::Failed,
            code: self.fault.code().to_owned(),
            message: self.fault.to_string(),
            details: serde_json::Map::new(),
        };
        Some((reply.topic(&self.tenant), reply))
    }
}

fn known() -> String {
    let names: Vec<_> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
    names.join(", ")
}
