//! Tenants' networks: made when first asked for, and what a container has in them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_proto::container::Interface;
use godwit_proto::id::Tenant;
use godwit_proto::overlay::{self, Attachment, Resolver, Vni};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::{Service, shown};
use crate::refusal::Refusal;
use crate::store::{ContainerRow, NetworkRow};
use crate::view::NetworkView;

/// The network that is no tenant's: the nodes' own.
pub const DIRECT: &str = "direct";
/// The network that a tenant has without asking.
pub const DEFAULT: &str = "default";
/// Packets are no larger than what a link of 1500 bytes takes with VXLAN around, unless all links
/// take more; no smaller than IPv6 asks for (RFC 8200).
const USUAL_MTU: u16 = 1450;
const LEAST_MTU: u16 = 1280;
/// Addresses that are the nodes': the network's, the resolver's and the exit's.
const TAKEN: u32 = 2;

/// Where tenants' networks lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// All of them.
    pub all: Ipv4Net,
    /// The prefix of each.
    pub prefix: u8,
    /// They have IPv6 too.
    pub has_ipv6: bool,
}

/// A network to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NetworkRequest {
    /// What to call it.
    pub name: String,
    /// Its addresses; the next free ones if left out.
    #[serde(default)]
    pub subnet: Option<Ipv4Net>,
}

impl Service {
    /// A tenant's networks, by name.
    ///
    /// # Errors
    /// `internal`.
    pub async fn networks(&self, tenant: &Tenant) -> Result<Vec<NetworkView>, Refusal> {
        let (rows, containers) = self
            .store("listing networks", |store| Ok((store.networks()?, store.containers()?)))
            .await?;
        let own = rows.iter().filter(|row| row.tenant == *tenant);
        Ok(own.map(|row| NetworkView::new(row, &containers)).collect())
    }

    /// One of a tenant's networks.
    ///
    /// # Errors
    /// `unknown-network`.
    pub async fn network(&self, tenant: &Tenant, name: &str) -> Result<NetworkView, Refusal> {
        let mut all = self.networks(tenant).await?;
        let found = all.iter().position(|network| network.name == name);
        found.map(|at| all.swap_remove(at)).ok_or_else(|| unknown(name))
    }

    /// Makes a network.
    ///
    /// # Errors
    /// `invalid-name`, `name-taken`, `subnet-taken`, `addresses-exhausted`.
    pub async fn create_network(
        &self,
        tenant: &Tenant,
        request: NetworkRequest,
    ) -> Result<NetworkView, Refusal> {
        let _creating = self.parts.creating.lock().await;
        let rows = self.store("listing networks", |store| store.networks()).await?;
        if find(&rows, tenant, &request.name).is_some() {
            return Err(Refusal::new(
                "name-taken",
                format!("there is a network `{}` already", shown(&request.name)),
                "choose another name; `godwit network ls` lists them",
            ));
        }
        let row = self.make(tenant, &request, &rows).await?;
        Ok(NetworkView::new(&row, &[]))
    }

    /// Removes a network that no container is in.
    ///
    /// # Errors
    /// `unknown-network`, `network-in-use`.
    pub async fn remove_network(
        &self,
        tenant: &Tenant,
        name: &str,
    ) -> Result<NetworkView, Refusal> {
        let _creating = self.parts.creating.lock().await;
        let (rows, containers) = self
            .store("listing networks", |store| Ok((store.networks()?, store.containers()?)))
            .await?;
        let row = find(&rows, tenant, name).ok_or_else(|| unknown(name))?;
        let view = NetworkView::new(row, &containers);
        if !view.containers.is_empty() {
            let users: Vec<_> = view.containers.iter().map(ToString::to_string).collect();
            return Err(Refusal::new(
                "network-in-use",
                format!("{} is used by {}", shown(name), users.join(", ")),
                "remove these containers first",
            ));
        }
        let vni = row.vni;
        self.store("removing a network", move |store| store.delete_network(vni)).await?;
        Ok(view)
    }

