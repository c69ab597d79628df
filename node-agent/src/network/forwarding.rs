//! Who is where in a tenant's network: the forwarding entries of its VXLAN link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::{StreamExt as _, TryStreamExt as _};
use godwit_proto::overlay::Overlay;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::NetworkError;
use super::link::{Links, failed};
use super::overlay::tunnel_name;

/// Where broadcasts go, and what nobody is known to have.
const EVERYBODY: [u8; 6] = [0; 6];

/// The entries of a link: hardware addresses, and the nodes that frames for them are sent to.
pub(super) type Entries = BTreeMap<[u8; 6], BTreeSet<IpAddr>>;

/// What must be changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Those that are no more.
    gone: Vec<([u8; 6], IpAddr)>,
    /// Nodes that hear broadcasts now too.
    hearers: Vec<IpAddr>,
    /// Where a container is.
    moved: Vec<([u8; 6], IpAddr)>,
}

/// What makes `found` what `network` says it is.
fn changes(network: &Overlay, found: &Entries) -> Changes {
    let mut changes = Changes::default();
    let peers: BTreeSet<_> = network.peers.iter().copied().collect();
    let places: BTreeMap<_, _> = network.members.iter().map(|it| (it.mac, it)).collect();
    let heard = found.get(&EVERYBODY);
    let hears = |peer: &IpAddr| heard.is_some_and(|heard| heard.contains(peer));
    changes.hearers.extend(peers.iter().copied().filter(|peer| !hears(peer)));
    for (mac, nodes) in found {
        // What is no container's is a node's own, and learnt from its frames: that holds as long
        // as the node takes part.
        let is_known = |node: &IpAddr| match places.get(mac) {
            Some(member) if member.is_moving => true,
            Some(member) => member.at == Some(*node),
            None => peers.contains(node),
        };
        let gone = nodes.iter().filter(|node| !is_known(node));
        changes.gone.extend(gone.map(|node| (*mac, *node)));
    }
    for (mac, member) in places {
        let Some(at) = member.at else { continue };
        let nodes = found.get(&mac);
        let is_there = nodes.is_some_and(|nodes| nodes.contains(&at));
        // It may have announced itself elsewhere, which the controller hears later.
        let is_somewhere = member.is_moving && nodes.is_some();
        if !is_there && !is_somewhere {
            changes.moved.push((mac, at));
        }
    }
    changes
}

impl Links {
    /// Sends a network's frames where its containers are and its broadcasts where its nodes are;
    /// `entries` are [those](Self::entries) that the links have.
    pub(super) async fn forward(
        &self,
        network: &Overlay,
        entries: &BTreeMap<u32, Entries>,
    ) -> Result<(), NetworkError> {
        let tunnel = &tunnel_name(network.vni);
        let index = self.must_index(tunnel).await?;
        let none = Entries::new();
        let changes = changes(network, entries.get(&index).unwrap_or(&none));
        for (mac, node) in changes.gone {
            let gone = self.handle.neighbours().del(entry(index, mac, node)).execute().await;
            match gone {
                // It moved, or was removed, in between.
                Err(error) if super::link::is_absent(&error) => {}
                gone => gone.map_err(failed(format!("forgetting who is behind {tunnel}")))?,
            }
        }
        for node in changes.hearers {
            self.put(tunnel, entry(index, EVERYBODY, node), NLM_F_CREATE | NLM_F_APPEND).await?;
        }
        for (mac, node) in changes.moved {
            self.put(tunnel, entry(index, mac, node), NLM_F_CREATE | NLM_F_REPLACE).await?;
        }
        Ok(())
    }

    /// Every link's entries, by the link's index.
    pub(super) async fn entries(&self) -> Result<BTreeMap<u32, Entries>, NetworkError> {
        let what = || failed("reading who is behind tunnels".to_owned());
        let mut entries = BTreeMap::<u32, Entries>::new();
        let all = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let mut all = all.execute();
        while let Some(found) = all.try_next().await.map_err(what())? {
            let mac = found.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(&mac[..]).ok(),
                _ => None,
            });
            let node = found.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(node) => address(node),
                _ => None,
            });
            if let (Some(mac), Some(node)) = (mac, node) {
                let of_link = entries.entry(found.header.ifindex).or_default();
                of_link.entry(mac).or_default().insert(node);
            }
        }
        Ok(entries)
    }

    async fn put(
        &self,
        tunnel: &str,
        entry: NeighbourMessage,
        flags: u16,
    ) -> Result<(), NetworkError> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(entry));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let what = format!("saying who is behind {tunnel}");
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).map_err(failed(what.clone()))?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(failed(what)(rtnetlink::Error::NetlinkError(error)));
            }
        }
        Ok(())
    }
}

