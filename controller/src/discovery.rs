//! mDNS: how agents find this fabric, and how nodes that have not joined are seen.
//!
//! A hint, never trusted: whoever finds an address still has to talk to what is there.

use std::collections::HashMap;
use std::net::IpAddr;

use godwit_proto::id::NodeId;
use godwit_proto::overlay::is_bridge;
use godwit_trust::Fingerprint;
use mdns_sd::{IfKind, IfPredicate, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::registry::Registry;

/// Any MQTT broker.
const MQTT: &str = "_mqtt._tcp.local.";
/// Any MQTT broker over TLS.
const SECURE: &str = "_secure-mqtt._tcp.local.";
/// A fabric's broker.
const FABRIC: &str = "_godwit._tcp.local.";
/// Nodes.
const NODE: &str = "_godwit-node._tcp.local.";

/// Why mDNS cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("mDNS cannot be used ({0}): start with --no-mdns, and agents with --broker mqtt://HOST")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// Where the broker is, for those who look for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerPlace {
    /// Its address if it is one machine elsewhere; `None` when it is here, on every link.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// The fingerprint of the authority by which it is to be believed, where it speaks TLS.
    pub authority: Option<Fingerprint>,
}

/// The controller's voice and ears on the local links.
pub struct Discovery {
    daemon: ServiceDaemon,
    nodes: Receiver<ServiceEvent>,
}

impl Discovery {
    /// Announces the fabric `fabric` with its broker, if others can reach that, and begins to look
    /// for nodes.
    ///
    /// # Errors
    /// When the host allows no multicast sockets.
    pub fn open(fabric: Uuid, broker: Option<BrokerPlace>) -> Result<Self, DiscoveryError> {
        let daemon = ServiceDaemon::new()?;
        // A node may be on this machine; tenants are in its networks.
        let tenants = IfKind::Predicate(IfPredicate::new(|link| is_bridge(&link.name)));
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6, tenants])?;
        let mut text = HashMap::from([
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("fabric".to_owned(), fabric.to_string()),
        ]);
        if let Some(authority) = broker.and_then(|broker| broker.authority) {
            text.insert("ca".to_owned(), authority.to_string());
            text.insert("path".to_owned(), "/mqtt".to_owned());
        }
        // Named after the fabric, so that two controllers on one network do not contend.
        let name = format!("godwit-{}", &fabric.simple().to_string()[..8]);
        let host = format!("{name}.local.");
        for (service, broker) in broker.into_iter().flat_map(|broker| {
            let mqtt = if broker.authority.is_some() { SECURE } else { MQTT };
            [(mqtt, broker), (FABRIC, broker)]
        }) {
            let info = match broker.address {
                Some(address) => {
                    ServiceInfo::new(service, &name, &host, address, broker.port, text.clone())?
                }
                None => ServiceInfo::new(service, &name, &host, "", broker.port, text.clone())?
                    .enable_addr_auto(),
            };
            daemon.register(info)?;
        }
        let nodes = daemon.browse(NODE)?;
        Ok(Self { daemon, nodes })
    }

    /// Tells `registry` which nodes are there, until `shutdown`; then says goodbye.
    pub async fn run(self, registry: Registry, shutdown: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => break,
                event = self.nodes.recv_async() => event,
            };
            match event {
                Ok(ServiceEvent::ServiceResolved(found)) => {
                    if let Some(node) = node_in(found.get_fullname()) {
                        registry.seen(node);
                    }
                }
                Ok(ServiceEvent::ServiceRemoved(_, name)) => {
                    if let Some(node) = node_in(&name) {
                        registry.unseen(&node);
                    }
                }
                Ok(_) => {}
                // The daemon ended by itself; what was announced stays for a while.
                Err(_) => return,
            }
        }
        // It sends its goodbyes before it answers.
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_async().await;
        }
    }
}

/// The node that an instance `edge-a._godwit-node._tcp.local.` stands for.
fn node_in(instance: &str) -> Option<NodeId> {
    instance.strip_suffix(NODE)?.strip_suffix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_from_its_instance() {
        let node = node_in("edge-a._godwit-node._tcp.local.").unwrap();
        assert_eq!(node.as_str(), "edge-a");
        for stranger in ["edge-a", "Edge A._godwit-node._tcp.local.", "x._mqtt._tcp.local."] {
            assert_eq!(node_in(stranger), None, "{stranger}");
        }
    }
}
