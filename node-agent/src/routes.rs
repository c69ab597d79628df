//! What the agent hears, to whom it is for.

use std::sync::Arc;
use std::time::Duration;

use godwit_bus::stream::Streams;
use godwit_bus::{Delivery, Inbox};
use godwit_proto::frame::ToNode;
use godwit_proto::migration::Input;
use godwit_proto::overlay::Overlays;
use godwit_proto::topic::Topic;
use godwit_proto::wire;
use tokio::sync::{mpsc, watch};

use crate::driver::Driver;
use crate::engine::Engine;
use crate::hands::Tools;
use crate::serve::{self, Requests};
use crate::volumes::Volumes;

/// How often it is looked whether networks are as they should be.
const LOOK: Duration = Duration::from_secs(5);

/// Every message that arrives, to whom it is for.
pub(crate) struct Routes<E> {
    pub(crate) driver: Driver,
    pub(crate) streams: Streams,
    pub(crate) engine: Arc<E>,
    pub(crate) volumes: Volumes,
    pub(crate) requests: Requests,
    pub(crate) renewals: Option<mpsc::Sender<Vec<u8>>>,
    pub(crate) overlays: watch::Sender<Option<Overlays>>,
}

impl<E: Engine> Routes<E> {
    pub(crate) async fn run(mut self, mut inbox: Inbox) {
        while let Some(Delivery { topic, raw_topic, payload, .. }) = inbox.recv().await {
            match topic {
                Some(Topic::AgentCtl { .. }) => match wire::decode::<ToNode>(&payload) {
                    Ok(frame) => self.obey(frame).await,
                    Err(error) => tracing::warn!(%error, "not a frame of the controller's"),
                },
                Some(Topic::RenewAnswer { .. }) => {
                    if let Some(renewals) = &self.renewals {
                        // One is waited for at a time.
                        let _ = renewals.try_send(payload.to_vec());
                    }
                }
                Some(Topic::ControllerHello) => self.driver.feed(Input::Hello).await,
                Some(Topic::PeerCtl { from, .. }) => self.streams.on_ctl(&from, &payload),
                Some(Topic::PeerBulk { from, .. }) => self.streams.on_bulk(&from, payload),
                _ => tracing::warn!(topic = raw_topic, "nothing that an agent listens to"),
            }
        }
    }

    async fn obey(&mut self, frame: ToNode) {
        match frame {
            ToNode::Claim { run, life } => self.driver.feed(Input::Claim { run, life }).await,
            ToNode::Order { run, container, epoch, order } => {
                self.driver.feed(Input::Order { run, container, epoch, order }).await;
            }
            ToNode::Request { number, request, .. } => {
                let (engine, volumes) = (self.engine.clone(), self.volumes.clone());
                let answering = async move { serve::answer(&*engine, volumes, request).await };
                self.requests.take(number, answering);
            }
            ToNode::Overlays(overlays) => {
                self.overlays.send_replace(Some(overlays));
            }
        }
    }
}

/// Makes the tenants' networks what the controller said last, and keeps them so.
pub(crate) async fn follow<E: Engine>(
    mut told: watch::Receiver<Option<Overlays>>,
    tools: Arc<Tools<E>>,
) {
    let mut again = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            _ = again.tick() => {}
        }
        let overlays = told.borrow_and_update().clone();
        let followed = match overlays {
            Some(overlays) => tools.network.follow(&overlays).await,
            // Nothing yet: what an agent before this one was told holds.
            None => Ok(()),
        };
        if let Err(error) = followed.and(tools.network.look().await) {
            tracing::error!(%error, "the containers' networks are not all as they should be");
        }
    }
}
