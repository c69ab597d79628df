//! What placement needs to know of a node.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use godwit_proto::id::{DeviceName, NodeId};
use godwit_proto::node::Underlay;
use serde::Serialize;

/// Whether a node can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It is there and takes containers.
    Online,
    /// It is there and takes no more containers.
    Draining,
    /// It said goodbye.
    Offline,
    /// It went without a goodbye.
    Lost,
    /// An operator said that it is off; it was not heard since.
    Fenced,
    /// It was seen by mDNS only: it is there, but does not belong to this fabric yet.
    Unjoined,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Draining => "draining",
            Self::Offline => "offline",
            Self::Lost => "lost",
            Self::Fenced => "fenced",
            Self::Unjoined => "unjoined",
        })
    }
}

/// A program's version: the numbers at its beginning, compared as numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    numbers: Vec<u32>,
}

impl Version {
    /// Reads `6.18.44-generic` as 6.18.44; `None` if it does not begin with a number.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let numbers: Vec<u32> = text[..end].split('.').map_while(|n| n.parse().ok()).collect();
        (!numbers.is_empty()).then_some(Self { numbers })
    }

    /// The first two numbers, which alone tell of features.
    pub fn series(&self) -> (u32, u32) {
        let number = |at: usize| self.numbers.get(at).copied().unwrap_or(0);
        (number(0), number(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.numbers.iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            write!(f, "{dot}{number}")?;
        }
        Ok(())
    }
}

/// A node as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub node: NodeId,
    /// Whether it can be used.
    pub state: NodeState,
    /// It announced what it is.
    pub is_announced: bool,
    /// Its architecture, in any terms.
    pub arch: String,
    /// Its kernel.
    pub kernel: Option<Version>,
    /// Its container engine, if it has one.
    pub engine: Option<(String, Version)>,
    /// Its CRIU, if it has one.
    pub criu: Option<Version>,
    /// Why it cannot checkpoint and restore, by its own trial.
    pub probe_failure: Option<String>,
    /// It can do all but CRIU's part of a move before the freeze.
    pub can_arm: bool,
    /// Its end of tenants' networks, if it has one.
    pub underlay: Option<Underlay>,
    /// The labels of its devices.
    pub devices: BTreeSet<DeviceName>,
    /// Memory that is free to use.
    pub memory_free_bytes: Option<u64>,
    /// Disk that is free to use.
    pub disk_free_bytes: Option<u64>,
    /// How many containers it has.
    pub containers: usize,
}

impl NodeFacts {
    /// Higher is better.
    pub(super) fn rank(&self) -> (u64, Reverse<usize>, Reverse<&NodeId>) {
        let memory = self.memory_free_bytes.unwrap_or(0);
        (memory, Reverse(self.containers), Reverse(&self.node))
    }
}

/// True when two names mean the same architecture: images and kernels differ in them.
pub(super) fn is_same_arch(one: &str, other: &str) -> bool {
    fn common(name: &str) -> &str {
        match name {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "armv7l" | "armv6l" => "arm",
            "i386" | "i686" => "386",
            other => other,
        }
    }
    common(one) == common(other)
}
