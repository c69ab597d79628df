//! Commands and replies: the JSON that people, Node-RED and `mosquitto_pub` speak.
//!
//! A command is a verb in the topic and an object in the payload. Every command is
//! answered, wrong ones too: [`Request::parse`] fails with a [`CommandError`] that
//! knows its own answer, with a stable code for machines and, for people, what to do
//! next. Unknown fields are ignored; sizes are bytes, durations milliseconds.
//!
//! ```
//! use godwit_proto::command::{Command, Request};
//! use godwit_proto::id::Tenant;
//!
//! let tenant = Tenant::default_tenant();
//! let payload = br#"{"id":"1","container":"counter","to":"edge-b"}"#;
//! let request = Request::parse(&tenant, &"migrate".parse()?, false, payload)?;
//! assert!(matches!(request.command, Command::Migrate(_)));
//!
//! let wrong = Request::parse(&tenant, &"migrate".parse()?, false, br#"{"id":"2"}"#);
//! let (topic, reply) = wrong.unwrap_err().answer().unwrap();
//! assert_eq!(topic.to_string(), "godwit/v1/tenant/default/reply/2");
//! assert_eq!(reply.code, "missing-field");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod fields;
mod reply;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use error::{CommandError, Fault};
pub use reply::{Reply, Status};

use crate::container::{Limits, Mode};
use crate::id::{ContainerName, MigrationId, NodeId, RequestId, Tenant};
use crate::topic::VerbName;
use fields::Fields;

macro_rules! verbs {
    ($($verb:ident $name:literal $doc:literal,)*) => {
        /// What a tenant can ask for: the last level of a command's topic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verb {
            $(#[doc = $doc] $verb,)*
        }

        impl Verb {
            /// Every verb, in the order in which people should hear of them.
            pub const ALL: &'static [Self] = &[$(Self::$verb,)*];

            /// The verb as it stands in a topic.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$verb => $name,)*
                }
            }
        }
    };
}

verbs! {
    Create "create" "Make a container, and start it unless told otherwise.",
    Start "start" "Start a stopped container.",
    Stop "stop" "Stop a container.",
    Restart "restart" "Stop a container and start it again.",
    Delete "delete" "Remove a container.",
    Rename "rename" "Give a container another name.",
    Migrate "migrate" "Move a container to another node.",
    Cancel "cancel" "Call a migration off.",
    Protect "protect" "Keep checkpoints of a running container on a standby node.",
    Checkpoint "checkpoint" "Write a checkpoint to a file.",
    Exec "exec" "Run a program in a container.",
    Upload "upload" "Bring an image.",
    Logs "logs" "Follow a container's output.",
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Verb {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        let found = Self::ALL.iter().find(|verb| verb.as_str() == text);
        found.copied().ok_or_else(|| Fault::UnknownVerb { verb: text.chars().take(80).collect() })
    }
}

/// A command that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose command it is: the topic says so, not the payload.
    pub tenant: Tenant,
    /// The caller's correlation id: the same id twice is answered from the record.
    pub id: RequestId,
    /// What is asked for.
    pub command: Command,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `create`
    Create(Box<Create>),
    /// `start`
    Start {
        /// Which.
        container: ContainerName,
    },
    /// `stop`
    Stop {
        /// Which.
        container: ContainerName,
        /// How long it may take to end by itself before it is killed.
        timeout_ms: Option<u64>,
    },
    /// `restart`
    Restart {
        /// Which.
        container: ContainerName,
        /// How long it may take to end by itself before it is killed.
        timeout_ms: Option<u64>,
    },
    /// `delete`
    Delete {
        /// Which.
        container: ContainerName,
        /// Even if it runs.
        force: bool,
    },
    /// `rename`
    Rename {
        /// Which.
        container: ContainerName,
        /// Its name from now on.
        new_name: ContainerName,
    },
    /// `migrate`
    Migrate(Migrate),
    /// `cancel`
    Cancel(Cancel),
}

