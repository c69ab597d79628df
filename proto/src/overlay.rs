//! The tenants' networks, over whatever network the nodes have: what each node is to know of them.
//!
//! ```text
//!  container ── bridge ── VXLAN of the network's number ──▶ the node where the other one is
//! ```
//!
//! The controller tells each node of the networks that it takes part in, whole and again whenever
//! something changes; what it says last holds. A node takes part that has a container of the
//! network, is about to have one, or is an entry to one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::id::{ContainerName, NodeId, Tenant};

/// A network's number on the wire: VXLAN's network identifier, 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vni(pub u32);

impl Vni {
    /// The first one that is given; no other VXLAN of the site is likely to have it.
    pub const FIRST: Self = Self(0x67_0001);
    /// The last one that there can be.
    pub const LAST: Self = Self(0xff_ffff);
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What VXLAN puts around a frame, in bytes: outer headers and its own, over IPv4 or IPv6.
pub fn overhead(underlay: IpAddr) -> u16 {
    if underlay.is_ipv4() { 50 } else { 70 }
}

/// The addresses of nodes in every network, one for each: what comes in through a node goes on
/// under it, so that answers come back there (RFC 6598: nobody's on the internet).
pub const STATIONS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// The address of the node of that number in every network.
pub fn station(number: u32) -> Ipv4Addr {
    let hosts = (1 << (32 - STATIONS.prefix_len())) - 1;
    Ipv4Addr::from_bits(STATIONS.network().to_bits() | (number & hosts))
}

/// The address of the node of that number in a network of IPv6: the upper half of it is the nodes'.
pub fn station6(network: Ipv6Net, number: u32) -> Ipv6Addr {
    let half = 1 << (127 - network.prefix_len());
    Ipv6Addr::from_bits(network.network().to_bits() | half | u128::from(number))
}

/// What the name of a network's bridge on a node begins with; its number follows.
pub const BRIDGE: &str = "gn";

/// True for a tenants' network's bridge by its name: what is there is no business of the node's own.
pub fn is_bridge(link: &str) -> bool {
    link.strip_prefix(BRIDGE).is_some_and(|vni| u32::from_str_radix(vni, 16).is_ok())
}

/// Where a network's containers ask for names, of either family: its first address, on every node.
pub fn resolver(network: IpNet) -> IpAddr {
    host(network, 1)
}

/// Where a network's containers send what is for nobody in it: its second address, on one node.
pub fn exit(network: IpNet) -> IpAddr {
    host(network, 2)
}

fn host(network: IpNet, number: u8) -> IpAddr {
    match network {
        IpNet::V4(network) => {
            Ipv4Addr::from_bits(network.network().to_bits() | u32::from(number)).into()
        }
        IpNet::V6(network) => {
            Ipv6Addr::from_bits(network.network().to_bits() | u128::from(number)).into()
        }
    }
}

/// How an interface takes part in a tenant's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub vni: Vni,
    /// The largest packet, in bytes: what fits every node's link with VXLAN's headers around it.
    pub mtu: u16,
}

/// A container's names are asked for there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// The same wherever the container is: every node answers for itself.
    pub servers: Vec<IpAddr>,
    /// What is put behind a name that has no dot.
    pub search: String,
}

/// All that a node is to know of the tenants' networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlays {
    /// The node's number: its address in every network follows from it ([`station`]).
    pub number: u32,
    /// The underlay's addresses of all nodes: from nobody else VXLAN is taken.
    pub nodes: Vec<IpAddr>,
    /// The networks that the node takes part in, by number.
    pub networks: Vec<Overlay>,
    /// The ports that the node is an entry of.
    pub ports: Vec<Entry>,
}

