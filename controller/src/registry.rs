//! The nodes, from what they announce, what the broker says of them, and what mDNS shows.
//!
//! Retained messages are a cache: a node that is heard again says everything anew. What
//! was last known outlives a restart in the database, where such a node counts as lost
//! until it is heard. mDNS only tells of nodes that are there and have not joined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_proto::id::{ContainerId, ContainerName, NodeId, Tenant};
use godwit_proto::node::{NodeInfo, NodeMetrics, NodeState as Announced, Presence};
use godwit_proto::topic::Topic;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::placement::{NodeFacts, NodeState, Version};
use crate::refusal::Chain;
use crate::store::{ContainerState, DeviceRow, StoreError, StoreHandle};
use crate::view::{ContainerView, NodeView};

/// Every node that is known; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    known: Mutex<Known>,
    /// Something in `Known::unsaved`.
    unsaved: Notify,
    events: broadcast::Sender<Event>,
    store: StoreHandle,
}

#[derive(Debug, Default)]
struct Known {
    nodes: BTreeMap<NodeId, Node>,
    /// Seen by mDNS, and since when.
    seen: BTreeMap<NodeId, Timestamp>,
    owners: BTreeMap<ContainerId, NodeId>,
    unsaved: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Node {
    state: NodeState,
    since: Timestamp,
    heard: Timestamp,
    /// When an operator said that it is off, unless it was heard since.
    fenced: Option<Timestamp>,
    /// As it came and as it was understood.
    info: Option<(Arc<Value>, NodeInfo)>,
    metrics: Option<(Arc<Value>, NodeMetrics)>,
}

impl Node {
    fn new(state: NodeState, now: Timestamp) -> Self {
        Self { state, since: now, heard: now, fenced: None, info: None, metrics: None }
    }

    /// The state to be shown, and since when.
    fn standing(&self) -> (NodeState, Timestamp) {
        self.fenced.map_or((self.state, self.since), |since| (NodeState::Fenced, since))
    }
}

impl Registry {
    /// The nodes that the database knows; all of them lost until they are heard.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open(
        store: StoreHandle,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, StoreError> {
        let (devices, containers) =
            store.call(|store| Ok((store.devices()?, store.containers()?))).await?;
        let mut known = Known::default();
        for row in devices {
            let state = if row.state == NodeState::Offline.to_string() {
                NodeState::Offline
            } else {
                NodeState::Lost
            };
            let info = row.info.as_deref().and_then(|text| understand(&row.node, text.as_bytes()));
            // Lost only now: its last word is the best that is known of when.
            let was = row.state == state.to_string();
            let since = if was { row.since } else { row.heard };
            let fenced = (row.state == NodeState::Fenced.to_string()).then_some(row.since);
            let node = Node { state, since, heard: row.heard, fenced, info, metrics: None };
            known.nodes.insert(row.node, node);
        }
        known.owners = containers.into_iter().map(|row| (row.spec.id, row.node)).collect();
        let inner = Inner { known: Mutex::new(known), unsaved: Notify::new(), events, store };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes in a message on a node's own topics; others are none of its business.
    pub fn hear(&self, topic: &Topic, payload: &[u8]) {
        let node = match topic {
            Topic::NodeState { node } | Topic::NodeInfo { node } | Topic::NodeMetrics { node } => {
                node
            }
            _ => return,
        };
        // An empty retained message only clears.
        if !payload.is_empty() && self.take_in(topic, node, payload) {
            self.tell(node);
        }
    }

    /// True when something changed.
    fn take_in(&self, topic: &Topic, id: &NodeId, payload: &[u8]) -> bool {
        let now = Timestamp::now();
        let mut known = self.known();
        match topic {
            Topic::NodeState { .. } => {
                let Some((_, said)) = understand::<Announced>(id, payload) else { return false };
                let state = state_of(said.state);
                let since = said.since.parse().ok().filter(|_| state != NodeState::Lost);
                let node = known.nodes.entry(id.clone()).or_insert_with(|| Node::new(state, now));
                if node.state != state {
                    tracing::info!(node = %id, "node is {state} (was {})", node.state);
                    node.since = now;
                    if state != NodeState::Online {
                        node.metrics = None;
                    }
                }
                node.state = state;
                // A will was written when the connection began: it tells of another time.
                node.since = since.unwrap_or(node.since);
                node.heard = now;
            }
            Topic::NodeInfo { .. } => {
                let Some(info) = understand(id, payload) else { return false };
                let node = known
                    .nodes
                    .entry(id.clone())
                    .or_insert_with(|| Node::new(NodeState::Lost, now));
                node.info = Some(info);
                node.heard = now;
            }
            _ => {
                let metrics = understand(id, payload);
                let Some(node) = known.nodes.get_mut(id) else { return false };
                node.metrics = metrics;
                // Unlike state and announcement these are never retained: it is alive.
                if node.fenced.take().is_none() {
                    return true;
                }
                tracing::warn!(node = %id, "a fenced node is heard: it is back, or was never off");
            }
        }
        known.unsaved.insert(id.clone());
        self.inner.unsaved.notify_one();
        true
    }

    /// An operator says that a node is off: until it is heard again it counts as fenced.
    pub fn fence(&self, node: &NodeId) {
        let mut known = self.known();
        let Some(fenced) = known.nodes.get_mut(node) else { return };
        fenced.fenced = Some(Timestamp::now());
        fenced.metrics = None;
        known.unsaved.insert(node.clone());
        drop(known);
        self.inner.unsaved.notify_one();
        self.tell(node);
    }

    /// mDNS shows a node.
    pub fn seen(&self, node: NodeId) {
        self.known().seen.entry(node.clone()).or_insert_with(Timestamp::now);
        self.tell(&node);
    }

    /// mDNS no longer shows a node.
    pub fn unseen(&self, node: &NodeId) {
        self.known().seen.remove(node);
    }

    /// Keeps count of the containers of each node.
    pub fn note(&self, container: &ContainerView) {
        let mut known = self.known();
        if container.state == ContainerState::Removed {
            known.owners.remove(&container.id);
        } else {
            known.owners.insert(container.id, container.node.clone());
        }
    }

    /// Every node, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        let known = self.known();
        let names: BTreeSet<_> = known.nodes.keys().chain(known.seen.keys()).collect();
        names.into_iter().filter_map(|name| known.view(name)).collect()
    }

