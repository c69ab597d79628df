//! The tenants' networks on this node: for each a bridge, and a VXLAN link to the other nodes.
//!
//! ```text
//!  container ── gw… ──┤ gn670001 ├── gx670001 ══ UDP 4789 ══▶ the nodes that take part
//!                     station, resolver, exit: the node's own addresses in the network
//! ```
//!
//! What is broadcast goes to the nodes that take part and to nobody else, and a frame for a
//! container to the node where it is: the controller says which those are. A container that
//! arrives announces itself, and every node's VXLAN link believes that at once, for a move must
//! not wait for the controller's word; what each container may announce its [port's rules]
//! (super::rules) decide, and from whom VXLAN is taken, the node's.

mod forwarding;

use std::fs;
use std::io;
use std::net::IpAddr;

use godwit_proto::overlay::{self, BRIDGE, Overlay, Vni};
use ipnet::IpNet;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBridge, LinkVxlan};

use super::link::Links;
use super::{NetworkError, announce, bridge, rules};

pub(super) use forwarding::{Borrowed, allow, give_back};

/// VXLAN's port (RFC 7348).
pub(super) const PORT: u16 = 4789;
/// What VXLAN links' names begin with, as bridges' do with [`BRIDGE`].
const TUNNEL: &str = "gx";

/// The network's bridge.
pub(super) fn bridge_name(vni: Vni) -> String {
    format!("{BRIDGE}{:x}", vni.0)
}

pub(super) fn tunnel_name(vni: Vni) -> String {
    format!("{TUNNEL}{:x}", vni.0)
}

/// Makes sure that the network's bridge and VXLAN link are there; who is where follows when the
/// controller has told it.
pub(super) async fn ensure(
    links: &Links,
    underlay: Option<IpAddr>,
    vni: Vni,
    mtu: u16,
) -> Result<(), NetworkError> {
    let underlay = underlay.ok_or(NetworkError::NoUnderlay)?;
    let (bridge, tunnel) = (bridge_name(vni), tunnel_name(vni));
    if links.get(&bridge).await?.is_none() {
        // Its own from the beginning: it would take over a port's.
        let link = LinkBridge::new(&bridge).address(hardware(underlay)).build();
        links.add(link, &bridge).await?;
        prepare(&bridge)
            .map_err(|source| NetworkError::Io { what: format!("settings of {bridge}"), source })?;
    }
    bridge::ensure(links, &bridge).await?;
    let found = links.get(&tunnel).await?;
    if found.as_ref().is_some_and(|link| !is_from(link, underlay)) {
        // The node's address is another since; whoever has the old one now has its bridges' as well.
        links.delete(&tunnel).await?;
        links.change(&bridge, "readdressing", |link| link.address(hardware(underlay))).await?;
    }
    if links.get(&tunnel).await?.is_none() {
        let link = LinkVxlan::new(&tunnel, vni.0).port(PORT).learning(true).ageing(0);
        let link = match underlay {
            IpAddr::V4(address) => link.local(address),
            IpAddr::V6(address) => link.local6(address),
        };
        links.add(link.mtu(mtu.into()).build(), &tunnel).await?;
        silence(&tunnel);
    }
    let index = links.must_index(&bridge).await?;
    links.change(&tunnel, "joining", |link| link.controller(index).mtu(mtu.into()).up()).await
}

/// Gives the node its addresses in a network, and takes the exit's where it is another's.
pub(super) async fn settle(
    links: &Links,
    number: u32,
    network: &Overlay,
) -> Result<(), NetworkError> {
    let bridge = bridge_name(network.vni);
    let mut exits = Vec::new();
    for subnet in &network.subnets {
        // First: what the node asks and sends by itself, it does under this one.
        let station = match subnet {
            IpNet::V4(_) => IpAddr::from(overlay::station(number)),
            IpNet::V6(subnet) => overlay::station6(*subnet, number).into(),
        };
        if subnet.addr().is_ipv6() {
            allow_ipv6(&bridge)?;
        }
        links.give(&bridge, station).await?;
        links.give(&bridge, overlay::resolver(*subnet)).await?;
        let exit = overlay::exit(*subnet);
        if network.is_exit {
            links.give(&bridge, exit).await?;
            exits.push(exit);
        } else {
            links.take(&bridge, exit).await?;
        }
        links.reach(&bridge, *subnet, station).await?;
    }
    // It may have been another node's.
    announce::at(links, &bridge, &exits).await
}

