//! rumqttd's router: topics, subscriptions, retained messages and acknowledgements,
//! all in memory, on a thread of its own.
//!
//! The router trusts its links. A stray event for a connection that it has forgotten
//! panics its thread, so a link is built and taken down here only, in the order that
//! it survives.

use std::sync::Arc;

use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet, PingReq, Publish};
use rumqttd::{Notification, RouterConfig};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::config::Config;

/// Log targets of rumqttd: it reports every client's mistake as an error.
pub const QUIET: &str = "rumqttd=off";

/// The ring of a filter: this many segments of this size. Small rings stay in the
/// cache and are faster; a window of chunks must fit into half of one.
const SEGMENT_BYTES: usize = 4 << 20;
const SEGMENTS: usize = 4;

/// How many packets a link hands out before it waits to be woken.
const LINK_PACKETS: u64 = 200;

/// The router is gone: its thread panicked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the router died")]
pub(crate) struct RouterDied;

/// Makes a link for a client id, clean or not. A closure, because the type of the
/// router's sender has no public name.
type Connect = dyn Fn(&str, bool) -> Result<(Link, Notification), RouterDied> + Send + Sync;

/// A client's connection to the router.
pub(crate) struct Link {
    pub(crate) tx: LinkTx,
    pub(crate) rx: LinkRx,
}

/// The running router.
pub(crate) struct Router {
    connect: Arc<Connect>,
    control: Mutex<Link>,
}

impl Router {
    /// Starts a router. Its thread lives as long as the process: rumqttd has no stop.
    pub(crate) async fn start(config: &Config) -> Result<Self, RouterDied> {
        let sender = rumqttd::Router::new(
            0,
            RouterConfig {
                // Two links are the broker's own; a client over the limit never gets here.
                max_connections: config.max_connections + 2,
                max_outgoing_packet_count: LINK_PACKETS,
                max_segment_size: SEGMENT_BYTES,
                max_segment_count: SEGMENTS,
                ..RouterConfig::default()
            },
        )
        .spawn();
        let connect: Arc<Connect> = Arc::new(move |client, clean| {
            let built = LinkBuilder::new(client, sender.clone()).clean_session(clean).build();
            let (tx, rx, connected) = built.map_err(|_| RouterDied)?;
            Ok((Link { tx, rx }, connected))
        });
        let (control, _) = link(&connect, "control".into(), true).await?;
        Ok(Self { connect, control: Mutex::new(control) })
    }

    /// Registers a client; answers with its link and the CONNACK to send.
    pub(crate) async fn join(
        &self,
        client: &str,
        clean: bool,
    ) -> Result<(Link, Packet), RouterDied> {
        let (link, connected) = link(&self.connect, router_id(client), clean).await?;
        let connack = Option::<Packet>::from(connected).ok_or(RouterDied)?;
        Ok((link, connack))
    }

    /// Takes a client out. Its reader and writer must have ended.
    pub(crate) async fn leave(&self, mut link: Link) {
        // Events of this link may still be queued. A Disconnect that overtook them
        // would leave them to a router that no longer knows the link.
        if self.barrier().await.is_ok() {
            let reason_code = DisconnectReasonCode::NormalDisconnection;
            // A dead router knows no links.
            let _ = link.tx.send(Packet::Disconnect(Disconnect { reason_code }, None)).await;
        }
    }

    /// Publishes on the broker's own behalf.
    pub(crate) async fn publish(&self, publish: Publish) {
        let mut control = self.control.lock().await;
        // A dead router has no subscribers either.
        let _ = control.tx.send(Packet::Publish(publish, None)).await;
    }

    /// Waits until the router has handled every event sent to it so far.
    async fn barrier(&self) -> Result<(), RouterDied> {
        let mut control = self.control.lock().await;
        control.tx.send(Packet::PingReq(PingReq)).await.map_err(|_| RouterDied)?;
        loop {
            let answer = control.rx.next().await.map_err(|_| RouterDied)?;
            if let Some(Packet::PingResp(_)) = answer.and_then(Into::into) {
                return Ok(());
            }
        }
    }

    /// Returns when the router has died. Cancel-safe.
    pub(crate) async fn died(&self) -> RouterDied {
        let Ok((mut watch, _)) = link(&self.connect, "watch".into(), true).await else {
            return RouterDied;
        };
        // Nothing is ever sent to it: it ends with the router.
        while watch.rx.next().await.is_ok() {}
        RouterDied
    }
}

async fn link(
    connect: &Arc<Connect>,
    client: String,
    clean: bool,
) -> Result<(Link, Notification), RouterDied> {
    let connect = Arc::clone(connect);
    // Building a link waits for the router on the calling thread.
    spawn_blocking(move || connect(&client, clean)).await.unwrap_or(Err(RouterDied))
}

/// A client id that the router takes: it drops `+ $ # /` without an answer.
fn router_id(client: &str) -> String {
    let mut id = String::from("client-");
    for byte in client.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            id.push(char::from(byte));
        } else {
            id.push_str(&format!("_{byte:02x}"));
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_clients_are_different_to_the_router() {
        let ids = ["a/b", "a_2fb", "a+b", "a b", "ab", ""].map(router_id);
        for (i, id) in ids.iter().enumerate() {
            assert!(!id.contains(['+', '$', '#', '/']), "{id}");
            assert!(ids[i + 1..].iter().all(|other| other != id), "{id}");
        }
    }
}
