//! What each node is to know of the tenants' networks, told whenever it changes.
//!
//! ```text
//! events ─▶ what is there now (database, registry) ─▶ plan, of each node ─▶ those that changed
//! ```
//!
//! The plan is pure ([`Parts`]); what was told last is remembered only to say nothing twice. A node
//! that comes back is told again.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use godwit_proto::frame::ToNode;
use godwit_proto::id::{ContainerId, MigrationId, NodeId};
use godwit_proto::overlay::{Overlays, Vni};
use godwit_proto::wire;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::placement::NodeState;
use crate::refusal::Chain;
use crate::registry::Registry;
use crate::store::{ContainerState, StoreError, StoreHandle};

pub use plan::{Fabric, Parts, Station};

/// How long a change waits for others, so that many are told as one.
const GATHER: Duration = Duration::from_millis(10);
/// How often it is looked whether an exit is still there.
const LOOK: Duration = Duration::from_secs(2);
/// How long an exit may be silent before another node takes its place: connections that leave
/// through it end then, and they do not end because its agent is started anew.
const PATIENCE: Duration = Duration::from_secs(10);

/// The task that tells the nodes.
pub struct Teller {
    store: StoreHandle,
    registry: Registry,
    frames: mpsc::Sender<(NodeId, ToNode)>,
    /// What was told last.
    told: BTreeMap<NodeId, Overlays>,
    seen: Seen,
    /// Since when exits are silent.
    silent: BTreeMap<Vni, Instant>,
}

/// What was seen last of all that the plan rests on.
#[derive(Default)]
struct Seen {
    containers: BTreeMap<ContainerId, NodeId>,
    moves: BTreeMap<ContainerId, (MigrationId, bool)>,
    nodes: BTreeMap<NodeId, (NodeState, Timestamp, Option<Value>)>,
}

impl Seen {
    /// True when the event changes what nodes are to know; also the node that must hear it anew.
    fn note(&mut self, event: &Event) -> (bool, Option<NodeId>) {
        match event {
            Event::Container(view) if view.state == ContainerState::Removed => {
                (self.containers.remove(&view.id).is_some(), None)
            }
            Event::Container(view) => {
                let before = self.containers.insert(view.id, view.node.clone());
                (before.as_ref() != Some(&view.node), None)
            }
            Event::Migration(view) => {
                let now = (view.id.clone(), view.settled);
                let before = self.moves.insert(view.container_id, now.clone());
                (before != Some(now), None)
            }
            Event::Node(view) => {
                let underlay = view.info.as_ref().and_then(|info| info.get("underlay")).cloned();
                let now = (view.state, view.since, underlay);
                let before = self.nodes.insert(view.name.clone(), now.clone());
                let is_new = before != Some(now);
                (is_new, (is_new && view.state == NodeState::Online).then(|| view.name.clone()))
            }
        }
    }
}

impl Teller {
    /// Tells nodes over `frames`.
    pub fn new(
        store: StoreHandle,
        registry: Registry,
        frames: mpsc::Sender<(NodeId, ToNode)>,
    ) -> Self {
        Self {
            store,
            registry,
            frames,
            told: BTreeMap::new(),
            seen: Seen::default(),
            silent: BTreeMap::new(),
        }
    }

    /// Follows `events` until `shutdown`.
    pub async fn run(
        mut self,
        mut events: broadcast::Receiver<Event>,
        shutdown: CancellationToken,
    ) {
        let mut look = tokio::time::interval(LOOK);
        let mut due: Option<Instant> = Some(Instant::now());
        loop {
            let gathered = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.recv() => match event {
                    Ok(event) => {
                        let (is_change, again) = self.seen.note(&event);
                        if let Some(node) = again {
                            self.told.remove(&node);
                        }
                        if is_change && due.is_none() {
                            due = Some(Instant::now() + GATHER);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        // Some that came back may be among what was missed.
                        self.told.clear();
                        due = Some(Instant::now());
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = look.tick() => {
                    if due.is_none() && self.has_silent_exit() {
                        due = Some(Instant::now());
                    }
                }
                () = gathered => {
                    due = None;
                    if let Err(error) = self.tell().await {
                        tracing::warn!(error = %Chain(&error), "nodes do not know of the latest networks");
                        due = Some(Instant::now() + LOOK);
                    }
                }
            }
        }
    }

    fn has_silent_exit(&self) -> bool {
        !self.silent.is_empty()
    }

    async fn tell(&mut self) -> Result<(), StoreError> {
        let nodes = self.registry.underlays();
        let names: Vec<_> = nodes.iter().map(|(node, ..)| node.clone()).collect();
        let (containers, moves, networks, numbers) = self
            .store
            .call(move |store| {
                let moves = store.unsettled_attempts()?;
                let numbers = store.stations(&names)?;
                Ok((store.containers()?, moves, store.networks()?, numbers))
            })
            .await?;
        let station = |(node, is_online, underlay)| {
            let number = *numbers.get(&node)?;
            Some(Station { node, number, is_online, underlay })
        };
        let stations = nodes.into_iter().filter_map(station);
        let moves = moves.into_iter().map(|attempt| (attempt.container, attempt.target)).collect();
        let mut fabric = Fabric { containers, moves, networks, stations: stations.collect() };
        self.choose_exits(&mut fabric).await?;
        let parts = Parts::of(&fabric);
        for station in fabric.stations.iter().filter(|station| station.is_online) {
            let overlays = parts.plan(station);
            if self.told.get(&station.node) == Some(&overlays) {
                continue;
            }
            let frame = ToNode::Overlays(overlays.clone());
            if let Err(error) = wire::encode(&frame) {
                tracing::error!(node = %station.node, %error, "a node cannot be told of its networks");
                continue;
            }
            self.told.insert(station.node.clone(), overlays);
            // Closed only on the way out.
            let _ = self.frames.send((station.node.clone(), frame)).await;
        }
        Ok(())
    }

    /// Every network with containers has an exit that is there.
    async fn choose_exits(&mut self, fabric: &mut Fabric) -> Result<(), StoreError> {
        let Fabric { networks, stations, containers, .. } = fabric;
        let is_online = |node: &NodeId| stations.iter().any(|it| it.node == *node && it.is_online);
        let used: BTreeSet<_> = networks
            .iter()
            .map(|network| network.vni)
            .filter(|vni| plan::is_used(containers, *vni))
            .collect();
        self.silent.retain(|vni, _| used.contains(vni));
        let online: Vec<_> = stations.iter().filter(|station| station.is_online).collect();
        for network in networks.iter_mut().filter(|network| used.contains(&network.vni)) {
            if network.exit.as_ref().is_some_and(is_online) {
                self.silent.remove(&network.vni);
                continue;
            }
            let since = *self.silent.entry(network.vni).or_insert_with(Instant::now);
            if network.exit.is_some() && since.elapsed() < PATIENCE {
                continue;
            }
            if online.is_empty() {
                continue;
            }
            // Not one node for all networks.
            let exit = online[network.vni.0 as usize % online.len()];
            tracing::info!(network = network.name, exit = %exit.node, "a network's exit is chosen");
            let (vni, node) = (network.vni, exit.node.clone());
            network.exit = Some(node.clone());
            self.store.call(move |store| store.set_exit(vni, &node)).await?;
            self.silent.remove(&vni);
        }
        Ok(())
    }
}