/// A container to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// What to call it.
    pub container: ContainerName,
    /// The image, by name or id.
    pub image: String,
    /// Arguments in place of the image's own; empty means the image's.
    pub args: Vec<String>,
    /// Environment added to the image's.
    pub env: BTreeMap<String, String>,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// `memory_bytes` and `cpus`.
    pub limits: Limits,
    /// The networks that it is in; none leaves the choice to the controller.
    pub networks: Vec<String>,
    /// Its ports that nodes open, as [`crate::overlay::Published`] reads them.
    pub ports: Vec<String>,
    /// Its volumes, as [`crate::volume::Volume`] reads them.
    pub volumes: Vec<String>,
    /// The devices that it may use, as [`crate::device::Device`] reads them.
    pub devices: Vec<String>,
    /// Where; `None` leaves the choice to the controller.
    pub node: Option<NodeId>,
    /// Whether to start it at once: yes, if not said.
    pub start: bool,
}

/// A container to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrate {
    /// Which.
    pub container: ContainerName,
    /// Where to; `None` leaves the choice to the controller.
    pub to: Option<NodeId>,
    /// With its memory, if not said otherwise.
    pub mode: Mode,
    /// The most bytes per second that the transfer may take.
    pub bwlimit: Option<u64>,
    /// Only say whether it would work, and how long it would take.
    pub dry_run: bool,
}

/// Which migration to call off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancel {
    /// That one.
    Migration(MigrationId),
    /// Whichever moves this container at the moment.
    Of(ContainerName),
}

impl Request {
    /// Reads the command that arrived on `tenant`'s topic of `verb`; `retained` is the
    /// flag that it came with.
    ///
    /// # Errors
    /// With what is wrong and, through [`CommandError::answer`], what to reply.
    pub fn parse(
        tenant: &Tenant,
        verb: &VerbName,
        retained: bool,
        payload: &[u8],
    ) -> Result<Self, CommandError> {
        let failed = |id, fault| CommandError { tenant: tenant.clone(), id, fault };
        let mut fields = match Fields::read(payload) {
            Ok(fields) => fields,
            Err(fault) => return Err(failed(fields::salvage_id(payload), fault)),
        };
        // The id first: whatever else is wrong is answered under it.
        let id = fields.id().map_err(|fault| failed(None, fault))?;
        let command = if retained { Err(Fault::Retained) } else { read(verb, &mut fields) };
        match command {
            Ok(command) => Ok(Self { tenant: tenant.clone(), id, command }),
            Err(fault) => Err(failed(Some(id), fault)),
        }
    }
}

fn read(verb: &VerbName, fields: &mut Fields) -> Result<Command, Fault> {
    let verb: Verb = verb.as_str().parse()?;
    Ok(match verb {
        Verb::Create => Command::Create(Box::new(Create {
            container: fields.name("container")?,
            image: fields.text("image")?,
            args: fields.texts("args")?,
            env: fields.map("env")?,
            labels: fields.map("labels")?,
            limits: Limits {
                memory_bytes: fields.number("memory_bytes")?,
                nano_cpus: fields.nano_cpus("cpus")?,
            },
            networks: fields.texts("networks")?,
            ports: fields.texts("ports")?,
            volumes: fields.texts("volumes")?,
            devices: fields.texts("devices")?,
            node: fields.node("node")?,
            start: fields.flag("start")?.unwrap_or(true),
        })),
        Verb::Start => Command::Start { container: fields.name("container")? },
        Verb::Stop => Command::Stop {
            container: fields.name("container")?,
            timeout_ms: fields.number("timeout_ms")?,
        },
        Verb::Restart => Command::Restart {
            container: fields.name("container")?,
            timeout_ms: fields.number("timeout_ms")?,
        },
        Verb::Delete => Command::Delete {
            container: fields.name("container")?,
            force: fields.flag("force")?.unwrap_or(false),
        },
        Verb::Rename => Command::Rename {
            container: fields.name("container")?,
            new_name: fields.name("new_name")?,
        },
        Verb::Migrate => Command::Migrate(Migrate {
            container: fields.name("container")?,
            to: fields.node("to")?,
            mode: fields.mode("mode")?,
            bwlimit: fields.number("bwlimit")?,
            dry_run: fields.flag("dry_run")?.unwrap_or(false),
        }),
        Verb::Cancel => Command::Cancel(match fields.optional_name("migration")? {
            Some(migration) => Cancel::Migration(migration),
            None => Cancel::Of(fields.name("container")?),
        }),
        Verb::Protect | Verb::Checkpoint | Verb::Exec | Verb::Upload | Verb::Logs => {
            return Err(Fault::NotServed { verb });
        }
    })
}
