//! What a node says of itself to everyone: public JSON on `godwit/v1/node/<node>/…`.
//!
//! Unknown fields are ignored when read, so that nodes of several versions get along.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{ContainerName, DeviceName, ImageId};

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is connected and takes containers.
    Online,
    /// It is connected and is being emptied.
    Draining,
    /// It said goodbye.
    Offline,
    /// Its connection broke: said by the broker, as the node's will.
    Lost,
}

/// `state`, retained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Whether it takes part.
    pub state: Presence,
    /// Since when, RFC 3339; of a will, when the connection began.
    pub since: String,
}

/// `info`, retained: what the node is and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Version of the agent.
    pub agent_version: String,
    /// Processor architecture as the kernel names it (`x86_64`, `aarch64`).
    pub arch: String,
    /// The operating system, for people.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// Instruction set extensions that a moved process may rely on.
    #[serde(default)]
    pub cpu_features: Vec<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Size of the disk that holds containers, in bytes.
    pub disk_bytes: u64,
    /// The engine and its version (`podman 5.4.2`).
    pub engine: String,
    /// The runtime and its version (`runc 1.1.15`).
    pub runtime: String,
    /// CRIU's version.
    pub criu: String,
    /// The node's own addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Where the node takes and sends VXLAN.
    #[serde(default)]
    pub underlay: Option<Underlay>,
    /// The operator's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The devices that containers may ask for by label, and where the node has them.
    #[serde(default)]
    pub devices: BTreeMap<DeviceName, String>,
    /// Images that the engine holds.
    #[serde(default)]
    pub images: Vec<ImageId>,
    /// What the doctor found by doing.
    pub probe: Probe,
}

/// The node's end of all tenants' networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// Its address.
    pub address: IpAddr,
    /// The largest packet that its link takes, in bytes.
    pub mtu: u16,
}

/// Whether containers can be moved to and from a node, and if not, why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// A container was checkpointed and restored here.
    pub can_migrate: bool,
    /// So it was with everything but CRIU done before the freeze; moves of a node that cannot do
    /// that go the plain way.
    #[serde(default)]
    pub can_arm: bool,
    /// What is missing, in plain words, each with how to get it.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// `metrics`, every few seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeMetrics {
    /// Processor time in use, 0 to 100 over all processors.
    pub cpu_percent: f32,
    /// Memory that can be had without swapping, in bytes.
    pub memory_free_bytes: u64,
    /// Free disk where containers live, in bytes.
    pub disk_free_bytes: u64,
    /// Bytes received per second over all links but loopback.
    pub network_rx_bytes_per_s: u64,
    /// Bytes sent per second.
    pub network_tx_bytes_per_s: u64,
    /// The hottest sensor in °C, where there is one.
    #[serde(default)]
    pub temperature_celsius: Option<f32>,
    /// The fabric's containers on the node.
    #[serde(default)]
    pub containers: Vec<ContainerMetrics>,
}

/// What one container uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerMetrics {
    /// Its name.
    pub name: ContainerName,
    /// Processor time, in percent of one processor.
    pub cpu_percent: f32,
    /// Memory of its processes in bytes.
    pub memory_bytes: u64,
    /// Its processes.
    pub processes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let text = r#"{"state":"online","since":"2026-11-22T18:00:00Z","mood":"good"}"#;
        let state: NodeState = serde_json::from_str(text).unwrap();
        assert_eq!(state.state, Presence::Online);
    }
}
