//! mDNS: how a node finds a broker, and how a controller sees a node that has not joined.
//!
//! A hint, never trusted: whoever answers still has to be the broker.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use godwit_bus::BrokerUrl;
use godwit_proto::id::NodeId;
use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};

/// The fabric's broker, with the fabric's id in its TXT record.
const FABRIC: &str = "_godwit._tcp.local.";
/// Nodes.
const NODE: &str = "_godwit-node._tcp.local.";
/// After so long without an answer it is said what is being waited for.
const REMIND: Duration = Duration::from_secs(10);

/// Why mDNS cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("mDNS cannot be used on this node ({0}): give the broker with --broker mqtt://HOST")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// A node's voice and ears on the local links.
pub struct Discovery {
    daemon: ServiceDaemon,
}

impl Discovery {
    /// Opens the multicast sockets.
    ///
    /// # Errors
    /// When the host allows none.
    pub fn open() -> Result<Self, DiscoveryError> {
        let daemon = ServiceDaemon::new()?;
        // Containers' veths come and go with them; nobody answers there.
        daemon.disable_interface(mdns_sd::IfKind::LoopbackV4)?;
        daemon.disable_interface(mdns_sd::IfKind::LoopbackV6)?;
        Ok(Self { daemon })
    }

    /// Waits until a fabric's broker answers. Cancel safe.
    ///
    /// # Errors
    /// When the query cannot be sent.
    pub async fn find_broker(&self) -> Result<BrokerUrl, DiscoveryError> {
        let answers = self.daemon.browse(FABRIC)?;
        loop {
            let answer = tokio::time::timeout(REMIND, answers.recv_async()).await;
            match answer {
                Err(_) => tracing::info!(
                    "looking for a fabric by mDNS ({FABRIC}); is a controller running on this \
                     network? else give --broker mqtt://HOST"
                ),
                Ok(Ok(ServiceEvent::ServiceResolved(found))) => {
                    let addresses = found.get_addresses_v4();
                    let Some(address) = addresses.iter().next() else { continue };
                    let at = std::net::SocketAddr::new(IpAddr::V4(*address), found.get_port());
                    let _ = self.daemon.stop_browse(FABRIC);
                    return Ok(at.into());
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(mdns_sd::Error::Msg("its daemon ended".into()).into()),
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
    pub fn close(self) {
        let _ = self.daemon.shutdown();
    }
}
