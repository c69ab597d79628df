//! The controller's objects, as far as tables and waiting look into them.
//!
//! `--format json`, templates and `inspect` show the controller's own JSON
//! instead, so a field that this version does not know is not lost.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::Reason;

/// A node.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) since: Option<Timestamp>,
    pub(crate) containers: Option<u64>,
    pub(crate) info: Option<NodeInfo>,
    pub(crate) metrics: Option<NodeMetrics>,
}

/// What became of a fence.
#[derive(Debug, Deserialize)]
pub(crate) struct Fenced {
    /// The moves that it may end.
    pub(crate) migrations: Vec<String>,
    /// The containers that are lost until the node is back.
    pub(crate) containers: Vec<String>,
}

/// What a node is and has.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct NodeInfo {
    pub(crate) arch: Option<String>,
    pub(crate) cpus: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) probe: Option<Probe>,
}

/// Whether containers can be moved to and from a node.
#[derive(Debug, Deserialize)]
pub(crate) struct Probe {
    pub(crate) can_migrate: bool,
}

/// How busy a node is.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct NodeMetrics {
    pub(crate) memory_free_bytes: Option<u64>,
}

/// A container.
#[derive(Debug, Deserialize)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: Option<String>,
    pub(crate) image_name: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) state: String,
    pub(crate) intent: Option<String>,
    pub(crate) migration: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) exit_code: Option<i64>,
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) volumes: Vec<String>,
    pub(crate) since: Option<Timestamp>,
}

/// An attempt to move a container.
#[derive(Debug, Deserialize)]
pub(crate) struct Migration {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) phase: String,
    pub(crate) settled: bool,
    pub(crate) outcome: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) remedy: Option<String>,
    pub(crate) percent: Option<f64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) bytes_total: Option<u64>,
    pub(crate) wire_bytes: Option<u64>,
    pub(crate) rate_bytes_per_s: Option<f64>,
    pub(crate) eta_ms: Option<f64>,
    pub(crate) gap_ms: Option<f64>,
    #[serde(default)]
    pub(crate) phases: Vec<Phase>,
    #[serde(default)]
    pub(crate) timeline: Vec<Seen>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) ended: Option<Timestamp>,
}

impl Migration {
    /// The node it leaves, in words.
    pub(crate) fn from(&self) -> &str {
        self.source.as_deref().unwrap_or("its node")
    }

    /// The node it goes to, in words.
    pub(crate) fn to(&self) -> &str {
        self.target.as_deref().unwrap_or("another node")
    }

    /// How long it took from beginning to end.
    pub(crate) fn total_ms(&self) -> Option<f64> {
        let took = self.ended?.duration_since(self.started?);
        Some(took.as_secs_f64() * 1000.0)
    }
}

/// When a moment of a hand-over came.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) moment: String,
    /// Microseconds since the freeze was asked for.
    pub(crate) us: i64,
}

/// One step of a migration.
#[derive(Debug, Deserialize)]
pub(crate) struct Phase {
    pub(crate) phase: String,
    pub(crate) ms: Option<f64>,
}

/// An image, in the controller's store or a node's engine.
#[derive(Debug, Deserialize)]
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) names: Vec<String>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) arch: Option<String>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) containers: Option<u64>,
}

/// Whether a migration would be let in.
#[derive(Debug, Deserialize)]
pub(crate) struct Admission {
    pub(crate) ok: bool,
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) mode: Option<String>,
    #[serde(default)]
    pub(crate) reasons: Vec<Reason>,
    pub(crate) prediction: Option<Prediction>,
}

/// What a migration would cost.
#[derive(Debug, Deserialize)]
pub(crate) struct Prediction {
    pub(crate) bytes: Option<u64>,
    pub(crate) total_ms: Option<f64>,
    pub(crate) gap_ms: Option<f64>,
}
