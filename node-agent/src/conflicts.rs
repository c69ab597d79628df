//! Whoever uses the address of a container that is here is named, until he is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use godwit_proto::container::Interface;
use godwit_proto::frame::FromNode;
use godwit_proto::id::ContainerId;
use godwit_proto::migration::Record;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::engine::Engine;
use crate::hands::{Tools, told};
use crate::network::{Holder, Neighbours, NetworkError};

/// How often he is asked whether he is still there.
const AGAIN: Duration = Duration::from_secs(10);
/// How long after a failure it is listened again.
const RETRY: Duration = Duration::from_secs(5);

/// The interfaces in the nodes' network of the containers that this node has.
#[derive(Debug, Default)]
pub(crate) struct Watched(BTreeMap<ContainerId, Vec<Interface>>);

impl Watched {
    pub(crate) fn note(&mut self, record: &Record) {
        let flat = record.spec.interfaces.iter().filter(|it| it.overlay.is_none());
        self.0.insert(record.spec.id, flat.cloned().collect());
    }

    pub(crate) fn forget(&mut self, container: ContainerId) {
        self.0.remove(&container);
    }

    /// Whose address somebody else has.
    fn harmed_by(&self, holder: &Holder) -> Option<ContainerId> {
        let has = |interface: &Interface, ip: IpAddr| {
            interface.addresses.iter().any(|net| net.addr() == ip)
        };
        let harmed =
            |interface: &Interface| has(interface, holder.ip) && interface.mac != holder.mac;
        self.0.iter().find(|(_, all)| all.iter().any(harmed)).map(|(id, _)| *id)
    }

    fn interfaces(&self, container: ContainerId) -> Vec<Interface> {
        self.0.get(&container).cloned().unwrap_or_default()
    }
}

/// Listens for as long as the agent runs, and tells the controller.
pub(crate) async fn follow<E: Engine>(tools: Arc<Tools<E>>, messages: mpsc::Sender<FromNode>) {
    loop {
        let ended = match tools.network.neighbours().await {
            Ok(neighbours) => listen(&tools, &neighbours, &messages).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!(error = told(&error), "nobody listens for conflicts of addresses");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn listen<E: Engine>(
    tools: &Tools<E>,
    neighbours: &Neighbours,
    messages: &mpsc::Sender<FromNode>,
) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Io { what: "listening to neighbours".into(), source };
    let mut harmed = BTreeSet::new();
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = neighbours.next() => {
                let holder = heard.map_err(failed)?;
                if let Some(container) = { tools.watched().harmed_by(&holder) }
                    && harmed.insert(container)
                {
                    let words = NetworkError::from(holder).to_string();
                    tracing::error!(%container, "{words}");
                    tell(messages, container, Some(words)).await;
                }
            }
            _ = again.tick() => {
                for container in harmed.clone() {
                    let interfaces = tools.watched().interfaces(container);
                    let asked = tools.network.must_be_free(&interfaces).await;
                    if asked.is_ok() {
                        harmed.remove(&container);
                        tracing::info!(%container, "nobody else has its address any more");
                    }
                    // Again, for the controller may be another one.
                    tell(messages, container, asked.err().map(|error| told(&error))).await;
                }
            }
        }
    }
}

async fn tell(messages: &mpsc::Sender<FromNode>, container: ContainerId, what: Option<String>) {
    let _the_agent_ends = messages.send(FromNode::Noticed { container, what }).await;
}
