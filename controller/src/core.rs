//! What the services ask of the decision core, as a seam: production puts
//! [`crate::decisions::Decisions`] here, tests a stand-in.

use futures_util::future::BoxFuture;
use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::{NodeAnswer, NodeRequest};
use godwit_proto::id::{ContainerId, MigrationId, NodeId};
use godwit_proto::migration::Plan;
use tokio::sync::broadcast;

use crate::decisions::Decisions;
use crate::event::Event;
use crate::refusal::Refusal;
use crate::store::Prediction;
use crate::view::Fenced;

/// An answer to come.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// The only one that decides about containers.
///
/// A success means persisted and under way, not done: the end comes as an [`Event`].
pub trait Core: Send + Sync + 'static {
    /// Makes a container on a node, and starts it if asked.
    fn create(&self, spec: ContainerSpec, node: NodeId, start: bool) -> Answer<'_, ()>;
    /// Starts a stopped container where it is.
    fn start(&self, id: ContainerId) -> Answer<'_, ()>;
    /// Stops a container and keeps its files.
    fn stop(&self, id: ContainerId) -> Answer<'_, ()>;
    /// Removes a container; a running one only by force.
    fn remove(&self, id: ContainerId, force: bool) -> Answer<'_, ()>;
    /// Moves a container, after admission said yes.
    fn migrate(
        &self,
        id: ContainerId,
        to: NodeId,
        plan: Plan,
        predicted: Option<Prediction>,
    ) -> Answer<'_, MigrationId>;
    /// Calls a move off, in vain once it is decided.
    fn cancel(&self, id: &MigrationId) -> Answer<'_, ()>;
    /// Takes an operator's word that nothing runs on a node.
    fn fence(&self, node: &NodeId) -> Answer<'_, Fenced>;
    /// Asks a node something that changes no container.
    fn ask_node(&self, node: &NodeId, request: NodeRequest) -> Answer<'_, NodeAnswer>;
    /// Returns once all that was told of until now is in the database: what follows from one
    /// change is told piece by piece.
    fn written(&self) -> BoxFuture<'_, ()>;
    /// Every change from now on.
    fn events(&self) -> broadcast::Receiver<Event>;
}

impl Core for Decisions {
    fn create(&self, spec: ContainerSpec, node: NodeId, start: bool) -> Answer<'_, ()> {
        Box::pin(self.create(spec, node, start))
    }
    fn start(&self, id: ContainerId) -> Answer<'_, ()> {
        Box::pin(self.start(id))
    }
    fn stop(&self, id: ContainerId) -> Answer<'_, ()> {
        Box::pin(self.stop(id))
    }
    fn remove(&self, id: ContainerId, force: bool) -> Answer<'_, ()> {
        Box::pin(self.remove(id, force))
    }
    fn migrate(
        &self,
        id: ContainerId,
        to: NodeId,
        plan: Plan,
        predicted: Option<Prediction>,
    ) -> Answer<'_, MigrationId> {
        Box::pin(self.migrate(id, to, plan, predicted))
    }
    fn cancel(&self, id: &MigrationId) -> Answer<'_, ()> {
        let id = id.clone();
        Box::pin(async move { self.cancel(&id).await })
    }
    fn fence(&self, node: &NodeId) -> Answer<'_, Fenced> {
        let node = node.clone();
        Box::pin(async move { self.fence(&node).await })
    }
    fn ask_node(&self, node: &NodeId, request: NodeRequest) -> Answer<'_, NodeAnswer> {
        let node = node.clone();
        Box::pin(async move { self.ask_node(&node, request).await })
    }
    fn written(&self) -> BoxFuture<'_, ()> {
        // The core answers between two changes, never within one.
        Box::pin(async {
            let _run = self.run().await;
        })
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.events()
    }
}
