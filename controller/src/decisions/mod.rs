//! The decision core's handle. A stand-in until the core itself stands here.

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::{FromNode, NodeAnswer, NodeRequest, ToNode};
use godwit_proto::id::{ContainerId, MigrationId, NodeId, Run};
use godwit_proto::migration::Plan;
use tokio::sync::{broadcast, mpsc};

use crate::event::Event;
use crate::refusal::Refusal;
use crate::store::{Prediction, Store, StoreError};

/// A cheap handle to the decision core.
#[derive(Debug, Clone)]
pub struct Decisions {
    events: broadcast::Sender<Event>,
}

fn absent<T>() -> Result<T, Refusal> {
    Err(Refusal::new("unavailable", "the decision core is not built yet", "wait for it"))
}

#[expect(missing_docs, clippy::unused_async, reason = "a stand-in")]
impl Decisions {
    pub fn open(
        _: Store,
        _: mpsc::Sender<(NodeId, ToNode)>,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, StoreError> {
        Ok(Self { events })
    }
    pub async fn heard(&self, _: NodeId, _: FromNode) {}
    pub async fn run(&self) -> Option<Run> {
        None
    }
    pub async fn create(&self, _: ContainerSpec, _: NodeId, _: bool) -> Result<(), Refusal> {
        absent()
    }
    pub async fn start(&self, _: ContainerId) -> Result<(), Refusal> {
        absent()
    }
    pub async fn stop(&self, _: ContainerId) -> Result<(), Refusal> {
        absent()
    }
    pub async fn remove(&self, _: ContainerId, _: bool) -> Result<(), Refusal> {
        absent()
    }
    pub async fn migrate(
        &self,
        _: ContainerId,
        _: NodeId,
        _: Plan,
        _: Option<Prediction>,
    ) -> Result<MigrationId, Refusal> {
        absent()
    }
    pub async fn cancel(&self, _: &MigrationId) -> Result<(), Refusal> {
        absent()
    }
    pub async fn ask_node(&self, _: &NodeId, _: NodeRequest) -> Result<NodeAnswer, Refusal> {
        absent()
    }
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
