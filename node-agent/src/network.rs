//! The container's network: a namespace of its own, and veths into the node's bridge.
//!
//! ```text
//!   /run/netns/godwit-<8 hex>            the host
//!   ┌───────────────────────┐
//!   │ lo   eth0 (IP, MAC) ──┼── gw<8 hex> ──┤ bridge (br0) ├── the node's uplink
//!   └───────────────────────┘     attached or cut
//! ```
//!
//! The namespace is made by the agent, not by podman, and on both hosts alike: podman's own
//! networks attach before a restore, the kernel then answers for connections that it does
//! not know yet, and they die. Here an address answers on a node only while the host's side
//! of the veth is [`Network::attach`]ed to the bridge; [`Network::cut`] takes it off.
//!
//! A hand-over that keeps its TCP connections needs more on the target, in this order:
//!
//! ```text
//! ready    Network::ready: a Port, whose calls are cheap enough for the gap
//! cut      at the source, Strays: kept until the target's announcement is heard, and sent after it
//! before   Port::guard, Network::hold, then Port::attach and Port::announce
//! commit   Port::unguard, Held::replay
//! abort    Port::cut; the source attaches and announces; Held::send_back
//! ```
//!
//! Every call is idempotent, and nothing is kept in memory: the kernel is the record.
//!
//! Two settings of the host are left as they are, for they are not ours alone. Where bridged
//! frames pass iptables ([`filters_bridged_frames`]), what the host's connection tracking
//! remembers of a container may stall it when it comes back. And the table of tracked
//! connections, which CRIU reads twice in every dump, is one for all namespaces: those made
//! here cannot have a smaller one (`nf_conntrack_buckets` is read-only in them).

mod announce;
mod bridge;
mod closing;
mod conflict;
mod exchange;
mod forwarding;
mod guard;
mod hold;
mod link;
pub(crate) mod names;
mod naming;
mod netns;
mod overlay;
mod packet;
mod port;
mod rules;
mod strays;
mod tenancy;
#[cfg(test)]
mod tests;
mod tracking;
mod trial;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use godwit_proto::container::{Interface, MAX_INTERFACES};
use godwit_proto::id::ContainerId;
use godwit_proto::overlay::{Attachment, Overlays};
use tokio::sync::Mutex;

use exchange::Exchange;
use hold::Line;
use link::Links;
use port::End;
use tenancy::Tenancy;

pub use bridge::filters_bridged_frames;
pub use conflict::{Holder, Neighbours};
pub use hold::{Held, Released};
pub use port::Port;
pub use strays::Strays;
pub(crate) use tracking::time_of_a_reading;
pub(crate) use trial::trial;

/// Why a container's network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refused a change of a link, an address or a route.
    #[error("{what}: {source}")]
    Netlink {
        /// The change.
        what: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// A namespace, a socket or a file could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A link that should be there is not.
    #[error("no link `{0}` on this node")]
    NoLink(String),
    /// An address is somebody else's.
    #[error(
        "another machine on the network has the container's address {ip}: its hardware address is {}. \
         Take the address from it, or keep it out of the controller's --pool and make the container anew",
        colons(mac)
    )]
    Taken {
        /// The address.
        ip: IpAddr,
        /// Whose it is.
        mac: [u8; 6],
    },
    /// nft did not take the rules.
    #[error("nft refused the rules of a network: {said}")]
    Rules {
        /// Its words.
        said: String,
    },
    /// A tenant's network cannot be, for nobody knows the node's own address.
    #[error(
        "this node has no address for tenants' networks yet: give the agent one with --underlay"
    )]
    NoUnderlay,
}

/// What the agent's configuration says of the network.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The bridge that containers are attached to; made when it is not there.
    pub bridge: String,
    /// Where files are that name containers in tenants' networks; nobody else's.
    pub names: PathBuf,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { bridge: "br0".into(), names: "/run/godwit/names".into() }
    }
}