/// One network, as a node that takes part in it is to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Its number.
    pub vni: Vni,
    /// Whose it is.
    pub tenant: Tenant,
    /// The largest packet, in bytes.
    pub mtu: u16,
    /// Its addresses, with their networks: IPv4, and IPv6 where it has that.
    pub subnets: Vec<IpNet>,
    /// The node is the way out: what the network's containers send elsewhere leaves through it.
    pub is_exit: bool,
    /// The other nodes that take part, by the underlay's addresses.
    pub peers: Vec<IpAddr>,
    /// Its containers' interfaces, wherever they are.
    pub members: Vec<Member>,
}

/// An interface in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The container's name.
    pub name: ContainerName,
    /// The hardware address.
    pub mac: [u8; 6],
    /// Its addresses in the network.
    pub addresses: Vec<IpAddr>,
    /// The underlay's address of the node where it is; `None` where it is the node's own.
    pub at: Option<IpAddr>,
    /// It is on the move: where it is, the nodes hear from itself first.
    pub is_moving: bool,
}

/// A port that containers' clients find on nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of a container that nodes open for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port on the nodes.
    pub port: u16,
    /// The container's port.
    pub to: u16,
    /// The nodes that open it; empty means all.
    #[serde(default)]
    pub nodes: Vec<NodeId>,
}

/// Why a text is no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no port to publish: write 8080:80, 53:53/udp or 8080:80@edge-a,edge-b")]
pub struct PublishedError(String);

impl FromStr for Published {
    type Err = PublishedError;

    /// Reads `[PORT:]PORT[/tcp|/udp][@NODE[,NODE]…]`: the nodes' port, then the container's.
    fn from_str(text: &str) -> Result<Self, PublishedError> {
        let wrong = || PublishedError(text.chars().take(80).collect());
        let (rest, nodes) = match text.split_once('@') {
            Some((rest, nodes)) => (rest, nodes.split(',').map(str::parse).collect()),
            None => (text, Ok(Vec::new())),
        };
        let (ports, protocol) = match rest.split_once('/') {
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some(_) => return Err(wrong()),
            None => (rest, Protocol::Tcp),
        };
        let (port, to) = ports.split_once(':').unwrap_or((ports, ports));
        let number = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or_else(wrong);
        Ok(Self {
            protocol,
            port: number(port)?,
            to: number(to)?,
            nodes: nodes.map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, to, nodes } = self;
        write!(f, "{port}:{to}/{protocol}")?;
        for (at, node) in nodes.iter().enumerate() {
            write!(f, "{}{node}", if at == 0 { '@' } else { ',' })?;
        }
        Ok(())
    }
}

/// An open port of a node, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The node's port.
    pub port: u16,
    /// The container's, one of each family that it has.
    pub to: Vec<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_reads_as_it_is_written() {
        for (text, shown) in [
            ("8080:80", "8080:80/tcp"),
            ("53/udp", "53:53/udp"),
            ("1:2/tcp@edge-a,edge-b", "1:2/tcp@edge-a,edge-b"),
        ] {
            let port: Published = text.parse().expect(text);
            assert_eq!(port.to_string(), shown);
            assert_eq!(shown.parse(), Ok(port));
        }
        for wrong in ["", "0", "80:", ":80", "80/sctp", "70000", "80@", "80:80:80", "80@ä"] {
            assert!(wrong.parse::<Published>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_node_has_an_address_of_its_own() {
        assert_eq!(station(1), Ipv4Addr::new(100, 64, 0, 1));
        assert_eq!(station(300), Ipv4Addr::new(100, 64, 1, 44));
        assert!(STATIONS.contains(&station(u32::MAX)), "however many there are");
        let network: Ipv6Net = "fd00:1:2:7::/64".parse().expect("a network");
        assert_eq!(station6(network, 9).to_string(), "fd00:1:2:7:8000::9");
        assert_eq!(resolver(network.into()).to_string(), "fd00:1:2:7::1");
        assert!(is_bridge("gn670001") && !is_bridge("gnome") && !is_bridge("br0"));
        assert_eq!(exit("10.128.16.0/20".parse().expect("a network")).to_string(), "10.128.16.2");
    }
}
