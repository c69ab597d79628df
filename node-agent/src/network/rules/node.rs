//! What a node takes from containers and for them.

use std::fmt::Write as _;
use std::net::IpAddr;

use godwit_proto::overlay::{self, Entry, Overlay, Overlays, STATIONS, Vni};
use ipnet::IpNet;

use super::super::overlay::{Borrowed, PORT, bridge_name};
use super::anew;

pub(super) const TABLE: &str = "godwit";

/// The node's table.
pub(super) fn rules(overlays: &Overlays, bridges: &[String], borrowed: Borrowed) -> String {
    let networks = &overlays.networks;
    let chains = [
        set("nodes", overlays.nodes.iter().copied().map(IpNet::from)),
        set("inner", inner(networks)),
        input(networks),
        forward(networks, bridges, borrowed),
        entries("prerouting", &overlays.ports),
        entries("output", &overlays.ports),
        leaving(overlays),
    ];
    anew("inet", TABLE, &chains.concat())
}

/// A set of each family: NAME4 and NAME6.
fn set(name: &str, nets: impl Iterator<Item = IpNet>) -> String {
    let (four, six): (Vec<_>, Vec<_>) = nets.partition(|net| net.addr().is_ipv4());
    let set = |(version, nets): (u8, Vec<IpNet>)| {
        let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
        let elements = match &nets[..] {
            [] => String::new(),
            some => format!("elements = {{ {} }}", some.join(", ")),
        };
        format!("set {name}{version} {{ type ipv{version}_addr; flags interval; {elements}\n}}\n")
    };
    [(4, four), (6, six)].map(set).concat()
}

/// The addresses in networks: the containers' and the nodes' own.
fn inner(networks: &[Overlay]) -> impl Iterator<Item = IpNet> {
    let subnets = networks.iter().flat_map(|network| &network.subnets);
    subnets.map(IpNet::trunc).chain([STATIONS.into()])
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
    let mut outside = String::new();
    for network in networks.iter().filter(|network| network.is_exit) {
        let bridge = bridge_name(network.vni);
        for inner in ["ip daddr != @inner4", "ip6 daddr != @inner6"] {
            let _ = writeln!(outside, "iifname \"{bridge}\" fib daddr type local {inner} accept");
        }
    }
    // By the number in VXLAN's header, behind UDP's eight bytes and four of its own: other VXLAN of
    // the site is left alone.
    let ours = format!("udp dport {PORT} @th,96,24 {:#x}-{:#x}", Vni::FIRST.0, Vni::LAST.0);
    format!(
        "chain tenant {{\n\
         ct state established,related accept\n\
         icmp type echo-request accept\n\
         icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert }} accept\n\
         {outside}drop\n}}\n\
         chain input {{ type filter hook input priority -10; policy accept;\n\
         {ours} ip saddr != @nodes4 drop\n\
         {ours} ip6 saddr != @nodes6 drop\n\
         {tenants}}}\n"
    )
}

/// Nothing passes from network to network, nor out but through an exit, nor in but by an entry.
fn forward(networks: &[Overlay], bridges: &[String], borrowed: Borrowed) -> String {
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
    for bridge in bridges {
        // Within the owner's bridges too, where bridged frames come by here.
        let _ = writeln!(rules, "iifname \"{bridge}\" oifname \"{bridge}\" accept");
    }
    for family in borrowed.families() {
        let _ = writeln!(
            rules,
            "meta nfproto {family} iifname != \"gn*\" oifname != \"gn*\" ct status & dnat == 0 drop"
        );
    }
    format!("chain forward {{ type filter hook forward priority -10; policy accept;\n{rules}}}\n")
}

/// Published ports lead to their containers, from elsewhere and from the node itself.
fn entries(hook: &str, ports: &[Entry]) -> String {
    // What is said within networks, and to the node itself from itself, is nobody else's.
    let mut rules = format!(
        "ip daddr @inner4 return\nip6 daddr @inner6 return\nip daddr 127.0.0.0/8 return\n\
         ip6 daddr ::1 return\nudp dport {PORT} return\n"
    );
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
    // Where bridged frames pass iptables, other nodes' come by here.
    let mut rules = format!("ip saddr {STATIONS} return\n");
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
            let subnet = subnet.trunc();
            // The last: a container that comes back by a published port of its network's exit.
            let back = format!("{subnet} ct status dnat ct direction original");
            for from in [format!("!= {subnet}"), resolver.to_string(), back] {
                let _ = writeln!(
                    rules,
                    "oifname \"{bridge}\" {family} saddr {from} snat {family} to {station}"
                );
            }
            if network.is_exit {
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