/// The containers' networks on this node.
pub struct Network {
    config: NetworkConfig,
    links: Links,
    /// Held while links of tenants' networks are made or removed.
    tenancy: Mutex<Tenancy>,
}

impl Network {
    /// Opens a netlink socket, makes the bridge where it is missing, and pins its address.
    ///
    /// Must be called inside a runtime. Errors: `Netlink` without CAP_NET_ADMIN.
    pub async fn start(config: NetworkConfig) -> Result<Self, NetworkError> {
        let links = Links::here()?;
        bridge::ensure(&links, &config.bridge).await?;
        Ok(Self { config, links, tenancy: Mutex::default() })
    }

    /// Sends and takes VXLAN at that address of the node from now on.
    pub async fn set_underlay(&self, address: IpAddr) {
        self.tenancy.lock().await.underlay = Some(address);
    }

    /// Makes the tenants' networks on this node what the controller says they are.
    ///
    /// # Errors
    /// The first that the kernel or nft refuses; the rest is done, and the call may be repeated.
    /// Cancel-safe.
    pub async fn follow(&self, overlays: &Overlays) -> Result<(), NetworkError> {
        self.tenancy.lock().await.follow(&self.links, &self.config.names, overlays).await
    }

    /// Puts back what somebody else took of rules and resolvers.
    ///
    /// # Errors
    /// What the kernel or nft refuses. Cancel-safe.
    pub async fn look(&self) -> Result<(), NetworkError> {
        self.tenancy.lock().await.look(&self.links, &self.config.names).await
    }

    /// The bridge that an interface is attached to.
    fn bridge_of(&self, interface: &Interface) -> String {
        match interface.overlay {
            Some(Attachment { vni, .. }) => overlay::bridge_name(vni),
            None => self.config.bridge.clone(),
        }
    }

    /// Where the container's namespace is, or would be.
    pub fn path(id: ContainerId) -> PathBuf {
        netns::path(&naming::namespace(id))
    }

    /// True when the container's namespace exists.
    pub fn exists(&self, id: ContainerId) -> bool {
        netns::is_mounted(&Self::path(id))
    }

