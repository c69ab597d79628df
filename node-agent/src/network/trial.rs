//! Whether this node's kernel can do what networks need: tried, in a namespace of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use godwit_proto::container::Interface;
use godwit_proto::overlay::{Overlay, Overlays, Vni};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::exchange::Exchange;
use super::link::Links;
use super::packet::{PacketSocket, Receive};
use super::{NetworkError, link, overlay, port, rules};

/// What was tried, and what the kernel said of each.
pub(crate) struct Trial {
    /// Packet sockets: frames are announced and held by them.
    pub(crate) packets: Result<(), NetworkError>,
    /// nftables by netlink: the guard of a container that is being rebuilt.
    pub(crate) guard: Result<(), NetworkError>,
    /// Rules at a link's ingress, by nft: what a container may send.
    pub(crate) ports: Result<(), NetworkError>,
    /// VXLAN: tenants' networks.
    pub(crate) overlay: Result<(), NetworkError>,
    /// Rules at VXLAN's egress, and translation of addresses: names, published ports and exits.
    pub(crate) nat: Result<(), NetworkError>,
    /// IPv6.
    pub(crate) ipv6: bool,
}

/// Tries it all; leaves nothing behind. Blocks.
pub(crate) fn trial() -> io::Result<Trial> {
    let trying = std::thread::Builder::new().name("trial".into()).spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(all()))
    })?;
    trying.join().map_err(|_| io::Error::other("the trial panicked"))?
}

async fn all() -> Trial {
    Trial {
        packets: packets(),
        guard: guard(),
        ports: rules::of_port("lo", &interface()).await,
        overlay: vxlan().await,
        nat: nat().await,
        ipv6: std::path::Path::new("/proc/sys/net/ipv6/conf/lo").exists(),
    }
}

fn packets() -> Result<(), NetworkError> {
    let open = || {
        let socket = PacketSocket::open()?;
        socket.offloads()?;
        socket.bind(link::LOOPBACK, Receive::Nothing)
    };
    open().map_err(|source| NetworkError::Io { what: "opening a packet socket".into(), source })
}

fn guard() -> Result<(), NetworkError> {
    let raise = || {
        let filters = Exchange::open(NETLINK_NETFILTER)?;
        port::raise(&filters).and_then(|()| port::lower(&filters))
    };
    raise().map_err(|source| NetworkError::Io { what: "filtering with nf_tables".into(), source })
}

async fn vxlan() -> Result<(), NetworkError> {
    let links = Links::here()?;
    let here = Some(IpAddr::from(Ipv4Addr::LOCALHOST));
    overlay::ensure(&links, here, Vni::LAST, network().mtu).await
}

async fn nat() -> Result<(), NetworkError> {
    let overlays = Overlays { networks: vec![network()], ..Overlays::default() };
    rules::load(&rules::of_node(&overlays, &[], overlay::Borrowed::default())).await?;
    rules::load(&rules::of_tunnels(overlays.networks.iter())).await
}

fn interface() -> Interface {
    let addresses = network().subnets;
    Interface { mac: [2, 0, 0, 0, 0, 1], addresses, gateways: Vec::new(), overlay: None }
}

fn network() -> Overlay {
    Overlay {
        vni: Vni::LAST,
        tenant: godwit_proto::id::Tenant::default_tenant(),
        mtu: 1450,
        subnets: vec![ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24).into()],
        is_exit: true,
        peers: Vec::new(),
        members: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_can_do_it_all_and_nothing_of_the_trial_stays() {
        let links = || {
            let mut all: Vec<_> = std::fs::read_dir("/sys/class/net")
                .expect("links")
                .map(|link| link.expect("a link").file_name())
                .collect();
            all.sort();
            all
        };
        let before = links();
        let tried = trial().expect("these tests make namespaces: run them as root");
        for tried in [tried.packets, tried.guard, tried.ports, tried.overlay, tried.nat] {
            tried.expect("this kernel can");
        }
        assert_eq!(links(), before);
    }
}
