//! What this node is told of the tenants' networks, and has made its kernel know of them.
//!
//! The rules come first: nothing is attached, given an address or passed on before they hold.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use godwit_proto::container::Interface;
use godwit_proto::id::ContainerId;
use godwit_proto::overlay::{Overlays, Vni};

use super::link::Links;
use super::overlay::{self, Borrowed};
use super::{NetworkError, names, naming, rules};

/// The node's part in tenants' networks.
#[derive(Debug, Default)]
pub(super) struct Tenancy {
    /// The node's end of them all.
    pub(super) underlay: Option<IpAddr>,
    /// What the controller said last, once all of it is so.
    overlays: Option<Overlays>,
    /// The containers that are here or about to be, by the agent's own word.
    joined: BTreeMap<ContainerId, Vec<Interface>>,
    /// The rules that the kernel has: the node's, and those of tunnels.
    rules: Option<String>,
    tunnels: String,
}

impl Tenancy {
    /// Makes the networks that a container's interfaces are in, where they are missing; they stay
    /// until it [leaves](Self::leave), whether or not anything is attached to them.
    pub(super) async fn join(
        &mut self,
        links: &Links,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<(), NetworkError> {
        self.joined.insert(id, interfaces.to_vec());
        if self.rules.is_none() {
            self.rule(links, &Overlays::default()).await?;
        }
        for attachment in interfaces.iter().filter_map(|interface| interface.overlay) {
            overlay::ensure(links, self.underlay, attachment.vni, attachment.mtu).await?;
        }
        Ok(())
    }

    /// Takes up a container that is here: its rules are what they should be.
    pub(super) async fn resume(
        &mut self,
        links: &Links,
        id: ContainerId,
        interfaces: &[Interface],
    ) -> Result<(), NetworkError> {
        self.joined.insert(id, interfaces.to_vec());
        protect(links, id, interfaces).await
    }

    /// A container is here no more.
    pub(super) async fn leave(&mut self, id: ContainerId) -> Result<(), NetworkError> {
        self.joined.remove(&id);
        self.rest().await
    }

    /// Makes the networks on this node what the controller says they are.
    ///
    /// Goes on where one of them fails, and returns the first error.
    pub(super) async fn follow(
        &mut self,
        links: &Links,
        names: &Path,
        overlays: &Overlays,
    ) -> Result<(), NetworkError> {
        if self.overlays.as_ref() == Some(overlays) {
            return Ok(());
        }
        self.overlays = None;
        self.rule(links, overlays).await?;
        let mut failures = Vec::new();
        let mut there = Vec::new();
        for network in &overlays.networks {
            match overlay::ensure(links, self.underlay, network.vni, network.mtu).await {
                Ok(()) => there.push(network),
                Err(error) => failures.push(error),
            }
        }
        let tunnels = rules::of_tunnels(there.iter().copied());
        if self.tunnels != tunnels {
            rules::load(&tunnels).await?;
            self.tunnels = tunnels;
        }
        let entries = links.entries().await?;
        for network in there {
            failures.extend(links.forward(network, &entries).await.err());
            failures.extend(overlay::settle(links, overlays.number, network).await.err());
        }
        let is_kept = |vni: Vni| {
            let mut joined = self.joined.values().flatten().filter_map(|it| it.overlay);
            overlays.networks.iter().any(|it| it.vni == vni) || joined.any(|it| it.vni == vni)
        };
        failures.extend(overlay::forget(links, is_kept).await.err());
        failures.extend(names::answer(names, overlays).await.err());
        if let Some(first) = failures.into_iter().next() {
            return Err(first);
        }
        self.overlays = Some(overlays.clone());
        self.rest().await
    }

    /// Looks whether all is there that was made, and puts back what is not.
    pub(super) async fn look(&mut self, links: &Links, names: &Path) -> Result<(), NetworkError> {
        if let Some(node) = &self.rules
            && !rules::are_there().await?
        {
            tracing::warn!("somebody flushed this node's rules for containers: they are put back");
            rules::load(node).await?;
            rules::load(&self.tunnels).await?;
            for (id, interfaces) in &self.joined {
                protect(links, *id, interfaces).await?;
            }
        }
        let Some(overlays) = self.overlays.clone() else { return Ok(()) };
        if self.rules.is_some() {
            // Bridges come and go.
            self.rule(links, &overlays).await?;
        }
        names::answer(names, &overlays).await
    }

    /// Loads the node's rules, where they differ, and only then lets it pass packets on.
    async fn rule(&mut self, links: &Links, overlays: &Overlays) -> Result<(), NetworkError> {
        let is_router = !overlays.ports.is_empty() || overlays.networks.iter().any(|it| it.is_exit);
        let wanted = rules::of_node(
            overlays,
            &overlay::other_bridges(links).await?,
            Borrowed::seen(is_router),
        );
        // Most that is told changes none of them.
        if self.rules.as_ref() != Some(&wanted) {
            rules::load(&wanted).await?;
            self.rules = Some(wanted);
        }
        if is_router { overlay::allow() } else { Ok(()) }
    }

    /// Where nothing is left to be protected, nothing of ours stays.
    async fn rest(&mut self) -> Result<(), NetworkError> {
        let is_told = |it: &Overlays| !it.networks.is_empty() || !it.ports.is_empty();
        if !self.joined.is_empty() || self.overlays.as_ref().is_some_and(is_told) {
            return Ok(());
        }
        overlay::give_back()?;
        rules::forget_node().await?;
        self.rules = None;
        Ok(())
    }
}

/// Has the kernel take nothing of a container but what it may send, where it is here.
async fn protect(
    links: &Links,
    id: ContainerId,
    interfaces: &[Interface],
) -> Result<(), NetworkError> {
    for (ordinal, interface) in interfaces.iter().enumerate() {
        let host_end = naming::host_end(id, ordinal);
        if links.index(&host_end).await?.is_some() {
            rules::of_port(&host_end, interface).await?;
        }
    }
    Ok(())
}
