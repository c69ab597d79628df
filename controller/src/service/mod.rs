//! What the controller does for its clients, whichever way they ask: REST and MQTT
//! share every rule that stands here.
//!
//! The services look up, complete and admit; the decision core decides. Everything
//! is some tenant's, and a tenant sees only its own.

mod addresses;
mod containers;
mod images;
mod migrations;
mod networks;
mod nodes;
mod ports;
mod volumes;

use std::sync::Arc;

use godwit_proto::id::{ContainerId, ContainerName, MigrationId, Tenant};
use tokio::sync::{Mutex, broadcast};

pub use addresses::{Pool, PoolError};
pub use containers::CreateRequest;
pub use images::RemovedImage;
pub use migrations::{MigrateAnswer, MigrateRequest};
pub use networks::{DEFAULT, DIRECT, NetworkRequest, Ranges};
pub use nodes::FenceAnswer;

use crate::core::Core;
use crate::event::Event;
use crate::images::Images;
use crate::latest::Latest;
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::store::{ContainerRow, MigrationFilter, Store, StoreError, StoreHandle};
use crate::view::ContainerView;

/// Everything that a client can ask for; cheap to clone.
#[derive(Clone)]
pub struct Service {
    parts: Arc<Parts>,
}

/// What the services stand on.
pub struct Parts {
    /// The decision core.
    pub core: Arc<dyn Core>,
    /// The database.
    pub store: StoreHandle,
    /// The nodes.
    pub registry: Registry,
    /// The images.
    pub images: Images,
    /// The last word on live moves.
    pub latest: Latest,
    /// Addresses for containers in the nodes' own network.
    pub pool: Pool,
    /// Where tenants' networks lie.
    pub ranges: Ranges,
    /// The network of containers that ask for none.
    pub network: String,
    /// Held from the choice of a name and an address until the core has recorded them.
    pub creating: Mutex<()>,
}

impl Service {
    /// The services over their parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Every change from now on, of every tenant.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.parts.core.events()
    }

    /// Every container of a tenant, by name.
    ///
    /// # Errors
    /// `internal`.
    pub async fn containers(&self, tenant: &Tenant) -> Result<Vec<ContainerView>, Refusal> {
        self.parts.core.written().await;
        let (rows, live) = self
            .store("listing containers", |store| {
                Ok((store.containers()?, store.unsettled_attempts()?))
            })
            .await?;
        let moving = |id: ContainerId| {
            live.iter().find(|attempt| attempt.container == id).map(|attempt| attempt.id.clone())
        };
        Ok(rows
            .iter()
            .filter(|row| row.spec.tenant == *tenant)
            .map(|row| ContainerView::new(row, moving(row.spec.id)))
            .collect())
    }

    /// One container, by its name or its id.
    ///
    /// # Errors
    /// `unknown-container`.
    pub async fn container(
        &self,
        tenant: &Tenant,
        reference: &str,
    ) -> Result<ContainerView, Refusal> {
        let row = self.find(tenant, reference).await?;
        let migration = self.live_migration(row.spec.id).await?;
        Ok(ContainerView::new(&row, migration))
    }

    /// True when the database answers.
    pub async fn is_store_well(&self) -> bool {
        self.parts.store.call(Store::generation).await.is_ok()
    }

    async fn find(&self, tenant: &Tenant, reference: &str) -> Result<ContainerRow, Refusal> {
        // Whoever was told that a move is over may ask for the next one at once.
        self.parts.core.written().await;
        let (whose, text) = (tenant.clone(), reference.to_owned());
        let found = self
            .store("reading a container", move |store| {
                if let Ok(name) = text.parse::<ContainerName>()
                    && let Some(row) = store.container_named(&whose, &name)?
                {
                    return Ok(Some(row));
                }
                match text.parse::<ContainerId>() {
                    Ok(id) => Ok(store.container(id)?.filter(|row| row.spec.tenant == whose)),
                    Err(_) => Ok(None),
                }
            })
            .await?;
        found.ok_or_else(|| {
            Refusal::new(
                "unknown-container",
                format!("there is no container `{}`", shown(reference)),
                "list them with `godwit ps`",
            )
        })
    }

    async fn live_migration(&self, id: ContainerId) -> Result<Option<MigrationId>, Refusal> {
        let filter =
            MigrationFilter { container: Some(id), unsettled: true, ..MigrationFilter::default() };
        let live =
            self.store("listing migrations", move |store| store.migrations(&filter, 1)).await?;
        Ok(live.into_iter().next().map(|row| row.id))
    }

    /// Work with the database whose failure is nobody's fault but the controller's.
    async fn store<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        match self.parts.store.call(work).await {
            Err(StoreError::Closed) => Err(Refusal::shutting_down()),
            Err(error) => Err(Refusal::internal(what, &error)),
            Ok(value) => Ok(value),
        }
    }
}

fn unknown_node(name: &str) -> Refusal {
    Refusal::new(
        "unknown-node",
        format!("there is no node `{}`", shown(name)),
        "list them with `godwit node ls`; a node appears once its agent has found the broker",
    )
}

/// A client's text, short enough to be shown again.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use crate::bench::Stand;
    use crate::store::ContainerState;

    #[tokio::test]
    async fn what_was_told_of_is_found() {
        let stand = Stand::new().await;
        let counter = stand.running("counter").await;
        stand.core.reach(counter.id, ContainerState::Migrating).await;
        stand.core.is_about_to_reach(counter.id, ContainerState::Running);
        let one = stand.service.container(&Stand::tenant(), "counter").await.unwrap();
        assert_eq!(one.state, ContainerState::Running);
        stand.core.is_about_to_reach(counter.id, ContainerState::Exited);
        let all = stand.service.containers(&Stand::tenant()).await.unwrap();
        assert_eq!(all[0].state, ContainerState::Exited);
    }
}