    /// One node.
    pub fn node(&self, id: &NodeId) -> Option<NodeView> {
        self.known().view(id)
    }

    /// What placement needs to know of a node.
    pub fn facts(&self, id: &NodeId) -> Option<NodeFacts> {
        self.known().facts(id)
    }

    /// The same of every node.
    pub fn all_facts(&self) -> Vec<NodeFacts> {
        let known = self.known();
        let names: BTreeSet<_> = known.nodes.keys().chain(known.seen.keys()).collect();
        names.into_iter().filter_map(|name| known.facts(name)).collect()
    }

    /// The nodes that have an end for tenants' networks: whether they hear, and its address. One that
    /// is fenced has none any more.
    pub fn underlays(&self) -> Vec<(NodeId, bool, std::net::IpAddr)> {
        let known = self.known();
        let end = |(id, node): (&NodeId, &Node)| {
            let underlay = node.info.as_ref()?.1.underlay?;
            let (state, _) = node.standing();
            if state == NodeState::Fenced {
                return None;
            }
            let hears = matches!(state, NodeState::Online | NodeState::Draining);
            Some((id.clone(), hears, underlay.address))
        };
        known.nodes.iter().filter_map(end).collect()
    }

    /// The memory that a container uses on a node, if that has told.
    pub fn memory_of(&self, node: &NodeId, container: &ContainerName) -> Option<u64> {
        let known = self.known();
        let (_, metrics) = known.nodes.get(node)?.metrics.as_ref()?;
        metrics.containers.iter().find(|of| of.name == *container).map(|of| of.memory_bytes)
    }

    /// True when a node is known to hold an image.
    pub fn holds(&self, node: &NodeId, image: &godwit_proto::id::ImageId) -> bool {
        let known = self.known();
        known
            .nodes
            .get(node)
            .and_then(|node| node.info.as_ref())
            .is_some_and(|(_, info)| info.images.contains(image))
    }