/// An entry that a frame from elsewhere overrules, but no time.
fn entry(index: u32, mac: [u8; 6], node: IpAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = index;
    entry.header.state = NeighbourState::Reachable;
    entry.header.flags = NeighbourFlags::Own;
    let node = match node {
        IpAddr::V4(node) => NeighbourAddress::Inet(node),
        IpAddr::V6(node) => NeighbourAddress::Inet6(node),
    };
    entry.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        NeighbourAttribute::Destination(node),
    ];
    entry
}

fn address(node: &NeighbourAddress) -> Option<IpAddr> {
    match node {
        NeighbourAddress::Inet(node) => Some((*node).into()),
        NeighbourAddress::Inet6(node) => Some((*node).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(&bytes[..]).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(&bytes[..]).ok().map(IpAddr::from),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use godwit_proto::id::Tenant;
    use godwit_proto::overlay::{Member, Vni};

    use super::*;

    fn node(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn network(members: &[(u8, Option<IpAddr>, bool)]) -> Overlay {
        let member = |(mac, at, is_moving): &(u8, Option<IpAddr>, bool)| Member {
            name: "c".parse().expect("a name"),
            mac: [2, 0, 0, 0, 0, *mac],
            addresses: Vec::new(),
            at: *at,
            is_moving: *is_moving,
        };
        Overlay {
            vni: Vni::FIRST,
            tenant: Tenant::default_tenant(),
            mtu: 1450,
            subnets: Vec::new(),
            is_exit: false,
            peers: vec![node(2), node(3)],
            members: members.iter().map(member).collect(),
        }
    }

    fn found(entries: &[([u8; 6], IpAddr)]) -> Entries {
        let mut found = Entries::new();
        entries.iter().for_each(|(mac, node)| {
            found.entry(*mac).or_default().insert(*node);
        });
        found
    }

    #[test]
    fn only_what_differs_is_changed() {
        let mac = |last| [2, 0, 0, 0, 0, last];
        let (a, b, home) = (mac(1), mac(2), mac(3));
        let network =
            network(&[(1, Some(node(2)), false), (2, Some(node(3)), false), (3, None, false)]);
        let is = [
            (EVERYBODY, node(2)),
            (EVERYBODY, node(9)),
            (a, node(3)),
            (b, node(3)),
            (home, node(2)),
        ];
        let of_a_node = [2, b'n', 10, 0, 0, 2];
        let is = [&is[..], &[(of_a_node, node(2)), ([2, b'n', 10, 0, 0, 9], node(9))]].concat();
        let wanted = Changes {
            gone: vec![
                (EVERYBODY, node(9)),
                (a, node(3)),
                (home, node(2)),
                ([2, b'n', 10, 0, 0, 9], node(9)),
            ],
            hearers: vec![node(3)],
            moved: vec![(a, node(2))],
        };
        assert_eq!(changes(&network, &found(&is)), wanted);
        let settled = [(EVERYBODY, node(2)), (EVERYBODY, node(3)), (a, node(2)), (b, node(3))];
        assert_eq!(changes(&network, &found(&settled)), Changes::default());
    }

    #[test]
    fn a_container_on_the_move_is_where_it_announced_itself() {
        let a = [2, 0, 0, 0, 0, 1];
        let both = [(EVERYBODY, node(2)), (EVERYBODY, node(3))];
        let moving = network(&[(1, Some(node(2)), true)]);
        let announced = found(&[&both[..], &[(a, node(3))]].concat());
        assert_eq!(changes(&moving, &announced), Changes::default());
        let unheard = changes(&moving, &found(&both));
        assert_eq!(unheard.moved, [(a, node(2))], "as far as the controller knows");
        let arriving = network(&[(1, None, true)]);
        assert_eq!(changes(&arriving, &announced), Changes::default(), "it may yet go back");
    }
}
