//! The decision core: one thread, one connection to the database, every container and
//! every move.
//!
//! ```text
//!  REST, MQTT commands ─ Ask ─┐                      ┌─ ToNode ─▶ nodes
//!  nodes ─────────── FromNode ┼─▶ core ─▶ SQLite ────┤
//!  clock ───────────── tick ──┘   (read back)        └─ Event ──▶ watchers
//! ```
//!
//! The choreography itself is [`godwit_proto::migration::drive::Desk`]; here is what
//! surrounds it: who holds which container (`core`), how rows reach the disk
//! (`world`), how a move looks to people (`moves`), and what a node's end means (`fence`).

mod asked;
mod core;
mod fence;
mod follow;
mod moves;
mod rest;
#[cfg(test)]
mod tests;
mod world;

use std::time::Duration;

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::{FromNode, NodeAnswer, NodeRequest, ToNode};
use godwit_proto::id::{ContainerId, MigrationId, NodeId, Run};
use godwit_proto::migration::{Plan, timing};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::event::Event;
use crate::refusal::Refusal;
use crate::store::{Prediction, Store, StoreError};
use crate::view::Fenced;

/// How long a node may take to answer a request.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How many asks wait while one is dealt with.
const ASKS: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the core is asked.
enum Ask {
    Create {
        spec: Box<ContainerSpec>,
        node: NodeId,
        start: bool,
        reply: Reply<()>,
    },
    Start {
        id: ContainerId,
        reply: Reply<()>,
    },
    Stop {
        id: ContainerId,
        reply: Reply<()>,
    },
    Remove {
        id: ContainerId,
        force: bool,
        reply: Reply<()>,
    },
    Migrate {
        id: ContainerId,
        to: NodeId,
        plan: Plan,
        predicted: Option<Prediction>,
        reply: Reply<MigrationId>,
    },
    Cancel {
        id: MigrationId,
        reply: Reply<()>,
    },
    Fence {
        node: NodeId,
        reply: Reply<Fenced>,
    },
    Node {
        node: NodeId,
        request: NodeRequest,
        reply: Reply<NodeAnswer>,
    },
    Heard {
        node: NodeId,
        frame: Box<FromNode>,
    },
    Run(oneshot::Sender<Run>),
    Tick,
}

/// A handle on the decision core; cheap to clone. The core ends with its last handle.
#[derive(Debug, Clone)]
pub struct Decisions {
    asks: mpsc::Sender<Ask>,
    events: broadcast::Sender<Event>,
}

impl Decisions {
    /// Opens the core over a connection of its own: claims a run above the database's
    /// generation and takes up what it left unsettled. What nodes are to be told comes out
    /// of `frames`, what changes out of `events`. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn open(
        store: Store,
        frames: mpsc::Sender<(NodeId, ToNode)>,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, StoreError> {
        let mut core = core::Core::open(store, frames, events.clone())?;
        let (asks, mut inbox) = mpsc::channel(ASKS);
        std::thread::spawn(move || {
            while let Some(ask) = inbox.blocking_recv() {
                core.hear(ask);
                if core.is_superseded() {
                    // Its queues close with it, which ends the program.
                    return;
                }
            }
        });
        tokio::spawn(tick(asks.downgrade()));
        Ok(Self { asks, events })
    }

    /// Hears a node.
    pub async fn heard(&self, node: NodeId, frame: FromNode) {
        // Closed only on the way out.
        let _ = self.asks.send(Ask::Heard { node, frame: Box::new(frame) }).await;
    }

    /// The run that is claimed: what a controller's hello carries. `None` on the way out.
    pub async fn run(&self) -> Option<Run> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask::Run(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Has a container made on `node`, and started if `start`. Persisted and ordered when
    /// this returns; the end is an [`Event`].
    ///
    /// # Errors
    /// `name-taken`, `internal`, `shutting-down`.
    pub async fn create(
        &self,
        spec: ContainerSpec,
        node: NodeId,
        start: bool,
    ) -> Result<(), Refusal> {
        self.ask(|reply| Ask::Create { spec: Box::new(spec), node, start, reply }).await
    }

    /// Starts a container that does not run; running already is success.
    ///
    /// # Errors
    /// `unknown-container`, `busy`, `internal`, `shutting-down`.
    pub async fn start(&self, id: ContainerId) -> Result<(), Refusal> {
        self.ask(|reply| Ask::Start { id, reply }).await
    }

    /// Stops a container; stopped already is success.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn stop(&self, id: ContainerId) -> Result<(), Refusal> {
        self.ask(|reply| Ask::Stop { id, reply }).await
    }

    /// Removes a container; a running one only with `force`.
    ///
    /// # Errors
    /// As [`Self::start`], and `not-stopped`.
    pub async fn remove(&self, id: ContainerId, force: bool) -> Result<(), Refusal> {
        self.ask(|reply| Ask::Remove { id, force, reply }).await
    }

    /// Opens a move that admission has agreed to.
    ///
    /// # Errors
    /// `unknown-container`, `busy`, `same-node`, `internal`, `shutting-down`.
    pub async fn migrate(
        &self,
        id: ContainerId,
        to: NodeId,
        plan: Plan,
        predicted: Option<Prediction>,
    ) -> Result<MigrationId, Refusal> {
        self.ask(|reply| Ask::Migrate { id, to, plan, predicted, reply }).await
    }

    /// Asks to call a move off; the end is an [`Event`].
    ///
    /// # Errors
    /// `unknown-migration`, `already-settled`, `decided`, `internal`, `shutting-down`.
    pub async fn cancel(&self, id: &MigrationId) -> Result<(), Refusal> {
        self.ask(|reply| Ask::Cancel { id: id.clone(), reply }).await
    }

    /// Takes an operator's word that a node lost its power or that its copies were killed.
    /// Persisted when this returns; the ends of its moves are [`Event`]s.
    ///
    /// # Errors
    /// `internal` (say it again: what was done of it stays done), `shutting-down`.
    pub async fn fence(&self, node: &NodeId) -> Result<Fenced, Refusal> {
        self.ask(|reply| Ask::Fence { node: node.clone(), reply }).await
    }

    /// Asks a node something that changes nothing of the choreography.
    ///
    /// # Errors
    /// `node-silent` when no answer comes in time, `node-refused` with the node's words.
    pub async fn ask_node(
        &self,
        node: &NodeId,
        request: NodeRequest,
    ) -> Result<NodeAnswer, Refusal> {
        let asked = self.ask(|reply| Ask::Node { node: node.clone(), request, reply });
        tokio::time::timeout(ANSWER_WITHIN, asked).await.unwrap_or_else(|_| {
            Err(Refusal::new(
                "node-silent",
                format!("`{node}` did not answer within {} s", ANSWER_WITHIN.as_secs()),
                "see `godwit node ls`: is it online?",
            ))
        })
    }

    /// Everything that changes from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| Refusal::shutting_down())?;
        answer.await.unwrap_or_else(|_| Err(Refusal::shutting_down()))
    }
}

/// Ticks as long as the core has a handle.
async fn tick(asks: mpsc::WeakSender<Ask>) {
    loop {
        tokio::time::sleep(timing::REPEAT).await;
        let Some(asks) = asks.upgrade() else { return };
        if asks.send(Ask::Tick).await.is_err() {
            return;
        }
    }
}