    /// Keeps the database up with what is heard, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return self.save().await,
                () = self.inner.unsaved.notified() => self.save().await,
            }
        }
    }

    async fn save(&self) {
        let rows: Vec<DeviceRow> = {
            let mut known = self.known();
            let unsaved = std::mem::take(&mut known.unsaved);
            unsaved.iter().filter_map(|node| known.row(node)).collect()
        };
        let saved = self
            .inner
            .store
            .call(move |store| rows.iter().try_for_each(|row| store.save_device(row)));
        if let Err(error) = saved.await {
            tracing::error!(error = %Chain(&error), "a node's last word is not recorded");
        }
    }

    fn tell(&self, node: &NodeId) {
        if let Some(view) = self.node(node) {
            // Nobody watches, perhaps.
            let _ = self.inner.events.send(Event::Node(view));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn view(&self, id: &NodeId) -> Option<NodeView> {
        let containers = self.owners.values().filter(|owner| *owner == id).count();
        let name = id.clone();
        match self.nodes.get(id) {
            Some(node) => {
                let (state, since) = node.standing();
                Some(NodeView {
                    name,
                    state,
                    since,
                    containers,
                    info: node.info.as_ref().map(|(raw, _)| Arc::clone(raw)),
                    metrics: node.metrics.as_ref().map(|(raw, _)| Arc::clone(raw)),
                })
            }
            None => self.seen.get(id).map(|since| NodeView {
                name,
                state: NodeState::Unjoined,
                since: *since,
                containers,
                info: None,
                metrics: None,
            }),
        }
    }

    fn facts(&self, id: &NodeId) -> Option<NodeFacts> {
        let view = self.view(id)?;
        let node = self.nodes.get(id);
        let info = node.and_then(|node| node.info.as_ref()).map(|(_, info)| info);
        let metrics = node.and_then(|node| node.metrics.as_ref()).map(|(_, metrics)| metrics);
        Some(NodeFacts {
            node: view.name,
            state: view.state,
            is_announced: info.is_some(),
            arch: info.map(|info| info.arch.clone()).unwrap_or_default(),
            kernel: info.and_then(|info| Version::read(&info.kernel)),
            engine: info.and_then(|info| {
                let (name, version) = info.engine.rsplit_once(' ')?;
                Some((name.to_owned(), Version::read(version)?))
            }),
            criu: info.and_then(|info| Version::read(&info.criu)),
            probe_failure: info
                .filter(|info| !info.probe.can_migrate)
                .map(|info| info.probe.problems.join("; ")),
            can_arm: info.is_some_and(|info| info.probe.can_arm),
            underlay: info.and_then(|info| info.underlay),
            devices: info.map(|info| info.devices.keys().cloned().collect()).unwrap_or_default(),
            memory_free_bytes: metrics.map(|metrics| metrics.memory_free_bytes),
            disk_free_bytes: metrics.map(|metrics| metrics.disk_free_bytes),
            containers: view.containers,
        })
    }

    fn row(&self, id: &NodeId) -> Option<DeviceRow> {
        let node = self.nodes.get(id)?;
        let (state, since) = node.standing();
        Some(DeviceRow {
            node: id.clone(),
            tenant: Tenant::default_tenant(),
            state: state.to_string(),
            since,
            info: node.info.as_ref().map(|(raw, _)| raw.to_string()),
            heard: node.heard,
        })
    }
}

fn state_of(presence: Presence) -> NodeState {
    match presence {
        Presence::Online => NodeState::Online,
        Presence::Draining => NodeState::Draining,
        Presence::Offline => NodeState::Offline,
        Presence::Lost => NodeState::Lost,
    }
}

/// A node's JSON, raw and typed; a malformed one is logged and forgotten.
fn understand<T: serde::de::DeserializeOwned>(
    node: &NodeId,
    payload: &[u8],
) -> Option<(Arc<Value>, T)> {
    let parsed = serde_json::from_slice::<Value>(payload)
        .and_then(|raw| Ok((Arc::new(raw.clone()), serde_json::from_value(raw)?)));
    match parsed {
        Ok(both) => Some(both),
        Err(error) => {
            tracing::warn!(%node, %error, "a message of the node is ignored: is its agent's version another?");
            None
        }
    }
}

#[cfg(test)]
mod tests;
