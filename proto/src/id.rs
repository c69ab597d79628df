//! Every name and number that identifies something in the fabric, one type each.
//!
//! Names that people choose ([`NodeId`], [`Tenant`], [`ContainerName`]) are single
//! topic levels: `[a-z0-9-]{1,63}`. A container is its [`ContainerId`], never its
//! name: a name used again is another container.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a {what}: use 1 to 63 of a-z, 0-9 and '-'; some words are the fabric's own"
)]
pub struct NameError {
    /// What the text should have named.
    pub what: &'static str,
    /// The offending text, cut to 80 characters.
    pub text: String,
}

/// True when `text` is one topic level of the fabric: `[a-z0-9-]{1,63}`.
fn is_level(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal $(, reserved $reserved:literal)?) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let is_reserved = false $(|| text == $reserved)?;
                if is_level(text) && !is_reserved {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { what: $what, text: text.chars().take(80).collect() })
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A node of the fabric, by the name that its operator gave it. `controller` is none: in
    /// the topics of streams that is the controller.
    NodeId,
    "node name", reserved "controller"
);
name!(
    /// A tenant: whoever owns containers. `default` until accounts exist.
    Tenant,
    "tenant name"
);
name!(
    /// What a tenant calls one of its containers.
    ContainerName,
    "container name"
);
name!(
    /// What a tenant calls one of its volumes.
    VolumeName,
    "volume name"
);
name!(
    /// What operators call a device, on every node that has one of the kind.
    DeviceName,
    "device label"
);
name!(
    /// A migration as people see it (`m-0007-3`), one for each attempt.
    MigrationId,
    "migration id"
);
name!(
    /// A caller's correlation id; the same id twice is answered from the record. `unparsed` is
    /// none: that is where commands without a readable id are answered.
    RequestId,
    "request id", reserved "unparsed"
);

impl Tenant {
    /// The tenant of everything that names none.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }
}

/// A container's identity for as long as it exists, wherever it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub Uuid);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &self.0.simple().to_string()[..8])
    }
}
impl FromStr for ContainerId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// The engine's image id: the SHA-256 of its configuration, 64 hex digits, without `sha256:`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(Arc<str>);

/// Why a text is not an image id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an image id: 64 hexadecimal digits, `sha256:` before them allowed")]
pub struct ImageIdError(String);

impl ImageId {
    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The first twelve digits, as podman prints an id.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}
impl FromStr for ImageId {
    type Err = ImageIdError;
    fn from_str(text: &str) -> Result<Self, ImageIdError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(hex.into()))
        } else {
            Err(ImageIdError(text.chars().take(80).collect()))
        }
    }
}
impl TryFrom<String> for ImageId {
    type Error = ImageIdError;
    fn try_from(text: String) -> Result<Self, ImageIdError> {
        text.parse()
    }
}
impl From<ImageId> for String {
    fn from(id: ImageId) -> String {
        id.0.as_ref().to_owned()
    }
}
impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// One attempt to place a container, ordered: the generation of the controller's
/// run that opened it, then a counter within the container.
///
/// Epochs only rise. A container runs on a node only under the highest epoch that
/// the node knows it owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// The generation of the run that opened the attempt.
    pub generation: u32,
    /// Counts a container's attempts, over all generations.
    pub counter: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.counter)
    }
}
/// Text that is no epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an epoch: two numbers with a dot between them")]
pub struct EpochError(String);

impl FromStr for Epoch {
    type Err = EpochError;
    fn from_str(text: &str) -> Result<Self, EpochError> {
        let parts = text.split_once('.');
        let read = parts.and_then(|(generation, counter)| {
            Some(Self { generation: generation.parse().ok()?, counter: counter.parse().ok()? })
        });
        read.ok_or_else(|| EpochError(text.chars().take(40).collect()))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One start of a controller: its generation and a random number that no two
/// starts share. Agents obey only the run that they promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Above every generation that the run's database or any agent knew.
    pub generation: u32,
    /// Random: two runs of one generation (two databases) differ in it.
    pub nonce: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.generation, self.nonce >> 32)
    }
}
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One life of a node: what a promise is bound to.
///
/// `boot` changes when the machine lost its memory, `incarnation` when the agent
/// lost its ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Life {
    /// The kernel's boot id.
    pub boot: Uuid,
    /// Random, made with a new ledger.
    pub incarnation: Uuid,
}

/// A digest of something, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_topic_level() {
        assert!("edge-a".parse::<NodeId>().is_ok());
        for bad in ["", "Edge", "a/b", "+", "#", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reserved_words_name_nothing() {
        assert!("controller".parse::<NodeId>().is_err());
        assert!("unparsed".parse::<RequestId>().is_err());
        assert!("controller".parse::<ContainerName>().is_ok());
    }

    #[test]
    fn a_serialised_name_is_checked_when_it_is_read() {
        assert!(serde_json::from_str::<NodeId>("\"edge-a\"").is_ok());
        assert!(serde_json::from_str::<NodeId>("\"a/#\"").is_err());
    }

    #[test]
    fn a_later_generation_outranks_any_counter() {
        let old = Epoch { generation: 1, counter: 900 };
        assert_eq!(old.to_string().parse(), Ok(old));
        assert!("1".parse::<Epoch>().is_err() && "1.x".parse::<Epoch>().is_err());
        let new = Epoch { generation: 2, counter: 1 };
        assert!(new > old);
    }

    #[test]
    fn an_image_id_may_carry_its_algorithm() {
        let hex = "ab".repeat(32);
        assert_eq!(format!("sha256:{hex}").parse::<ImageId>().unwrap().as_str(), hex);
        assert!("sha256:abc".parse::<ImageId>().is_err());
    }
}
