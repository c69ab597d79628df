//! The node's own end of the tenants' networks: where it sends and takes VXLAN.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use godwit_bus::BrokerUrl;
use godwit_proto::node::Underlay;
use godwit_proto::overlay::is_bridge;

/// The end at `wished`; else where the way to the broker begins, or, with the broker on this node,
/// the way to everywhere else.
///
/// `None` where the node has no such address. Looks names up: blocks.
pub(crate) fn find(wished: Option<IpAddr>, broker: &BrokerUrl) -> Option<Underlay> {
    let ends: Vec<_> = ends().collect();
    let at = |address: IpAddr| ends.iter().find(|end| end.address == address).copied();
    if let Some(wished) = wished {
        let found = at(wished);
        if found.is_none() {
            tracing::error!(
                "this node does not have the address {wished} of --underlay: containers in \
                 tenants' networks cannot be here"
            );
        }
        return found;
    }
    towards_broker(broker).or_else(towards_all).and_then(at)
}

fn towards_broker(broker: &BrokerUrl) -> Option<IpAddr> {
    let host = broker.host().trim_matches(['[', ']']);
    (host, broker.port()).to_socket_addrs().ok()?.find_map(towards)
}

/// By the default route: these addresses are nobody's (RFC 5737, RFC 3849).
fn towards_all() -> Option<IpAddr> {
    ["192.0.2.1:9", "[2001:db8::1]:9"].iter().filter_map(|it| it.parse().ok()).find_map(towards)
}

/// The address under which the node sends there, unless it is the loopback's.
fn towards(there: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if there.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Of a datagram socket it sends nothing, and chooses a way.
    socket.connect(there).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

/// Every address that others can reach, with what its link takes.
fn ends() -> impl Iterator<Item = Underlay> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let all = all.filter(|found| !is_bridge(&found.interface_name));
    all.filter_map(|found| {
        let address = found.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        let address = v4.or_else(v6).filter(is_far)?;
        let mtu = format!("/sys/class/net/{}/mtu", found.interface_name);
        let mtu: u32 = std::fs::read_to_string(mtu).ok()?.trim().parse().ok()?;
        Some(Underlay { address, mtu: u16::try_from(mtu).unwrap_or(u16::MAX) })
    })
}

/// Not the loopback's, nor one that means another machine on each link.
fn is_far(address: &IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !is_local
}
