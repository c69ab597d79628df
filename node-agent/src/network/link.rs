//! Links, addresses and routes over rtnetlink, in one namespace.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use futures_util::TryStreamExt;
use godwit_proto::container::Interface;
use godwit_proto::overlay::{Attachment, STATIONS};
use ipnet::IpNet;
use nix::libc;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{NetworkError, netns};

/// The loopback's index in every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// A netlink socket of one namespace: it acts there, whoever uses it from where.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) handle: Handle,
}

impl Links {
    /// Of the namespace that the agent is in. Must be called inside a runtime.
    pub(super) fn here() -> Result<Self, NetworkError> {
        open()
            .map_err(|source| NetworkError::Io { what: "opening a netlink socket".into(), source })
    }

    /// Of the namespace at `path`.
    pub(super) async fn inside(path: &Path) -> Result<Self, NetworkError> {
        netns::inside(path, open).await.map_err(|source| NetworkError::Io {
            what: format!("opening a netlink socket in {}", path.display()),
            source,
        })
    }

    /// The link of that name, if it is there.
    pub(super) async fn get(&self, name: &str) -> Result<Option<LinkMessage>, NetworkError> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Err(error) if is_missing(&error) => Ok(None),
            other => other.map_err(failed(format!("looking for link {name}"))),
        }
    }

    /// The index of the link of that name, if it is there.
    pub(super) async fn index(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        Ok(self.get(name).await?.map(|link| link.header.index))
    }

    /// The index of the link of that name, which must be there.
    pub(super) async fn must_index(&self, name: &str) -> Result<u32, NetworkError> {
        self.index(name).await?.ok_or_else(|| NetworkError::NoLink(name.to_owned()))
    }

    /// Adds whatever link the message describes.
    pub(super) async fn add(&self, link: LinkMessage, name: &str) -> Result<(), NetworkError> {
        self.handle.link().add(link).execute().await.map_err(failed(format!("making link {name}")))
    }

    /// Makes a veth pair, both ends here, the first with that index.
    pub(super) async fn add_veth(
        &self,
        name: &str,
        index: u32,
        peer: &str,
    ) -> Result<(), NetworkError> {
        let mut pair = LinkVeth::new(name, peer).build();
        pair.header.index = index;
        self.add(pair, name).await
    }

    /// Removes the link, and a veth's other end with it; absent is success.
    pub(super) async fn delete(&self, name: &str) -> Result<(), NetworkError> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map_err(failed(format!("removing link {name}"))),
        }
    }

    /// Changes the link of that name.
    pub(super) async fn change(
        &self,
        name: &str,
        what: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetworkError> {
        let index = self.must_index(name).await?;
        let message = change(LinkUnspec::new_with_index(index)).build();
        let changed = self.handle.link().change(message).execute().await;
        changed.map_err(failed(format!("{what} link {name}")))
    }

    /// Moves the link into the namespace at `path`.
    pub(super) async fn move_into(&self, name: &str, path: &Path) -> Result<(), NetworkError> {
        let namespace = fs::File::open(path).map_err(|source| NetworkError::Io {
            what: format!("opening namespace {}", path.display()),
            source,
        })?;
        self.change(name, "moving", |link| link.setns_by_fd(namespace.as_raw_fd())).await
    }

    /// Gives the link another name.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), NetworkError> {
        self.change(from, "renaming", |link| link.name(to.to_owned())).await
    }

    /// Takes the link from its bridge; without one, or absent, is success.
    pub(super) async fn release(&self, name: &str) -> Result<(), NetworkError> {
        match self.change(name, "cutting", LinkMessageBuilder::nocontroller).await {
            Err(NetworkError::NoLink(_)) => Ok(()),
            other => other,
        }
    }

    /// Brings the link up; up already is success.
    pub(super) async fn bring_up(&self, name: &str) -> Result<(), NetworkError> {
        self.change(name, "bringing up", LinkMessageBuilder::up).await
    }

    /// Every link.
    pub(super) async fn all(&self) -> Result<Vec<LinkMessage>, NetworkError> {
        let all = self.handle.link().get().execute().try_collect().await;
        all.map_err(failed("listing links".to_owned()))
    }

    /// Gives the link an address of the node's, alone; given already is success.
    pub(super) async fn give(&self, name: &str, address: IpAddr) -> Result<(), NetworkError> {
        let index = self.must_index(name).await?;
        let mut add = self.handle.address().add(index, address, alone(address));
        add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        succeed(add.execute().await, &format!("giving {address} to {name}"))
    }

    /// Takes an address from the link that it was [given](Self::give); without it is success.
    pub(super) async fn take(&self, name: &str, address: IpAddr) -> Result<(), NetworkError> {
        let index = self.must_index(name).await?;
        let given = self.handle.address().get().set_link_index_filter(index);
        let given = given.set_address_filter(address).set_prefix_length_filter(alone(address));
        let mut given = given.execute();
        while let Some(found) =
            given.try_next().await.map_err(failed(format!("addresses of {name}")))?
        {
            let taken = self.handle.address().del(found).execute().await;
            taken.map_err(failed(format!("taking {address} from {name}")))?;
        }
        Ok(())
    }

    /// Reaches a network through the link, under that address; so already is success.
    pub(super) async fn reach(
        &self,
        name: &str,
        network: IpNet,
        from: IpAddr,
    ) -> Result<(), NetworkError> {
        let index = self.must_index(name).await?;
        let route = match (network.trunc(), from) {
            (IpNet::V4(network), IpAddr::V4(from)) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(network.addr(), network.prefix_len())
                .output_interface(index)
                .pref_source(from)
                .scope(RouteScope::Link)
                .build(),
            (IpNet::V6(network), _) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(network.addr(), network.prefix_len())
                .output_interface(index)
                .build(),
            // Never asked for.
            (IpNet::V4(_), IpAddr::V6(_)) => return Ok(()),
        };
        let added = self.handle.route().add(route).execute().await;
        succeed(added, &format!("the route to {network}"))
    }

    /// Brings up the link with its addresses and default routes; what is there stays.
    pub(super) async fn configure(
        &self,
        name: &str,
        interface: &Interface,
    ) -> Result<(), NetworkError> {
        let has_mac = |link: &LinkMessage| {
            let wanted = LinkAttribute::Address(interface.mac.to_vec());
            link.attributes.contains(&wanted)
        };
        if !self.get(name).await?.is_some_and(|link| has_mac(&link)) {
            let mac = interface.mac.to_vec();
            self.change(name, "setting the hardware address of", |link| link.address(mac)).await?;
        }
        let index = self.must_index(name).await?;
        for address in &interface.addresses {
            let mut add = self.handle.address().add(index, address.addr(), address.prefix_len());
            // It is the controller's word that nobody else has it; and a copy that is made at the
            // target of a move must find it ready.
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            succeed(add.execute().await, &format!("giving {address} to {name}"))?;
        }
        if let Some(Attachment { mtu, .. }) = interface.overlay {
            self.change(name, "the largest packet of", |link| link.mtu(mtu.into())).await?;
        }
        self.bring_up(name).await?;
        if interface.overlay.is_some() {
            // Who comes in through a node comes under its address, which is a neighbour's.
            let stations = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(STATIONS.addr(), STATIONS.prefix_len())
                .output_interface(index)
                .scope(RouteScope::Link)
                .build();
            let added = self.handle.route().add(stations).execute().await;
            succeed(added, "the route to the nodes")?;
        }
        for gateway in &interface.gateways {
            let route = match *gateway {
                IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                    .gateway(gateway)
                    .output_interface(index)
                    .build(),
                IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                    .gateway(gateway)
                    .output_interface(index)
                    .build(),
            };
            let added = self.handle.route().add(route).execute().await;
            succeed(added, &format!("adding the default route via {gateway}"))?;
        }
        Ok(())
    }
}

/// Opens a netlink socket in the calling thread's namespace, served by the runtime.
fn open() -> io::Result<Links> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    // Ends when the last handle is dropped.
    tokio::spawn(connection);
    Ok(Links { handle })
}

pub(super) fn failed(what: String) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Netlink { what, source }
}

/// There already is success.
fn succeed(result: Result<(), rtnetlink::Error>, what: &str) -> Result<(), NetworkError> {
    match result {
        Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
        other => other.map_err(failed(what.to_owned())),
    }
}

/// What was to be removed is not there.
pub(super) fn is_absent(error: &rtnetlink::Error) -> bool {
    matches!(errno(error), Some(libc::ENOENT | libc::EADDRNOTAVAIL | libc::ESRCH))
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    errno(error) == Some(libc::ENODEV)
}

/// The prefix of an address that is a network by itself.
fn alone(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}
