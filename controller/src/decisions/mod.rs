//! The decision core's handle. A stand-in until the core itself stands here.

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::{NodeAnswer, NodeRequest};
use godwit_proto::id::{ContainerId, MigrationId, NodeId};
use godwit_proto::migration::Plan;
use tokio::sync::broadcast;

use crate::event::Event;
use crate::refusal::Refusal;
use crate::store::Prediction;

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
    pub fn stand_in(events: broadcast::Sender<Event>) -> Self {
        Self { events }
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
