//! The node's bridge: made where it is missing, its hardware address pinned.
//!
//! A bridge without an address of its own takes the lowest of its ports': every container
//! that comes or goes may then change it, and stall the host's own connections for up to a
//! minute. An address that was once set stays.

use std::fs;

use rtnetlink::LinkBridge;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use super::NetworkError;
use super::hold::Bridge;
use super::link::Links;

/// Makes sure that the bridge is there, up, and keeps its address.
pub(super) async fn ensure(links: &Links, name: &str) -> Result<(), NetworkError> {
    if links.get(name).await?.is_none() {
        links.add(LinkBridge::new(name).build(), name).await?;
    }
    if let Some(address) = address(&find(links, name).await?) {
        // To what it is: that alone makes it the bridge's own.
        links.change(name, "pinning the hardware address of", |link| link.address(address)).await?;
    }
    links.bring_up(name).await
}

/// The bridge as it is now.
pub(super) async fn seen(links: &Links, name: &str) -> Result<Bridge, NetworkError> {
    let link = find(links, name).await?;
    let mac = address(&link).and_then(|address| address.try_into().ok());
    Ok(Bridge {
        index: link.header.index,
        mac: mac.ok_or_else(|| NetworkError::NoLink(name.to_owned()))?,
    })
}

/// True when this node has bridged frames pass iptables, and with them its connection
/// tracking (`net.bridge.bridge-nf-call-iptables`, which Docker sets for its own bridges).
///
/// A container that left and comes back may then be taken for what it was: rules that drop
/// `ct state invalid` stall its connections. Such a node should set it to 0, or exempt the
/// bridge from tracking.
pub fn filters_bridged_frames() -> bool {
    // The file is not there unless br_netfilter is loaded.
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|value| value.trim() == "1")
}

async fn find(links: &Links, name: &str) -> Result<LinkMessage, NetworkError> {
    links.get(name).await?.ok_or_else(|| NetworkError::NoLink(name.to_owned()))
}

fn address(link: &LinkMessage) -> Option<Vec<u8>> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Some(bytes.clone()),
        _ => None,
    })
}
