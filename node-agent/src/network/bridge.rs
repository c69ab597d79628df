//! The node's bridge: made where it is missing, its hardware address pinned.
//!
//! A bridge without an address of its own takes the lowest of its ports': every container
//! that comes or goes may then change it, and stall the host's own connections for up to a
//! minute. An address that was once set stays.

use rtnetlink::LinkBridge;
use rtnetlink::packet_route::link::LinkAttribute;

use super::NetworkError;
use super::link::Links;

/// Makes sure that the bridge is there, up, and keeps its address.
pub(super) async fn ensure(links: &Links, name: &str) -> Result<(), NetworkError> {
    if links.get(name).await?.is_none() {
        links.add(LinkBridge::new(name).build(), name).await?;
    }
    let bridge = links.get(name).await?.ok_or_else(|| NetworkError::NoLink(name.to_owned()))?;
    let address = bridge.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Some(bytes.clone()),
        _ => None,
    });
    if let Some(address) = address {
        // To what it is: that alone makes it the bridge's own.
        links.change(name, "pinning the hardware address of", |link| link.address(address)).await?;
    }
    links.bring_up(name).await
}
