//! The state topics: every container's state and every move's last status, retained.
//!
//! A broker may forget what it retained, so all of it is said anew on every connection.
//! A container keeps one retained status, its last move's; both go with the container.

use std::collections::BTreeMap;

use godwit_bus::{Link, Publication, PublishError, Session};
use godwit_proto::id::{ContainerId, MigrationId};
use godwit_proto::topic::Topic;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::latest::Latest;
use crate::refusal::Chain;
use crate::registry::Registry;
use crate::store::{ContainerState, MigrationFilter, StoreError, StoreHandle};
use crate::view::{ContainerView, MigrationView};

/// The task that follows every change: it tells MQTT, and keeps what others look into.
pub struct Publisher {
    session: Session,
    store: StoreHandle,
    registry: Registry,
    latest: Latest,
    /// Each container's retained status.
    statuses: BTreeMap<ContainerId, MigrationId>,
}

/// Why something was not told; it is told at the next connection.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("the state cannot be read")]
    Store(#[from] StoreError),
    #[error("the state cannot be published")]
    Publish(#[from] PublishError),
}

impl Publisher {
    /// Publishes through `session` and keeps `registry` and `latest` up to date.
    pub fn new(session: Session, store: StoreHandle, registry: Registry, latest: Latest) -> Self {
        Self { session, store, registry, latest, statuses: BTreeMap::new() }
    }

    /// Follows `events` until `shutdown`.
    pub async fn run(
        mut self,
        mut events: broadcast::Receiver<Event>,
        shutdown: CancellationToken,
    ) {
        let mut link = self.session.link();
        // It may be up before anybody watches.
        link.mark_changed();
        loop {
            let told = tokio::select! {
                () = shutdown.cancelled() => return,
                changed = link.changed() => match changed {
                    Ok(()) if *link.borrow_and_update() == Link::Up => self.all().await,
                    Ok(()) => Ok(()),
                    Err(_) => return,
                },
                event = events.recv() => match event {
                    Ok(event) => self.event(&event).await,
                    Err(RecvError::Lagged(_)) => self.all().await,
                    Err(RecvError::Closed) => return,
                },
            };
            if let Err(error) = told {
                tracing::warn!(error = %Chain(&error), "state topics are behind");
            }
        }
    }

    /// Says everything anew.
    async fn all(&mut self) -> Result<(), Untold> {
        let (containers, live) =
            self.store.call(|store| Ok((store.containers()?, store.unsettled_attempts()?))).await?;
        for row in containers {
            let id = row.spec.id;
            let moving = live.iter().find(|attempt| attempt.container == id);
            let view = ContainerView::new(&row, moving.map(|attempt| attempt.id.clone()));
            self.container(&view).await?;
            let of = MigrationFilter { container: Some(id), ..MigrationFilter::default() };
            let last = self.store.call(move |store| store.migrations(&of, 1)).await?;
            for attempt in &last {
                self.migration(&self.latest.view(attempt)).await?;
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: &Event) -> Result<(), Untold> {
        match event {
            Event::Container(view) => {
                self.registry.note(view);
                self.container(view).await
            }
            Event::Migration(view) => {
                self.latest.note(view);
                self.migration(view).await
            }
            Event::Node(_) => Ok(()),
        }
    }

    async fn container(&mut self, view: &ContainerView) -> Result<(), Untold> {
        let topic =
            Topic::ContainerState { tenant: view.tenant.clone(), container: view.name.clone() };
        if view.state != ContainerState::Removed {
            return self.retain(&topic, serde_json::to_vec(view).unwrap_or_default()).await;
        }
        if let Some(id) = self.statuses.remove(&view.id) {
            let status = Topic::MigrationStatus { tenant: view.tenant.clone(), id };
            self.retain(&status, Vec::new()).await?;
        }
        self.retain(&topic, Vec::new()).await
    }

    async fn migration(&mut self, view: &MigrationView) -> Result<(), Untold> {
        let status = |id: MigrationId| Topic::MigrationStatus { tenant: view.tenant.clone(), id };
        let before = self.statuses.insert(view.container_id, view.id.clone());
        if let Some(before) = before.filter(|before| *before != view.id) {
            self.retain(&status(before), Vec::new()).await?;
        }
        let payload = serde_json::to_vec(view).unwrap_or_default();
        self.retain(&status(view.id.clone()), payload).await
    }

    /// An empty payload clears.
    async fn retain(&self, topic: &Topic, payload: Vec<u8>) -> Result<(), Untold> {
        Ok(self.session.publish(Publication::new(topic, payload).retained()).await?)
    }
}
