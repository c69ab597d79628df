//! How containers, moves, nodes and images look from outside: one JSON shape each,
//! in REST, in its event stream and on MQTT. Fields that are not known are null.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use godwit_proto::container::{Interface, Limits, Mode};
use godwit_proto::id::{
    ContainerId, ContainerName, ImageId, MigrationId, NodeId, Tenant, VolumeName,
};
use godwit_proto::overlay::Vni;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::placement::NodeState;
use crate::store::{
    AttemptRow, ContainerRow, ContainerState, ImageRow, Intent, NetworkRow, PhaseMark, Prediction,
    Seen, VolumeRow,
};

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of ContainerRow and ContainerSpec")]
pub struct ContainerView {
    pub id: ContainerId,
    pub name: ContainerName,
    pub tenant: Tenant,
    pub image: ImageId,
    pub image_name: String,
    pub node: NodeId,
    pub state: ContainerState,
    pub intent: Intent,
    /// The move that is under way.
    pub migration: Option<MigrationId>,
    /// The ports that nodes open for it, as [`godwit_proto::overlay::Published`] reads them.
    pub ports: Vec<String>,
    /// Its volumes, as [`Volume`](godwit_proto::volume::Volume) reads them.
    pub volumes: Vec<String>,
    /// Its devices, as [`Device`](godwit_proto::device::Device) reads them.
    pub devices: Vec<String>,
    /// The first address of its first interface.
    pub ip: Option<IpAddr>,
    pub interfaces: Vec<InterfaceView>,
    pub epoch: String,
    pub exit_code: Option<i64>,
    pub error: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub limits: Limits,
    pub created: Timestamp,
    pub since: Timestamp,
}

/// One of a container's interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of Interface")]
pub struct InterfaceView {
    pub mac: String,
    pub addresses: Vec<IpNet>,
    pub gateways: Vec<IpAddr>,
    /// The tenant's network's number; the nodes' own network has none.
    pub vni: Option<Vni>,
}

impl InterfaceView {
    fn new(interface: &Interface) -> Self {
        let mac = interface.mac.iter().fold(String::new(), |mut text, byte| {
            let colon = if text.is_empty() { "" } else { ":" };
            // Writing into a String cannot fail.
            let _ = write!(text, "{colon}{byte:02x}");
            text
        });
        let Interface { addresses, gateways, .. } = interface.clone();
        let vni = interface.overlay.map(|overlay| overlay.vni);
        Self { mac, addresses, gateways, vni }
    }
}

impl ContainerView {
    /// The container as it is stored, with the move that is under way.
    pub fn new(row: &ContainerRow, migration: Option<MigrationId>) -> Self {
        let spec = row.spec.clone();
        let interfaces: Vec<_> = spec.interfaces.iter().map(InterfaceView::new).collect();
        let first = interfaces.first().and_then(|first| first.addresses.first().copied());
        Self {
            id: spec.id,
            name: spec.name,
            tenant: spec.tenant,
            image: spec.image,
            image_name: spec.image_name,
            node: row.node.clone(),
            state: row.state,
            intent: row.intent,
            migration,
            ip: first.map(|address| address.addr()),
            interfaces,
            ports: spec.ports.iter().map(ToString::to_string).collect(),
            volumes: spec.volumes.iter().map(ToString::to_string).collect(),
            devices: spec.devices.iter().map(ToString::to_string).collect(),
            epoch: row.epoch.to_string(),
            exit_code: row.exit_code,
            error: row.error.clone(),
            args: spec.args,
            env: spec.env,
            labels: spec.labels,
            limits: spec.limits,
            created: row.created,
            since: row.since,
        }
    }

    /// The container's last word.
    pub fn removed(row: &ContainerRow) -> Self {
        Self { state: ContainerState::Removed, since: Timestamp::now(), ..Self::new(row, None) }
    }
}

/// A tenant's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of NetworkRow")]
pub struct NetworkView {
    pub name: String,
    pub tenant: Tenant,
    pub vni: Vni,
    pub subnets: Vec<IpNet>,
    pub mtu: u16,
    pub exit: Option<NodeId>,
    /// Those that are in it.
    pub containers: Vec<ContainerName>,
    pub created: Timestamp,
}

impl NetworkView {
    /// The network as it is stored, with its containers out of these.
    pub fn new(row: &NetworkRow, containers: &[ContainerRow]) -> Self {
        let is_in = |row: &ContainerRow, vni| {
            row.spec.interfaces.iter().any(|it| it.overlay.is_some_and(|it| it.vni == vni))
        };
        let inside = containers.iter().filter(|container| is_in(container, row.vni));
        let row = row.clone();
        Self {
            containers: inside.map(|container| container.spec.name.clone()).collect(),
            name: row.name,
            tenant: row.tenant,
            vni: row.vni,
            subnets: row.subnets,
            mtu: row.mtu,
            exit: row.exit,
            created: row.created,
        }
    }
}

