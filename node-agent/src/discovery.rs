//! mDNS: how a node finds a broker, and how a controller sees a node that has not joined.
//!
//! A hint, never trusted: whoever answers still has to be the broker.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use godwit_bus::BrokerUrl;
use godwit_proto::id::NodeId;
use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The fabric's broker, with the fabric's id in its TXT record.
const FABRIC: &str = "_godwit._tcp.local.";
/// Nodes.
const NODE: &str = "_godwit-node._tcp.local.";
/// How long an answer is waited for before it is asked again.
const ROUND: Duration = Duration::from_secs(3);
/// After so many rounds it is said what is being waited for.
const REMIND: u32 = 4;

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
        Ok(Self { daemon })
    }

    /// Waits until a fabric's broker answers. Cancel safe.
    ///
    /// # Errors
    /// When the query cannot be sent.
    pub async fn find_broker(&self) -> Result<BrokerUrl, DiscoveryError> {
        for round in 1u32.. {
            let answers = self.daemon.browse(FABRIC)?;
            let end = Instant::now() + ROUND;
            while let Ok(answer) = timeout_at(end, answers.recv_async()).await {
                let answer = answer.map_err(|_| mdns_sd::Error::Msg("its daemon ended".into()))?;
                if let ServiceEvent::ServiceResolved(found) = answer {
                    let port = found.get_port();
                    let addresses: BTreeSet<_> = found.get_addresses_v4().into_iter().collect();
                    let at = addresses.iter().map(|ip| SocketAddr::new(IpAddr::V4(*ip), port));
                    if let Some(at) = first_reachable(at).await {
                        let _ = self.daemon.stop_browse(FABRIC);
                        return Ok(at.into());
                    }
                    tracing::debug!(?addresses, port, "no address of a fabric's broker answers");
                }
            }
            // An answer may lack its addresses, or lose them on the way, and is not repeated:
            // asked anew, it comes whole.
            let _ = self.daemon.stop_browse(FABRIC);
            if round.is_multiple_of(REMIND) {
                tracing::info!(
                    "looking for a fabric by mDNS ({FABRIC}); is a controller running on this \
                     network? else give --broker mqtt://HOST"
                );
            }
        }
        unreachable!("the rounds do not end")
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
    pub fn close(self) {
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
}
