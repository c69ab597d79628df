//! What a container is to the fabric: everything a node needs to make it, and to
//! make it again elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::id::{ContainerId, ContainerName, ImageId, Tenant};
use crate::overlay::{Attachment, Published, Resolver};
use crate::volume::Volume;

/// A container as its tenant asked for it and as the controller completed it.
///
/// It never changes while the container exists, so both sides of a migration can
/// hold their own copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The container's identity.
    pub id: ContainerId,
    /// Who owns it.
    pub tenant: Tenant,
    /// What its tenant calls it.
    pub name: ContainerName,
    /// The image by id: names may point elsewhere on another node.
    pub image: ImageId,
    /// The image by name: podman looks it up again at a restore.
    pub image_name: String,
    /// Arguments in place of the image's `Cmd`; empty means the image's own.
    pub args: Vec<String>,
    /// Environment added to the image's.
    pub env: BTreeMap<String, String>,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// What the container may use of its node.
    pub limits: Limits,
    /// Its interfaces, which move with it: `eth0`, `eth1` and so on. The first has the default route.
    pub interfaces: Vec<Interface>,
    /// Its ports that nodes open for it.
    #[serde(default)]
    pub ports: Vec<Published>,
    /// Where it asks for names; `None` leaves it to the node.
    #[serde(default)]
    pub resolver: Option<Resolver>,
    /// The volumes that are its alone as long as it exists, and move with it.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// The devices of its node that it may use, by label.
    #[serde(default)]
    pub devices: Vec<Device>,
}

impl ContainerSpec {
    /// The name that the engine knows it by, the same on every node.
    ///
    /// Carries the id, because a name used again is another container.
    pub fn engine_name(&self) -> String {
        format!("godwit-{}", self.id)
    }

    /// All of its addresses, without their networks.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces.iter().flat_map(|interface| &interface.addresses).map(IpNet::addr)
    }
}

/// What a container may use; `None` means no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processor time in billionths of a core.
    #[serde(default)]
    pub nano_cpus: Option<u64>,
}

/// An interface of a container: given once by the controller, kept for life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The hardware address.
    pub mac: [u8; 6],
    /// Its addresses, each with its network's prefix; of either family.
    pub addresses: Vec<IpNet>,
    /// The default routes, at most one of a family.
    pub gateways: Vec<IpAddr>,
    /// The tenant's network that it is in; `None` for the nodes' own.
    #[serde(default)]
    pub overlay: Option<Attachment>,
}

/// A container has at most so many interfaces.
pub const MAX_INTERFACES: usize = 8;

/// What the kernel shows of a container's copy on one node.
///
/// Read from cgroups and /proc, never from the engine's word: podman blocks or
/// lies while a container is held at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Execution {
    /// No process of it exists.
    Absent,
    /// Its processes run.
    Running,
    /// Its processes exist and its cgroup is frozen.
    Frozen,
    /// Its processes are rebuilt and stopped by CRIU, waiting at the gate.
    Gated,
}

/// How a container moves.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// With its memory, armed: everything that is not CRIU is done before the freeze.
    #[default]
    Live,
    /// Stopped, moved with its files, started again.
    Cold,
    /// With its memory, by the engine's own export and import: slower, and asks less of the
    /// nodes.
    Plain,
}
