//! What streams ask of the fabric: two ways to send to a peer.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use godwit_proto::topic::{Peer, Topic};
use tracing::debug;

use crate::{Publication, Session};

/// A future behind a pointer, for traits that are used as objects.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends frames to peers. Both ways may lose, double or delay what they are given: the
/// protocol assumes nothing better.
pub trait StreamLink: Send + Sync + 'static {
    /// Sends a small frame; done when a bounded queue has taken it.
    fn send_ctl<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()>;

    /// Sends a chunk; done when a bounded queue has taken it. While there is no
    /// connection it should wait rather than lose chunk after chunk.
    fn send_bulk<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()>;
}

/// Streams over an MQTT session.
///
/// Chunks go at QoS 0: streams acknowledge by themselves, and a broker that restarts
/// would otherwise be sent everything unacknowledged twice, once by each layer.
#[derive(Debug, Clone)]
pub struct MqttLink {
    session: Session,
    me: Peer,
}

impl MqttLink {
    /// The link of `me` over `session`.
    pub fn new(session: Session, me: Peer) -> Self {
        Self { session, me }
    }
}

impl StreamLink for MqttLink {
    fn send_ctl<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()> {
        Box::pin(async move {
            let topic = Topic::PeerCtl { to: to.clone(), from: self.me.clone() };
            if let Err(error) = self.session.publish(Publication::new(&topic, frame)).await {
                debug!(peer = %to, %error, "a stream's frame was not sent");
            }
        })
    }

    fn send_bulk<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()> {
        Box::pin(async move {
            // An error means that the session is over: then so is every stream.
            if self.session.up().await.is_err() {
                return;
            }
            let topic = Topic::PeerBulk { to: to.clone(), from: self.me.clone() };
            let chunk = Publication::new(&topic, frame).fleeting();
            if let Err(error) = self.session.publish(chunk).await {
                debug!(peer = %to, %error, "a chunk was not sent; the receiver asks again");
            }
        })
    }
}