    /// What a new container gets in the network of that name. To be called while nothing else is
    /// created.
    pub(super) async fn join(
        &self,
        tenant: &Tenant,
        name: &str,
        rows: &[ContainerRow],
        given: &[Interface],
    ) -> Result<Interface, Refusal> {
        let others = rows.iter().flat_map(|row| row.spec.addresses());
        let own = given.iter().flat_map(|interface| &interface.addresses).map(IpNet::addr);
        let used = others.chain(own).filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        if name == DIRECT {
            return self.parts.pool.free(used).ok_or_else(|| {
                Refusal::new(
                    "addresses-exhausted",
                    format!("every address of the pool {} is in use", self.parts.pool),
                    "remove containers, or start the controller with a larger --pool",
                )
            });
        }
        let networks = self.store("listing networks", |store| store.networks()).await?;
        let network = match find(&networks, tenant, name) {
            Some(found) => found.clone(),
            None if name == DEFAULT => {
                let request = NetworkRequest { name: name.to_owned(), subnet: None };
                self.make(tenant, &request, &networks).await?
            }
            None => return Err(unknown(name)),
        };
        // Not two of one network: its address would be reached by either.
        let is_twice =
            given.iter().any(|it| it.overlay.is_some_and(|overlay| overlay.vni == network.vni));
        if is_twice {
            return Err(Refusal::new(
                "network-twice",
                format!("the container is to be in {} twice", shown(name)),
                "name each network once",
            ));
        }
        let used = used.collect();
        interface(&network, &used, given.is_empty()).ok_or_else(|| {
            Refusal::new(
                "addresses-exhausted",
                format!("every address of the network {} is in use", shown(name)),
                "remove containers, or make another network with `godwit network create`",
            )
        })
    }

    async fn make(
        &self,
        tenant: &Tenant,
        request: &NetworkRequest,
        rows: &[NetworkRow],
    ) -> Result<NetworkRow, Refusal> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &request.name;
        if name.is_empty() || name.len() > 32 || !name.chars().all(is_name) || name == DIRECT {
            return Err(Refusal::new(
                "invalid-name",
                format!("`{}` cannot be a network's name", shown(name)),
                "use up to 32 of a-z, 0-9 and -; `direct` is the nodes' own network",
            ));
        }
        let ranges = self.parts.ranges;
        let vni = self.store("numbering a network", |store| store.next_vni()).await?;
        if vni > Vni::LAST {
            return Err(exhausted(ranges));
        }
        let nodes = self.parts.registry.underlays();
        let is_nodes =
            |subnet: &Ipv4Net| nodes.iter().any(|(.., ip)| IpNet::V4(*subnet).contains(ip));
        let subnet = match request.subnet {
            Some(subnet) => checked(subnet, ranges, rows, is_nodes)?,
            None => next(ranges, rows, is_nodes).ok_or_else(|| exhausted(ranges))?,
        };
        let mut subnets = vec![IpNet::V4(subnet)];
        if ranges.has_ipv6 {
            let fabric = self.store("naming the fabric", |store| store.fabric()).await?;
            subnets.push(six(fabric, vni).into());
        }
        let row = NetworkRow {
            vni,
            tenant: tenant.clone(),
            name: name.clone(),
            subnets,
            mtu: self.mtu(),
            exit: None,
            created: Timestamp::now(),
        };
        let added = row.clone();
        self.store("adding a network", move |store| store.insert_network(&added)).await?;
        Ok(row)
    }

    /// What fits the links of all nodes that are known.
    fn mtu(&self) -> u16 {
        let nodes = self.parts.registry.all_facts();
        let ends = nodes.iter().filter_map(|node| node.underlay);
        let fits = ends.map(|end| end.mtu.saturating_sub(overlay::overhead(end.address))).min();
        fits.unwrap_or(USUAL_MTU).max(LEAST_MTU)
    }
}

/// Where the container of these interfaces asks for names: in the first network that it is in.
pub(super) fn resolver(tenant: &Tenant, interfaces: &[Interface]) -> Option<Resolver> {
    let first = interfaces.iter().find(|interface| interface.overlay.is_some())?;
    Some(Resolver {
        servers: first.addresses.iter().map(|it| overlay::resolver(it.trunc())).collect(),
        search: format!("{tenant}.godwit"),
    })
}

/// The largest packet of the tenants' networks that these interfaces are in.
pub(super) fn mtu(interfaces: &[Interface]) -> Option<u16> {
    interfaces.iter().filter_map(|interface| interface.overlay).map(|overlay| overlay.mtu).max()
}

fn find<'a>(rows: &'a [NetworkRow], tenant: &Tenant, name: &str) -> Option<&'a NetworkRow> {
    rows.iter().find(|row| row.tenant == *tenant && row.name == name)
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(
        "unknown-network",
        format!("there is no network `{}`", shown(name)),
        "make it with `godwit network create`; `godwit network ls` lists them",
    )
}

