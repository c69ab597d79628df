//! The address of a container that does not run here yet: claimed while its source is frozen.
//!
//! A node that hears nothing of its fabric for a while gives its claims back: when its link is up
//! again, the container may long be where it was, and nobody else is to have its address.

use std::sync::Arc;
use std::time::Duration;

use godwit_bus::stream::Progress;
use godwit_bus::{Link, Session};
use godwit_proto::id::ContainerId;
use godwit_proto::migration::Record;
use tokio::sync::watch;

use super::{CallError, Tools};
use crate::engine::Engine;
use crate::expedite::Gap;
use crate::network::{Held, NetworkError, Port};

/// A broker that was restarted is back sooner.
const SILENCE: Duration = Duration::from_secs(2);

/// A container's address on a node where it does not run yet.
pub(crate) struct Claim {
    pub(super) port: Port,
    pub(super) held: Held,
    /// Off the bridge again: the node was out of reach.
    is_given_back: bool,
    _gap: Gap,
}

/// Takes the address over: nothing gets in or out, and what comes for it is held.
pub(super) async fn claim<E: Engine>(tools: &Tools<E>, record: &Record) -> Result<(), CallError> {
    let spec = &record.spec;
    let gap = tools.expedite.begin();
    let port = tools.network.ready(spec.id, &spec.interfaces).await?;
    port.guard()?;
    let held = tools.network.hold(spec.id, &spec.interfaces).await?;
    port.attach()?;
    port.announce()?;
    tracing::info!(container = %spec.id, "the address is claimed: frames for it are held here");
    tools.claims().insert(spec.id, Claim { port, held, is_given_back: false, _gap: gap });
    Ok(())
}

/// Claims again what was given back, whenever the source is heard of. Never returns.
pub(super) async fn renew<E>(
    tools: &Tools<E>,
    container: ContainerId,
    mut heard: watch::Receiver<Progress>,
) -> CallError {
    while heard.changed().await.is_ok() {
        if let Some(claim) = tools.claims().get_mut(&container)
            && let Err(error) = claim.renew()
        {
            return error.into();
        }
    }
    std::future::pending().await
}

/// Gives all claims back when the broker has been out of reach for a while.
pub(crate) async fn follow<E>(session: Session, tools: Arc<Tools<E>>) {
    let mut link = session.link();
    let is_up = |link: &Link| matches!(link, Link::Up);
    while link.wait_for(|link| matches!(link, Link::Down { .. })).await.is_ok() {
        if tokio::time::timeout(SILENCE, link.wait_for(is_up)).await.is_err() {
            for (container, claim) in tools.claims().iter_mut() {
                match claim.give_back() {
                    Ok(()) => tracing::warn!(%container, "out of reach: its address is given back"),
                    Err(error) => tracing::error!(%container, %error, "its address stays claimed"),
                }
            }
        }
        if link.wait_for(is_up).await.is_err() {
            return;
        }
    }
}

impl Claim {
    fn give_back(&mut self) -> Result<(), NetworkError> {
        self.port.cut()?;
        self.is_given_back = true;
        Ok(())
    }

    /// Makes the address this node's again, unless it is.
    pub(super) fn renew(&mut self) -> Result<(), NetworkError> {
        if self.is_given_back {
            self.port.attach()?;
            self.port.announce()?;
            self.is_given_back = false;
            tracing::info!("an address is claimed again");
        }
        Ok(())
    }
}
