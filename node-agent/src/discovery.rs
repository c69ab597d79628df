//! mDNS: how a node finds a broker, and how a controller sees a node that has not joined.
//!
//! A hint, never trusted: whoever answers still has to be the broker.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use godwit_bus::{BrokerUrl, Link, Session};
use godwit_proto::id::NodeId;
use godwit_proto::overlay::is_bridge;
use mdns_sd::{IfPredicate, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The fabric's broker, with the fabric's id in its TXT record.
const FABRIC: &str = "_godwit._tcp.local.";
/// Nodes.
const NODE: &str = "_godwit-node._tcp.local.";
/// How long an answer is waited for before it is asked again.
const ROUND: Duration = Duration::from_secs(3);
/// After so many rounds it is said what is being waited for.
const REMIND: u32 = 4;

/// How long a lost broker may take to come back to where it was.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an address may take to answer before the next one is tried.
const REACH: Duration = Duration::from_secs(2);

/// Why mDNS cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("mDNS cannot be used on this node ({0}): give the broker with --broker mqtt://HOST")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// A node's voice and ears on the local links.
pub struct Discovery {
    daemon: ServiceDaemon,
}

/// The first address that takes a connection: a machine announces those of all its networks,
/// and a node need not be in each.
async fn first_reachable(addresses: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    for address in addresses {
        let connected = tokio::time::timeout(REACH, TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) {
            return Some(address);
        }
    }
    None
}

/// A question that is put again and again, until this is dropped.
struct Browsing<'a>(&'a ServiceDaemon);

impl Drop for Browsing<'_> {
    fn drop(&mut self) {
        let _ended_already = self.0.stop_browse(FABRIC);
    }
}

/// Waits until the link has been without a broker for `patience` on end; false when the
/// session is over. Cancel safe.
async fn is_lost(link: &mut watch::Receiver<Link>, patience: Duration) -> bool {
    loop {
        match link.wait_for(|link| *link != Link::Up).await.as_deref() {
            Ok(Link::Connecting | Link::Down { .. }) => {}
            _ => return false,
        }
        let back = link.wait_for(|link| matches!(link, Link::Up | Link::Closed));
        if tokio::time::timeout(patience, back).await.is_err() {
            return true;
        }
    }
}

impl Discovery {
    /// Opens the multicast sockets.
    ///
    /// # Errors
    /// When the host allows none.
    pub fn open() -> Result<Self, DiscoveryError> {
        let daemon = ServiceDaemon::new()?;
        // Nobody else hears what is said there.
        daemon.disable_interface(mdns_sd::IfKind::LoopbackV4)?;
        daemon.disable_interface(mdns_sd::IfKind::LoopbackV6)?;
        // Tenants are there, who are nobody's brokers.
        let tenants = IfPredicate::new(|link| is_bridge(&link.name));
        daemon.disable_interface(mdns_sd::IfKind::Predicate(tenants))?;
        Ok(Self { daemon })
    }

    /// Waits until a broker answers: of the fabric with that authority, or, without one, of any that
    /// lets everybody in. Cancel safe.
    ///
    /// # Errors
    /// When the query cannot be sent.
    pub async fn find_broker(&self, own: Option<&str>) -> Result<BrokerUrl, DiscoveryError> {
        let mut strangers = BTreeSet::new();
        for round in 1u32.. {
            // An answer may lack its addresses, or lose them on the way, and is not repeated:
            // asked anew, it comes whole.
            let answers = self.daemon.browse(FABRIC)?;
            let _browsing = Browsing(&self.daemon);
            let end = Instant::now() + ROUND;
            while let Ok(answer) = timeout_at(end, answers.recv_async()).await {
                let answer = answer.map_err(|_| mdns_sd::Error::Msg("its daemon ended".into()))?;
                if let ServiceEvent::ServiceResolved(found) = answer {
                    let authority = found.get_property_val_str("ca");
                    if authority != own {
                        let fabric = found.get_property_val_str("fabric").unwrap_or("?");
                        strangers.insert(fabric.to_owned());
                        continue;
                    }
                    let port = found.get_port();
                    let addresses: BTreeSet<_> = found.get_addresses_v4().into_iter().collect();
                    let at = addresses.iter().map(|ip| SocketAddr::new(IpAddr::V4(*ip), port));
                    if let Some(at) = first_reachable(at).await {
                        let broker = BrokerUrl::from(at);
                        return Ok(if own.is_some() { broker.over_tls() } else { broker });
                    }
                    tracing::debug!(?addresses, port, "no address of a fabric's broker answers");
                }
            }
            if round.is_multiple_of(REMIND) {
                if !strangers.is_empty() {
                    tracing::info!(
                        fabrics = ?strangers,
                        "there are fabrics here that this node has not joined: make a token there \
                         with `godwit node token`, and run `godwit-agent join TOKEN`"
                    );
                }
                tracing::info!(
                    "looking for a fabric by mDNS ({FABRIC}); is a controller running on this \
                     network? else give --broker mqtt://HOST"
                );
            }
        }
        unreachable!("the rounds do not end")
    }

    /// Looks for the broker anew whenever `session` has been without it for a while: it may
    /// have moved to another address. Ends with the session.
    pub async fn follow(self: Arc<Self>, session: Session, own: Option<String>) {
        let mut link = session.link();
        while is_lost(&mut link, PATIENCE).await {
            tracing::info!("looking for the broker by mDNS again: it may have moved");
            tokio::select! {
                found = self.find_broker(own.as_deref()) => match found {
                    Ok(broker) => session.set_broker(broker),
                    Err(error) => tracing::warn!(%error, "the broker is not looked for"),
                },
                _ = link.wait_for(|link| matches!(link, Link::Up | Link::Closed)) => {}
            }
        }
    }

    /// Announces this node on every link.
    ///
    /// # Errors
    /// When the announcement cannot be sent.
    pub fn announce(&self, node: &NodeId, arch: &str, version: &str) -> Result<(), DiscoveryError> {
        let text = HashMap::from([
            ("node".to_owned(), node.to_string()),
            ("arch".to_owned(), arch.to_owned()),
            ("version".to_owned(), version.to_owned()),
        ]);
        // No port is served: port 9 (discard) says so.
        let host = format!("{node}.local.");
        let info = ServiceInfo::new(NODE, node.as_str(), &host, "", 9, text)?.enable_addr_auto();
        Ok(self.daemon.register(info)?)
    }

    /// Says goodbye and closes.
    pub fn close(&self) {
        let _ = self.daemon.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_nobody_serves_is_passed_over() {
        let broker = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = broker.local_addr().unwrap();
        let closed = SocketAddr::new([127, 0, 0, 2].into(), here.port());
        assert_eq!(first_reachable([closed, here].into_iter()).await, Some(here));
        assert_eq!(first_reachable([closed].into_iter()).await, None);
    }

    #[tokio::test]
    async fn a_broker_is_looked_for_only_when_it_does_not_come_back() {
        let down = || Link::Down { why: "gone".into() };
        let (tell, mut link) = watch::channel(Link::Up);
        {
            let mut lost = std::pin::pin!(is_lost(&mut link, Duration::from_secs(3600)));
            for state in [Link::Up, down(), Link::Up, down()] {
                tell.send_replace(state);
                assert!(futures_util::poll!(&mut lost).is_pending(), "it may come back yet");
            }
            tell.send_replace(Link::Closed);
            assert!(!lost.await, "the session is over");
        }
        tell.send_replace(down());
        assert!(is_lost(&mut link, Duration::ZERO).await);
    }
}
