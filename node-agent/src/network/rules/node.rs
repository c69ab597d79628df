//! What a node takes from containers and for them.

use std::fmt::Write as _;
use std::net::IpAddr;

use godwit_proto::overlay::{self, Entry, Overlay, Overlays, STATIONS};
use ipnet::IpNet;

use super::super::overlay::{PORT, bridge_name};
use super::{anew, listed};

pub(super) const TABLE: &str = "godwit";

/// The node's table.
pub(super) fn rules(overlays: &Overlays, borrowed: bool) -> String {
    let networks = &overlays.networks;
    let chains = [
        set("nodes4", "ipv4_addr", overlays.nodes.iter().copied().filter(IpAddr::is_ipv4)),
        set("nodes6", "ipv6_addr", overlays.nodes.iter().copied().filter(IpAddr::is_ipv6)),
        input(networks),
        forward(networks, borrowed),
        entries("prerouting", &overlays.ports),
        entries("output", &overlays.ports),
        leaving(overlays),
    ];
    anew("inet", TABLE, &chains.concat())
}

fn set(name: &str, kind: &str, elements: impl Iterator<Item = IpAddr>) -> String {
    let elements = match listed(elements) {
        none if none.is_empty() => none,
        some => format!("elements = {{ {some} }}"),
    };
    format!("set {name} {{ type {kind}; {elements}\n}}\n")
}

/// VXLAN comes from nodes; containers may ask their node for names, and whether it is there.
fn input(networks: &[Overlay]) -> String {
    let mut tenants = String::new();
    for network in networks {
        let bridge = bridge_name(network.vni);
        for subnet in &network.subnets {
            let resolver = overlay::resolver(*subnet);
            let family = if resolver.is_ipv4() { "ip" } else { "ip6" };
            let asks = "meta l4proto { tcp, udp } th dport 53";
            let _ =
                writeln!(tenants, "iifname \"{bridge}\" {family} daddr {resolver} {asks} accept");
        }
    }
    tenants.push_str("iifname \"gn*\" jump tenant\n");
    // Of an exit they may have what any host outside may, and of no network that they are not in.
    let inner = networks.iter().flat_map(|network| &network.subnets).map(IpNet::trunc);
    let (four, six): (Vec<_>, Vec<_>) =
        inner.chain([STATIONS.into()]).partition(|net| net.addr().is_ipv4());
    let mut outside = String::new();
    for network in networks.iter().filter(|network| network.is_exit) {
        let bridge = bridge_name(network.vni);
        for (family, inner) in [("ip", &four), ("ip6", &six)] {
            let inner: Vec<_> = inner.iter().map(ToString::to_string).collect();
            if !inner.is_empty() {
                let inner = inner.join(", ");
                let _ = writeln!(
                    outside,
                    "iifname \"{bridge}\" fib daddr type local {family} daddr != {{ {inner} }} accept"
                );
            }
        }
    }
    format!(
        "chain tenant {{\n\
         ct state established,related accept\n\
         icmp type echo-request accept\n\
         icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert }} accept\n\
         {outside}drop\n}}\n\
         chain input {{ type filter hook input priority -10; policy accept;\n\
         udp dport {PORT} ip saddr != @nodes4 drop\n\
         udp dport {PORT} ip6 saddr != @nodes6 drop\n\
         {tenants}}}\n"
    )
}

/// Nothing passes from network to network, nor out but through an exit, nor in but by an entry.
fn forward(networks: &[Overlay], borrowed: bool) -> String {
    let mut rules = "ct state established,related accept\n".to_owned();
    for network in networks {
        let bridge = bridge_name(network.vni);
        // Where bridged frames pass iptables, they come by here.
        let _ = writeln!(rules, "iifname \"{bridge}\" oifname \"{bridge}\" accept");
    }
    rules.push_str("iifname \"gn*\" oifname \"gn*\" ct status & dnat == 0 drop\n");
    for network in networks.iter().filter(|network| network.is_exit) {
        let bridge = bridge_name(network.vni);
        // As VXLAN of a node's it would be believed.
        let _ = writeln!(rules, "iifname \"{bridge}\" udp dport {PORT} drop");
        let _ = writeln!(rules, "iifname \"{bridge}\" accept");
    }
    rules.push_str("iifname \"gn*\" drop\noifname \"gn*\" ct status & dnat == 0 drop\n");
    if borrowed {
        rules.push_str("iifname != \"gn*\" oifname != \"gn*\" ct status & dnat == 0 drop\n");
    }
    format!("chain forward {{ type filter hook forward priority -10; policy accept;\n{rules}}}\n")
}

/// Published ports lead to their containers, from elsewhere and from the node itself.
fn entries(hook: &str, ports: &[Entry]) -> String {
    let mut rules = String::new();
    for Entry { protocol, port, to } in ports {
        for to in to {
            let family = if to.is_ipv4() { ("ipv4", "ip") } else { ("ipv6", "ip6") };
            let _ = writeln!(
                rules,
                "meta nfproto {} fib daddr type local {protocol} dport {port} dnat {} to {to}",
                family.0, family.1
            );
        }
    }
    format!("chain {hook} {{ type nat hook {hook} priority -100; policy accept;\n{rules}}}\n")
}

/// What enters a network does so under the node's own address in it: answers come back here,
/// wherever the container is. What leaves through an exit does so under the exit's.
fn leaving(overlays: &Overlays) -> String {
    let number = overlays.number;
    let mut rules = String::new();
    let is_inner = |ip: &IpAddr| {
        overlays.networks.iter().flat_map(|network| &network.subnets).any(|net| net.contains(ip))
    };
    for Entry { protocol, to, .. } in &overlays.ports {
        for to in to.iter().filter(|to| !is_inner(&to.ip())) {
            // In the nodes' own network, under the address that the node has there.
            let (ip, port) = (to.ip(), to.port());
            let family = if ip.is_ipv4() { "ip" } else { "ip6" };
            let _ = writeln!(
                rules,
                "{family} daddr {ip} {protocol} dport {port} ct status dnat masquerade"
            );
        }
    }
    for network in &overlays.networks {
        let bridge = bridge_name(network.vni);
        for subnet in &network.subnets {
            let resolver = overlay::resolver(*subnet);
            let (family, station) = match subnet {
                IpNet::V4(_) => ("ip", IpAddr::from(overlay::station(number))),
                IpNet::V6(subnet) => ("ip6", overlay::station6(*subnet, number).into()),
            };
            for from in [format!("!= {}", subnet.trunc()), resolver.to_string()] {
                let _ = writeln!(
                    rules,
                    "oifname \"{bridge}\" {family} saddr {from} snat {family} to {station}"
                );
            }
            if network.is_exit {
                let subnet = subnet.trunc();
                let _ = writeln!(
                    rules,
                    "oifname != \"gn*\" {family} saddr {subnet} ct direction original masquerade"
                );
            }
        }
    }
    format!(
        "chain postrouting {{ type nat hook postrouting priority 100; policy accept;\n{rules}}}\n"
    )
}
