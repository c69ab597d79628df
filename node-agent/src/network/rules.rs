//! Rules of nftables: what a container may send, what a node takes and passes on.
//!
//! Each set of rules is a table of ours, replaced as a whole in one transaction by `nft`;
//! connections that are tracked go on as they are. Nobody else's tables are touched.

mod node;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::process::Stdio;
use std::time::Duration;

use godwit_proto::container::Interface;
use godwit_proto::overlay::{self, Overlay, Overlays};
use ipnet::IpNet;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::NetworkError;
use super::overlay::{Borrowed, tunnel_name};

/// How long nft may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has a container's port take nothing but what the container may send: frames from its own
/// hardware address, and under its own addresses.
pub(super) async fn of_port(host_end: &str, interface: &Interface) -> Result<(), NetworkError> {
    load(&port(host_end, interface)).await
}

/// Forgets the rules of ports or tunnels; without any is success.
pub(super) async fn forget_links(links: &[String]) -> Result<(), NetworkError> {
    load(&links.iter().map(|link| gone("netdev", link)).collect::<String>()).await
}

/// True while the node has the rules that it was given last: whoever flushes rules, flushes all.
pub(super) async fn are_there() -> Result<bool, NetworkError> {
    match load(&format!("list table inet {}\n", node::TABLE)).await {
        Ok(()) => Ok(true),
        Err(NetworkError::Rules { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Forgets the rules of the node; without any is success.
pub(super) async fn forget_node() -> Result<(), NetworkError> {
    load(&gone("inet", node::TABLE)).await
}

/// The rules by which the node takes VXLAN from nodes alone, answers its containers, and is an entry
/// and an exit; to be [loaded](load) before any of that is there.
///
/// `bridges` are the node's other bridges.
pub(super) fn of_node(overlays: &Overlays, bridges: &[String], borrowed: Borrowed) -> String {
    node::rules(overlays, bridges, borrowed)
}

/// The rules by which the node keeps resolvers' addresses to itself; the tunnels must be there.
pub(super) fn of_tunnels<'a>(networks: impl Iterator<Item = &'a Overlay>) -> String {
    networks.map(|network| resolver_stays(&tunnel_name(network.vni), &network.subnets)).collect()
}

/// Lets nobody behind the tunnel see the resolvers' addresses, which every node has.
fn resolver_stays(tunnel: &str, subnets: &[IpNet]) -> String {
    let rules = subnets.iter().map(|subnet| match overlay::resolver(*subnet) {
        IpAddr::V4(ip) => format!("arp saddr ip {ip} drop\narp daddr ip {ip} drop\n"),
        IpAddr::V6(ip) => format!(
            "icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} {} drop\n",
            target_is("==", &[ip])
        ),
    });
    let rules: String = rules.collect();
    let chain = format!(
        "chain out {{ type filter hook egress device \"{tunnel}\" priority 0; policy accept;\n{rules}}}"
    );
    anew("netdev", tunnel, &chain)
}

fn port(host_end: &str, interface: &Interface) -> String {
    let mac = shown_mac(interface.mac);
    let ips = interface.addresses.iter().map(IpNet::addr);
    let (four, mut six) = (listed(ips.clone().filter(IpAddr::is_ipv4)), Vec::new());
    six.extend(ips.filter_map(|ip| match ip {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => None,
    }));
    let mut rules = format!("ether saddr != {mac} drop\n");
    if !four.is_empty() {
        // Who asks whether an address is free has none yet.
        let _ = write!(
            rules,
            "ether type arp arp saddr ether {mac} arp saddr ip {{ 0.0.0.0, {four} }} accept\n\
             ether type ip ip saddr {{ {four} }} accept\n"
        );
    }
    if !six.is_empty() {
        six.push(link_local(interface.mac));
        let addresses = listed(six.iter().copied().map(IpAddr::from));
        let _ = write!(
            rules,
            "icmpv6 type {{ nd-router-advert, nd-redirect }} drop\n\
             icmpv6 type nd-neighbor-advert {} drop\n\
             ether type ip6 ip6 saddr {{ ::, {addresses} }} accept\n",
            target_is("!=", &six)
        );
    }
    let chain = format!(
        "chain in {{ type filter hook ingress device \"{host_end}\" priority 0; policy drop;\n{rules}}}"
    );
    anew("netdev", host_end, &chain)
}

/// What a neighbour's message is about: sixteen bytes behind the first eight of ICMPv6, which older
/// versions of nft have no name for.
fn target_is(operator: &str, addresses: &[Ipv6Addr]) -> String {
    let all: Vec<_> = addresses.iter().map(|ip| format!("0x{:032x}", ip.to_bits())).collect();
    format!("@th,64,128 {operator} {{ {} }}", all.join(", "))
}

/// The address that Linux gives a link by itself (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

fn shown_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn listed(ips: impl Iterator<Item = IpAddr>) -> String {
    ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(", ")
}

/// A table that is replaced by this one.
fn anew(family: &str, table: &str, chains: &str) -> String {
    format!("{}table {family} {table} {{\n{chains}\n}}\n", gone(family, table))
}

/// A table that is removed, whether it is there or not.
fn gone(family: &str, table: &str) -> String {
    format!("table {family} {table}\ndelete table {family} {table}\n")
}

/// Has nft carry them out, all or none.
pub(super) async fn load(rules: &str) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Io {
        what: "running nft (is the package nftables installed?)".into(),
        source,
    };
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes()).await.map_err(failed)?;
    }
    let ended = tokio::time::timeout(PATIENCE, nft.wait_with_output()).await;
    let ended = ended.map_err(|late| failed(late.into()))?.map_err(failed)?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    Err(NetworkError::Rules { said })
}