/// A tenant's volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of VolumeRow")]
pub struct VolumeView {
    pub name: VolumeName,
    pub tenant: Tenant,
    pub node: NodeId,
    /// The container that has it.
    pub container: Option<ContainerName>,
    pub created: Timestamp,
}

impl VolumeView {
    /// The volume as it is stored, with its container out of these.
    pub fn new(row: &VolumeRow, containers: &[ContainerRow]) -> Self {
        let holder = containers.iter().find(|container| Some(container.spec.id) == row.container);
        let row = row.clone();
        Self {
            container: holder.map(|container| container.spec.name.clone()),
            name: row.name,
            tenant: row.tenant,
            node: row.node,
            created: row.created,
        }
    }
}

/// A move, live or over.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of AttemptRow")]
pub struct MigrationView {
    pub id: MigrationId,
    pub container: ContainerName,
    pub container_id: ContainerId,
    pub tenant: Tenant,
    pub epoch: String,
    pub source: NodeId,
    pub target: NodeId,
    pub mode: Mode,
    pub bwlimit: Option<u64>,
    pub phase: String,
    pub settled: bool,
    pub outcome: Option<String>,
    pub reason: Option<String>,
    pub remedy: Option<String>,
    pub percent: Option<f64>,
    pub bytes: u64,
    pub bytes_total: Option<u64>,
    pub wire_bytes: u64,
    pub rate_bytes_per_s: Option<u64>,
    pub eta_ms: Option<u64>,
    pub gap_ms: Option<u64>,
    pub predicted: Option<Prediction>,
    pub phases: Vec<PhaseMark>,
    /// In microseconds since the freeze was asked for; those before it are negative.
    pub timeline: Vec<Seen>,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
}

/// How far a transfer is: too fleeting for the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// What must get across, once that is known.
    pub bytes_total: Option<u64>,
    /// How fast it does.
    pub rate_bytes_per_s: Option<u64>,
}

impl MigrationView {
    /// The move as it is stored, with what is known of its transfer.
    pub fn new(row: &AttemptRow, progress: Progress) -> Self {
        let moved = row.outcome.as_deref() == Some("moved");
        let total = progress.bytes_total.filter(|_| !row.settled);
        let left = total.map(|total| total.saturating_sub(row.bytes));
        let share = |total: u64| match total {
            0 => 0.0,
            #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
            total => (row.bytes as f64 / total as f64 * 1000.0).round().min(1000.0) / 10.0,
        };
        Self {
            id: row.id.clone(),
            container: row.name.clone(),
            container_id: row.container,
            tenant: row.tenant.clone(),
            epoch: row.epoch.to_string(),
            source: row.source.clone(),
            target: row.target.clone(),
            mode: row.mode,
            bwlimit: row.bwlimit,
            phase: row.phase.clone(),
            settled: row.settled,
            outcome: row.outcome.clone(),
            reason: row.reason.clone(),
            remedy: row.remedy.clone(),
            percent: if moved { Some(100.0) } else { total.map(share) },
            bytes: row.bytes,
            bytes_total: if moved { Some(row.bytes) } else { total },
            wire_bytes: row.wire_bytes,
            rate_bytes_per_s: progress.rate_bytes_per_s.filter(|_| !row.settled),
            eta_ms: left
                .zip(progress.rate_bytes_per_s.filter(|&rate| rate > 0))
                .map(|(left, rate)| left.saturating_mul(1000) / rate),
            gap_ms: row.gap_ms,
            predicted: row.predicted,
            phases: row.phases.clone(),
            timeline: crate::timeline::since_freezing(&row.timeline),
            started: row.started,
            ended: row.ended,
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeView {
    /// The node.
    pub name: NodeId,
    /// Whether it can be used.
    pub state: NodeState,
    /// When that state began.
    pub since: Timestamp,
    /// How many containers it has.
    pub containers: usize,
    /// Its last announcement, as it came.
    pub info: Option<Arc<Value>>,
    /// Its last metrics, as they came.
    pub metrics: Option<Arc<Value>>,
}

/// What a fence concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fenced {
    /// The moves that it may end.
    pub migrations: Vec<MigrationId>,
    /// The containers at rest that are lost until the node is back.
    pub containers: Vec<ContainerName>,
}

/// An image: in the controller's own store, or (with less known) in a node's engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are those of ImageRow")]
pub struct ImageView {
    pub id: ImageId,
    pub names: Vec<String>,
    pub size_bytes: u64,
    pub archive_bytes: Option<u64>,
    pub arch: Option<String>,
    pub os: Option<String>,
    pub created: Option<Timestamp>,
    /// How many containers were made of it.
    pub containers: Option<usize>,
}

impl ImageView {
    /// An image of the controller's.
    pub fn new(row: &ImageRow, containers: usize) -> Self {
        Self {
            id: row.id.clone(),
            names: row.names.clone(),
            size_bytes: row.size_bytes,
            archive_bytes: Some(row.archive_bytes),
            arch: Some(row.arch.clone()),
            os: Some(row.os.clone()),
            created: Some(row.created),
            containers: Some(containers),
        }
    }
}
