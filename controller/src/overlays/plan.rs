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

/// The fabric's networks, each with who takes part, from which every node's part is cut.
#[derive(Debug)]
pub struct Parts<'a> {
    nodes: Vec<IpAddr>,
    places: BTreeMap<&'a NodeId, IpAddr>,
    networks: Vec<Part<'a>>,
    /// The containers that nodes open ports for.
    published: Vec<&'a ContainerRow>,
}

/// A network that somebody is in.
#[derive(Debug)]
struct Part<'a> {
    network: &'a NetworkRow,
    nodes: BTreeSet<&'a NodeId>,
    members: Vec<(&'a NodeId, Member)>,
}

impl<'a> Parts<'a> {
    /// Of that fabric.
    pub fn of(fabric: &'a Fabric) -> Self {
        let nodes: BTreeSet<_> = fabric.stations.iter().map(|station| station.underlay).collect();
        let places: BTreeMap<_, _> =
            fabric.stations.iter().map(|station| (&station.node, station.underlay)).collect();
        let mut networks: Vec<_> = fabric
            .networks
            .iter()
            .map(|network| Part { network, nodes: BTreeSet::new(), members: Vec::new() })
            .collect();
        let index: BTreeMap<_, _> =
            networks.iter().enumerate().map(|(at, part)| (part.network.vni, at)).collect();
        for row in &fabric.containers {
            for interface in &row.spec.interfaces {
                let Some(at) = interface.overlay.and_then(|overlay| index.get(&overlay.vni)) else {
                    continue;
                };
                networks[*at].add(fabric, row, interface);
            }
        }
        networks.retain(|part| !part.nodes.is_empty());
        networks.iter_mut().for_each(|part| part.nodes.extend(&part.network.exit));
        let is_published = |row: &&ContainerRow| !row.spec.ports.is_empty();
        let published = fabric.containers.iter().filter(is_published).collect();
        Self { nodes: nodes.into_iter().collect(), places, networks, published }
    }

    /// What that node is to know.
    pub fn plan(&self, station: &Station) -> Overlays {
        let own = self.networks.iter().filter(|part| part.nodes.contains(&station.node));
        let ports = self.published.iter().flat_map(|row| {
            let opened = row.spec.ports.iter().filter(|port| opens(port, &station.node));
            opened.map(|port| entry(row, port))
        });
        Overlays {
            number: station.number,
            nodes: self.nodes.clone(),
            networks: own.map(|part| self.cut(part, station)).collect(),
            ports: ports.collect(),
        }
    }

    fn cut(&self, part: &Part<'_>, station: &Station) -> Overlay {
        let others = part.nodes.iter().filter(|node| ***node != station.node);
        let place = |node: &NodeId| self.places.get(node).copied();
        let member = |(node, member): &(&NodeId, Member)| {
            let at = place(node).filter(|_| **node != station.node);
            // Its node has no end any more: fenced, or never heard of. It is nowhere.
            let is_somewhere = at.is_some() || **node == station.node;
            is_somewhere.then(|| Member { at, ..member.clone() })
        };
        let NetworkRow { vni, tenant, mtu, subnets, exit, .. } = part.network;
        Overlay {
            vni: *vni,
            tenant: tenant.clone(),
            mtu: *mtu,
            subnets: subnets.clone(),
            is_exit: exit.as_ref() == Some(&station.node),
            peers: others.filter_map(|node| place(node)).collect(),
            members: part.members.iter().filter_map(member).collect(),
        }
    }
}

impl<'a> Part<'a> {
    fn add(&mut self, fabric: &'a Fabric, row: &'a ContainerRow, interface: &Interface) {
        self.nodes.insert(&row.node);
        self.nodes.extend(fabric.moves.get(&row.spec.id));
        for port in &row.spec.ports {
            let entries = fabric.stations.iter().map(|station| &station.node);
            self.nodes.extend(entries.filter(|node| opens(port, node)));
        }
        self.members.push((
            &row.node,
            Member {
                name: row.spec.name.clone(),
                mac: interface.mac,
                addresses: interface.addresses.iter().map(ipnet::IpNet::addr).collect(),
                at: None,
                is_moving: fabric.moves.contains_key(&row.spec.id),
            },
        ));
    }
}

/// True when a container is in that network.
pub(super) fn is_used(containers: &[ContainerRow], vni: Vni) -> bool {
    let mut all = containers.iter().flat_map(|row| &row.spec.interfaces);
    all.any(|interface| interface.overlay.is_some_and(|overlay| overlay.vni == vni))
}

fn opens(port: &Published, node: &NodeId) -> bool {
    port.nodes.is_empty() || port.nodes.contains(node)
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