    /// Makes the namespace with its interfaces, cut off from the bridge unless they were attached
    /// before, and unguarded. Made already is success; made half is completed.
    pub async fn ensure(
        &self,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<PathBuf, NetworkError> {
        let path = Self::path(id);
        self.tenancy.lock().await.join(&self.links, id, interfaces).await?;
        netns::ensure(&path).await?;
        let inside = Links::inside(&path).await?;
        inside.bring_up("lo").await?;
        for (ordinal, interface) in interfaces.iter().enumerate() {
            let (host_end, name) = (naming::host_end(id, ordinal), naming::inside(ordinal));
            if inside.index(&name).await?.is_none() {
                // A host end without its peer cannot be: the veth was never moved.
                self.links.delete(&host_end).await?;
                let peer = naming::peer(id, ordinal);
                self.links.add_veth(&host_end, naming::index(id, ordinal), &peer).await?;
                self.links.move_into(&peer, &path).await?;
                inside.rename(&peer, &name).await?;
            }
            if interface.addresses.iter().any(|address| address.addr().is_ipv6()) {
                prepare_ipv6(&path, &name).await?;
            }
            inside.configure(&name, interface).await?;
            rules::of_port(&host_end, interface).await?;
            if let Some(Attachment { mtu, .. }) = interface.overlay {
                let mtu = mtu.into();
                self.links.change(&host_end, "the largest packet of", |link| link.mtu(mtu)).await?;
            }
            // Up long before it is attached: carrier takes its time to be believed.
            self.links.bring_up(&host_end).await?;
        }
        // An agent that died in a hand-over leaves it.
        self.unguard(id).await?;
        Ok(path)
    }

    /// Takes up a container that an agent before this one left here: its rules are what they should
    /// be, whoever flushed them, and its networks stay. Not here is success.
    pub async fn resume(
        &self,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<(), NetworkError> {
        self.tenancy.lock().await.resume(&self.links, id, interfaces).await
    }

    /// Makes the container reachable: drops a guard that was left, attaches it to the bridge,
    /// and announces its addresses there; attached already announces again.
    ///
    /// For a restore, which needs its guard, there is [`Port::attach`].
    pub async fn attach(
        &self,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<(), NetworkError> {
        let port = self.ready(id, interfaces).await?;
        port.unguard()?;
        port.attach()?;
        port.announce()
    }

    /// Opens the container's port, whose calls are cheap enough for the gap.
    ///
    /// Errors: `Io` or `NoLink` where [`Network::ensure`] was not called before. Cancel-safe.
    pub async fn ready(
        &self,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<Port, NetworkError> {
        let mut ends = Vec::new();
        for (ordinal, interface) in interfaces.iter().enumerate() {
            let bridge = self.bridge_of(interface);
            ends.push(End {
                index: self.links.must_index(&naming::host_end(id, ordinal)).await?,
                bridge: self.links.must_index(&bridge).await?,
            });
        }
        Port::open(&Self::path(id), naming::host_end(id, 0), &ends, interfaces).await
    }

    /// Lets no IP packet into the container or out of it until [`Network::unguard`]; ARP
    /// passes. Guarded already is success.
    ///
    /// Errors: `Io` where the namespace is missing, or the kernel has no nf_tables.
    pub async fn guard(&self, id: ContainerId) -> Result<(), NetworkError> {
        let filters = Self::filters(id).await?;
        port::raise(&filters).map_err(failed_at("guarding", id))
    }

    /// Ends what [`Network::guard`] began; unguarded, or no namespace at all, is success.
    pub async fn unguard(&self, id: ContainerId) -> Result<(), NetworkError> {
        if !self.exists(id) {
            return Ok(());
        }
        let filters = Self::filters(id).await?;
        port::lower(&filters).map_err(failed_at("unguarding", id))
    }

    /// Holds from now on what leaves the bridge for the container, up to 32 MiB as the kernel
    /// counts; what does not fit is dropped and [counted](Held::dropped).
    ///
    /// To be called when the guard is up, and before the port is attached and announced.
    /// Dropping the result just ends it. Errors: `NoLink` without a veth, `Io`. Cancel-safe.
    pub async fn hold(
        &self,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<Held, NetworkError> {
        self.hold_at_most(id, interfaces, hold::HOLD_BYTES).await
    }

    async fn hold_at_most(
        &self,
        id: ContainerId,
        interfaces: &[Interface],
        room: usize,
    ) -> Result<Held, NetworkError> {
        let mut lines = Vec::new();
        for (ordinal, interface) in interfaces.iter().enumerate() {
            let bridge = bridge::seen(&self.links, &self.bridge_of(interface)).await?;
            let host_end = naming::host_end(id, ordinal);
            let index = self.links.must_index(&host_end).await?;
            let room = room / interfaces.len();
            lines.push(Line::begin(host_end, index, interface.mac, bridge, room)?);
        }
        Ok(Held::new(lines))
    }

    /// Hears who says on the nodes' network which addresses are his.
    ///
    /// Must be called inside a runtime. Errors: `Io`.
    pub async fn neighbours(&self) -> Result<Neighbours, NetworkError> {
        let bridge = bridge::seen(&self.links, &self.config.bridge).await?;
        let listening = Neighbours::at(bridge);
        listening.map_err(|source| NetworkError::Io {
            what: format!("listening at {}", self.config.bridge),
            source,
        })
    }

    /// Makes sure that nobody on the nodes' network has an address of these interfaces. Tenants'
    /// networks have no other machines.
    ///
    /// Errors: `Taken`; `Io`.
    pub async fn must_be_free(&self, interfaces: &[Interface]) -> Result<(), NetworkError> {
        for interface in interfaces.iter().filter(|interface| interface.overlay.is_none()) {
            let asked = self.neighbours().await?.other_holder(interface).await;
            let other = asked.map_err(|source| NetworkError::Io {
                what: "asking who has the container's address".into(),
                source,
            })?;
            if let Some(other) = other {
                return Err(other.into());
            }
        }
        Ok(())
    }

    /// Makes ready to keep what comes for the container between its cut and its next announcement.
    ///
    /// Must be called inside a runtime. Errors: `NoLink` without its bridge, `Io`. Cancel-safe.
    pub async fn strays(
        &self,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<Strays, NetworkError> {
        let mut ends = Vec::new();
        for (ordinal, interface) in interfaces.iter().enumerate() {
            let bridge = bridge::seen(&self.links, &self.bridge_of(interface)).await?;
            ends.push((naming::host_end(id, ordinal), bridge));
        }
        Strays::open(interfaces, ends, hold::HOLD_BYTES)
    }

    async fn filters(id: ContainerId) -> Result<Exchange, NetworkError> {
        let opened = port::filters(&Self::path(id)).await;
        opened.map_err(failed_at("opening a netfilter socket in", id))
    }

    /// Takes the container off the bridge: nothing reaches it, nothing leaves. Cut already, or
    /// no network at all, is success.
    pub async fn cut(&self, id: ContainerId) -> Result<(), NetworkError> {
        for ordinal in 0..MAX_INTERFACES {
            self.links.release(&naming::host_end(id, ordinal)).await?;
        }
        Ok(())
    }

    /// Removes the namespace and its veths; absent is success.
    ///
    /// The container's processes must be gone: a namespace lives while one of them does.
    pub async fn remove(&self, id: ContainerId) -> Result<(), NetworkError> {
        let host_ends: Vec<_> =
            (0..MAX_INTERFACES).map(|ordinal| naming::host_end(id, ordinal)).collect();
        rules::forget_links(&host_ends).await?;
        for host_end in &host_ends {
            self.links.delete(host_end).await?;
        }
        netns::remove(&Self::path(id)).await?;
        self.tenancy.lock().await.leave(id).await
    }
}

impl From<Holder> for NetworkError {
    fn from(Holder { ip, mac }: Holder) -> Self {
        Self::Taken { ip, mac }
    }
}

fn colons(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Allows IPv6 on an interface, whatever the node has of it, and no addresses or routes but those
/// that it is given: what a router gave it here it would not have elsewhere.
async fn prepare_ipv6(path: &Path, name: &str) -> Result<(), NetworkError> {
    let settings = [("disable_ipv6", "0"), ("accept_ra", "0"), ("addr_gen_mode", "0")];
    let of = format!("/proc/sys/net/ipv6/conf/{name}");
    let written = netns::inside(path, move || {
        settings.iter().try_for_each(|(key, value)| fs::write(format!("{of}/{key}"), value))
    });
    written.await.map_err(|source| NetworkError::Io {
        what: format!("allowing IPv6 on {name} (does this node's kernel have it?)"),
        source,
    })
}

/// What the kernel said when that was done to the container's namespace.
fn failed_at(what: &str, id: ContainerId) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Io {
        what: format!("{what} {}", Network::path(id).display()),
        source,
    }
}

/// Makes a namespace with nothing but `lo`: for the doctor, who needs no bridge.
pub(crate) async fn ensure_bare(id: ContainerId) -> Result<PathBuf, NetworkError> {
    let path = Network::path(id);
    netns::ensure(&path).await?;
    Links::inside(&path).await?.bring_up("lo").await?;
    Ok(path)
}

/// Removes what [`ensure_bare`] made; absent is success.
pub(crate) async fn remove_bare(id: ContainerId) -> Result<(), NetworkError> {
    netns::remove(&Network::path(id)).await
}

pub(crate) use netns::inside;