/// The node's bridges but those of networks.
pub(super) async fn other_bridges(links: &Links) -> Result<Vec<String>, NetworkError> {
    let is_bridge = |link: &&LinkMessage| {
        let mut infos = link.attributes.iter().filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
        infos.any(|infos| infos.contains(&LinkInfo::Kind(InfoKind::Bridge)))
    };
    let all = links.all().await?;
    let names = all.iter().filter(is_bridge).map(|link| name(link).to_owned());
    Ok(names.filter(|name| !overlay::is_bridge(name)).collect())
}

/// Removes the networks that are not kept and that nothing here is attached to.
pub(super) async fn forget(
    links: &Links,
    is_kept: impl Fn(Vni) -> bool,
) -> Result<(), NetworkError> {
    let all = links.all().await?;
    for link in &all {
        let vni = name(link).strip_prefix(BRIDGE).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let Some(vni) = vni.map(Vni).filter(|vni| !is_kept(*vni)) else { continue };
        let is_used = all.iter().any(|port| {
            controller(port) == Some(link.header.index) && name(port) != tunnel_name(vni)
        });
        if !is_used {
            rules::forget_links(&[tunnel_name(vni)]).await?;
            links.delete(&tunnel_name(vni)).await?;
            links.delete(&bridge_name(vni)).await?;
        }
    }
    Ok(())
}

/// The bridge's hardware address: as one of a kind as the node's own.
fn hardware(underlay: IpAddr) -> Vec<u8> {
    let tail = match underlay {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let octets = address.octets();
            std::array::from_fn(|at| octets[12 + at] ^ octets[at * 3])
        }
    };
    // 02: locally administered; containers have `g` behind it.
    [&[0x02, b'n'][..], &tail].concat()
}

fn is_from(link: &LinkMessage, underlay: IpAddr) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let vxlan = infos.flatten().filter_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(vxlan)) => Some(vxlan),
        _ => None,
    });
    vxlan.flatten().any(|info| match (info, underlay) {
        (InfoVxlan::Local(local), IpAddr::V4(underlay)) => *local == underlay,
        (InfoVxlan::Local6(local), IpAddr::V6(underlay)) => *local == underlay,
        _ => false,
    })
}

fn name(link: &LinkMessage) -> &str {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}

fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

/// Settings of a bridge that differ from what a host wants of its links.
fn prepare(bridge: &str) -> io::Result<()> {
    // It asks under an address that is its own in the network, not under the resolver's, which
    // every node has; and answers come back another way than clients came.
    let settings = [("arp_announce", "2"), ("rp_filter", "0")];
    let of = format!("/proc/sys/net/ipv4/conf/{bridge}");
    settings.iter().try_for_each(|(key, value)| fs::write(format!("{of}/{key}"), value))
}

/// The link itself has nothing to say in the network.
fn silence(tunnel: &str) {
    // Where there is no IPv6, there is nothing to turn off.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{tunnel}/disable_ipv6"), "1");
}

fn allow_ipv6(bridge: &str) -> Result<(), NetworkError> {
    let of = format!("/proc/sys/net/ipv6/conf/{bridge}");
    // Every node has the resolver's address, and detection of duplicates would find them.
    let settings = [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")];
    let written =
        settings.iter().try_for_each(|(key, value)| fs::write(format!("{of}/{key}"), value));
    written.map_err(|source| NetworkError::Io {
        what: format!("allowing IPv6 on {bridge} (does this node's kernel have it?)"),
        source,
    })
}