fn exhausted(ranges: Ranges) -> Refusal {
    Refusal::new(
        "addresses-exhausted",
        format!("no network of /{} is left in {}", ranges.prefix, ranges.all),
        "remove networks, or start the controller with a larger --networks",
    )
}

/// The lowest network that overlaps with no other.
fn next(
    ranges: Ranges,
    rows: &[NetworkRow],
    is_nodes: impl Fn(&Ipv4Net) -> bool,
) -> Option<Ipv4Net> {
    let mut all = ranges.all.subnets(ranges.prefix).ok()?;
    all.find(|subnet| rows.iter().all(|row| !overlaps(row, *subnet)) && !is_nodes(subnet))
}

fn overlaps(row: &NetworkRow, subnet: Ipv4Net) -> bool {
    row.subnets.iter().any(|other| match other {
        IpNet::V4(other) => other.contains(&subnet) || subnet.contains(other),
        IpNet::V6(_) => false,
    })
}

/// A wished network, if nodes can tell it from all others.
fn checked(
    subnet: Ipv4Net,
    ranges: Ranges,
    rows: &[NetworkRow],
    is_nodes: impl Fn(&Ipv4Net) -> bool,
) -> Result<Ipv4Net, Refusal> {
    let subnet = subnet.trunc();
    let why = if subnet.prefix_len() > 29 {
        "holds no containers: make it /29 or larger".to_owned()
    } else if !ranges.all.contains(&subnet) {
        // Anything else may be somebody's, and nodes would reach that no more.
        format!("is not in {}, which the controller has for networks (--networks)", ranges.all)
    } else if let Some(row) = rows.iter().find(|row| overlaps(row, subnet)) {
        // Whose it is, is no other tenant's business.
        format!("overlaps with {}, which is a network already", row.subnets[0])
    } else if is_nodes(&subnet) {
        "has addresses of nodes in it".to_owned()
    } else {
        return Ok(subnet);
    };
    Err(Refusal::new(
        "subnet-taken",
        format!("{subnet} {why}"),
        "leave --subnet out, or choose another one",
    ))
}

/// The network's own of IPv6: under a prefix that is the fabric's alone (RFC 4193).
fn six(fabric: Uuid, vni: Vni) -> Ipv6Net {
    let [a, b, c, d, e, ..] = *fabric.as_bytes();
    let [.., high, low] = vni.0.to_be_bytes();
    let words = [[0xfd, a], [b, c], [d, e], [high, low]].map(u16::from_be_bytes);
    let [one, two, three, four] = words;
    Ipv6Net::new_assert(Ipv6Addr::new(one, two, three, four, 0, 0, 0, 0), 64)
}

/// The lowest free address of the network; a default route for the first interface.
fn interface(network: &NetworkRow, used: &BTreeSet<Ipv4Addr>, is_first: bool) -> Option<Interface> {
    let four = network.subnets.iter().find_map(|subnet| match subnet {
        IpNet::V4(subnet) => Some(*subnet),
        IpNet::V6(_) => None,
    })?;
    let (first, last) = (four.network().to_bits(), four.broadcast().to_bits());
    let free = (first + 1 + TAKEN..last).find(|ip| !used.contains(&Ipv4Addr::from_bits(*ip)))?;
    let [a, b, c, d] = free.to_be_bytes();
    let addresses = network.subnets.iter().filter_map(|subnet| match subnet {
        IpNet::V4(subnet) => {
            Ipv4Net::new(Ipv4Addr::from_bits(free), subnet.prefix_len()).ok().map(IpNet::from)
        }
        IpNet::V6(subnet) => {
            let ip = subnet.network().to_bits() | u128::from(free - first);
            Ipv6Net::new(Ipv6Addr::from_bits(ip), subnet.prefix_len()).ok().map(IpNet::from)
        }
    });
    let gateways = network.subnets.iter().map(|subnet| overlay::exit(*subnet));
    Some(Interface {
        // 02: locally administered, so no vendor's.
        mac: [0x02, b'g', a, b, c, d],
        addresses: addresses.collect(),
        gateways: if is_first { gateways.collect() } else { Vec::new() },
        overlay: Some(Attachment { vni: network.vni, mtu: network.mtu }),
    })
}
