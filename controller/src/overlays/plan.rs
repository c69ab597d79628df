//! What a node is to know, from all that there is: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use godwit_proto::container::Interface;
use godwit_proto::id::{ContainerId, NodeId};
use godwit_proto::overlay::{Entry, Member, Overlay, Overlays, Published, Vni};

use crate::store::{ContainerRow, NetworkRow};

/// All that the plan rests on.
#[derive(Debug, Clone, Default)]
pub struct Fabric {
    /// Every container.
    pub containers: Vec<ContainerRow>,
    /// Those that move, and where to.
    pub moves: BTreeMap<ContainerId, NodeId>,
    /// Every network.
    pub networks: Vec<NetworkRow>,
    /// Every node that has an end for networks.
    pub stations: Vec<Station>,
}

/// A node's end of all networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    /// The node.
    pub node: NodeId,
    /// Its number.
    pub number: u32,
    /// It hears what it is told.
    pub is_online: bool,
    /// Its address.
    pub underlay: IpAddr,
}

/// What `station` is to know.
pub fn plan(fabric: &Fabric, station: &Station) -> Overlays {
    let all: Vec<IpAddr> = fabric.stations.iter().map(|station| station.underlay).collect();
    let places: BTreeMap<_, _> =
        fabric.stations.iter().map(|station| (&station.node, station.underlay)).collect();
    let networks = fabric.networks.iter().filter_map(|network| {
        let taking_part = taking_part(fabric, network);
        taking_part.contains(&station.node).then(|| Overlay {
            vni: network.vni,
            tenant: network.tenant.clone(),
            mtu: network.mtu,
            subnets: network.subnets.clone(),
            is_exit: network.exit.as_ref() == Some(&station.node),
            peers: taking_part
                .iter()
                .filter(|node| ***node != station.node)
                .filter_map(|node| places.get(node).copied())
                .collect(),
            members: members(fabric, network, &station.node, &places),
        })
    });
    let ports = fabric.containers.iter().flat_map(|row| {
        let opened = row.spec.ports.iter().filter(|port| opens(port, &station.node));
        opened.map(|port| entry(row, port))
    });
    Overlays {
        number: station.number,
        nodes: all.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
        networks: networks.collect(),
        ports: ports.collect(),
    }
}

/// True when a container is in that network.
pub(super) fn is_used(containers: &[ContainerRow], vni: Vni) -> bool {
    containers.iter().any(|row| interfaces(row, vni).next().is_some())
}

fn interfaces(row: &ContainerRow, vni: Vni) -> impl Iterator<Item = &Interface> {
    let is_of = move |interface: &&Interface| interface.overlay.is_some_and(|it| it.vni == vni);
    row.spec.interfaces.iter().filter(is_of)
}

/// The nodes that take part in a network.
fn taking_part<'a>(fabric: &'a Fabric, network: &'a NetworkRow) -> BTreeSet<&'a NodeId> {
    let mut nodes = BTreeSet::new();
    for row in &fabric.containers {
        if interfaces(row, network.vni).next().is_none() {
            continue;
        }
        nodes.insert(&row.node);
        nodes.extend(fabric.moves.get(&row.spec.id));
        let entries = fabric.stations.iter().map(|station| &station.node);
        nodes.extend(entries.filter(|node| row.spec.ports.iter().any(|port| opens(port, node))));
    }
    if !nodes.is_empty() {
        nodes.extend(&network.exit);
    }
    nodes
}

fn opens(port: &Published, node: &NodeId) -> bool {
    port.nodes.is_empty() || port.nodes.contains(node)
}

fn members(
    fabric: &Fabric,
    network: &NetworkRow,
    node: &NodeId,
    places: &BTreeMap<&NodeId, IpAddr>,
) -> Vec<Member> {
    let members = fabric.containers.iter().flat_map(|row| {
        interfaces(row, network.vni).map(|interface| Member {
            name: row.spec.name.clone(),
            mac: interface.mac,
            addresses: interface.addresses.iter().map(ipnet::IpNet::addr).collect(),
            at: places.get(&row.node).copied().filter(|_| row.node != *node),
            is_moving: fabric.moves.contains_key(&row.spec.id),
        })
    });
    members.collect()
}

/// Where the port leads: to the container's first interface, by each family.
fn entry(row: &ContainerRow, port: &Published) -> Entry {
    let addresses = row.spec.interfaces.iter().take(1).flat_map(|first| &first.addresses);
    let (mut four, mut six) = (None, None);
    for address in addresses.map(ipnet::IpNet::addr) {
        let family = if address.is_ipv4() { &mut four } else { &mut six };
        family.get_or_insert(address);
    }
    let to = [four, six].into_iter().flatten().map(|address| SocketAddr::new(address, port.to));
    Entry { protocol: port.protocol, port: port.port, to: to.collect() }
}

#[cfg(test)]
mod tests;
