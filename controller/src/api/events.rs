//! `/events`: the state of everything that matters, then every change.
//!
//! The watcher subscribes before it reads the state, so nothing falls between; a change
//! told twice is told whole both times. Who reads too slowly gets the state anew.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use godwit_proto::id::{ContainerId, Tenant};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;

use super::error::{Answer, Query};
use super::{Api, Caller};
use crate::event::Event;
use crate::refusal::Refusal;

/// How often silence is broken, so that nobody on the way takes it for death.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How many live moves a snapshot shows at most.
const LIVE: u32 = 1000;

#[derive(Deserialize)]
pub(super) struct EventsQuery {
    container: Option<String>,
    migration: Option<String>,
    node: Option<String>,
}

/// What one watcher wants to see.
#[derive(Clone)]
enum Wanted {
    All,
    Container(ContainerId),
    Migration(String),
    Node(String),
}

pub(super) async fn stream(
    State(api): State<Api>,
    Caller(tenant): Caller,
    Query(query): Query<EventsQuery>,
) -> Answer<impl IntoResponse> {
    let mut events = api.service.events();
    let wanted = wanted(&api, &tenant, query).await?;
    // The first one now: what is not there is refused with a status.
    let first = snapshot(&api, &tenant, &wanted).await?;
    let shutdown = api.shutdown.clone();
    let told = async_stream::stream! {
        let mut snapshot_due = Some(first);
        loop {
            for event in snapshot_due.take().into_iter().flatten() {
                yield told(&event);
            }
            yield Ok(Sent::default().event("ready").data("{}"));
            let lagged = loop {
                let event = tokio::select! {
                    () = shutdown.cancelled() => return,
                    event = events.recv() => event,
                };
                match event {
                    Ok(event) if wanted.fits(&tenant, &event) => yield told(&event),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break true,
                    Err(RecvError::Closed) => break false,
                }
            };
            // What it watched is gone meanwhile, or so is the core: that ends the stream.
            match snapshot(&api, &tenant, &wanted).await {
                Ok(state) if lagged => snapshot_due = Some(state),
                _ => return,
            }
        }
    };
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn wanted(api: &Api, tenant: &Tenant, query: EventsQuery) -> Result<Wanted, Refusal> {
    Ok(match query {
        EventsQuery { migration: Some(id), .. } => Wanted::Migration(id),
        EventsQuery { container: Some(reference), .. } => {
            Wanted::Container(api.service.container(tenant, &reference).await?.id)
        }
        EventsQuery { node: Some(node), .. } => Wanted::Node(node),
        _ => Wanted::All,
    })
}

/// The state of everything that is wanted.
async fn snapshot(api: &Api, tenant: &Tenant, wanted: &Wanted) -> Result<Vec<Event>, Refusal> {
    let service = &api.service;
    let mut state = Vec::new();
    match wanted {
        Wanted::All => {
            let live = service.migrations(tenant, None, true, LIVE).await?;
            state.extend(service.nodes().into_iter().map(Event::Node));
            state.extend(service.containers(tenant).await?.into_iter().map(Event::Container));
            state.extend(live.into_iter().map(Event::Migration));
        }
        Wanted::Container(id) => {
            let id = id.to_string();
            let latest = service.migrations(tenant, Some(&id), false, 1).await?;
            state.extend(latest.into_iter().map(Event::Migration));
            state.push(Event::Container(service.container(tenant, &id).await?));
        }
        Wanted::Migration(id) => {
            state.push(Event::Migration(service.migration(tenant, id).await?));
        }
        Wanted::Node(node) => state.push(Event::Node(service.node(node)?)),
    }
    Ok(state)
}

impl Wanted {
    fn fits(&self, tenant: &Tenant, event: &Event) -> bool {
        let is_theirs = match event {
            Event::Container(view) => view.tenant == *tenant,
            Event::Migration(view) => view.tenant == *tenant,
            Event::Node(_) => true,
        };
        is_theirs
            && match (self, event) {
                (Self::All, _) => true,
                (Self::Container(id), Event::Container(view)) => view.id == *id,
                (Self::Container(id), Event::Migration(view)) => view.container_id == *id,
                (Self::Migration(id), Event::Migration(view)) => view.id.as_str() == id,
                (Self::Node(node), Event::Node(view)) => view.name.as_str() == node,
                _ => false,
            }
    }
}

fn told(event: &Event) -> Result<Sent, Infallible> {
    fn sent(kind: &str, view: &impl Serialize) -> Sent {
        Sent::default().event(kind).json_data(view).unwrap_or_else(|error| {
            tracing::error!(%error, "a {kind} cannot be shown");
            Sent::default().comment("unreadable")
        })
    }
    Ok(match event {
        Event::Container(view) => sent("container", view),
        Event::Migration(view) => sent("migration", view),
        Event::Node(view) => sent("node", view),
    })
}
