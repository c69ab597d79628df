//! Announcements: bridges and neighbours learn at once where an address is now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_proto::container::Interface;
use ipnet::IpNet;

use super::link::Links;
use super::packet::{PacketSocket, Receive};
use super::{NetworkError, bridge};

/// A frame for each address of the interface: everyone who hears it updates what they know.
pub(super) fn announcements(interface: &Interface) -> Vec<Vec<u8>> {
    let ips = interface.addresses.iter().map(IpNet::addr);
    ips.map(|ip| announcement(interface.mac, ip)).collect()
}

/// Says in a bridge, and behind its ports, that these addresses are its own now.
pub(super) async fn at(links: &Links, bridge: &str, ips: &[IpAddr]) -> Result<(), NetworkError> {
    if ips.is_empty() {
        return Ok(());
    }
    let seen = bridge::seen(links, bridge).await?;
    let send = || {
        let socket = PacketSocket::open()?;
        socket.bind(seen.index, Receive::Nothing)?;
        ips.iter().try_for_each(|ip| socket.send(&announcement(seen.mac, *ip)))
    };
    send().map_err(|source| NetworkError::Io { what: format!("announcing in {bridge}"), source })
}

fn announcement(mac: [u8; 6], ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => gratuitous_arp(mac, ip),
        IpAddr::V6(ip) => unsolicited_advertisement(mac, ip),
    }
}

/// An ARP request for the address by itself.
fn gratuitous_arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06]); // ARP
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]); // Ethernet, IPv4, request
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend([0; 6]);
    frame.extend(ip.octets());
    frame
}

/// A neighbour advertisement that nobody asked for, to all nodes, in place of what they know
/// (RFC 4861, 7.2.6).
fn unsolicited_advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = Vec::with_capacity(32);
    body.extend([136, 0, 0, 0]); // neighbour advertisement; the checksum comes below
    body.extend([0x20, 0, 0, 0]); // override
    body.extend(ip.octets());
    body.extend([2, 1]); // the target's hardware address
    body.extend(mac);
    let sum = checksum(ip, ALL_NODES, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(86);
    frame.extend([0x33, 0x33, 0, 0, 0, 1]);
    frame.extend(mac);
    frame.extend([0x86, 0xdd]); // IPv6
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame.extend(ip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(body);
    frame
}

pub(super) const ICMPV6: u8 = 58;

/// The checksum of a message of ICMPv6, with its pseudo-header (RFC 8200, 8.1).
pub(super) fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let length = [0, 0, 0, body.len() as u8];
    let pseudo = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let words = pseudo.chunks(2).chain(body.chunks(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

    #[test]
    fn the_frame_asks_everyone_for_its_own_address() {
        let frame = gratuitous_arp(MAC, [10, 77, 1, 5].into());
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 5, 8, 6]);
        assert_eq!(frame[28..32], frame[38..42], "sender and target are the same address");
    }

    #[test]
    fn an_advertisement_is_to_everyone_and_its_sum_is_right() {
        let ip: Ipv6Addr = "fd77::5".parse().expect("an address");
        let frame = unsolicited_advertisement(MAC, ip);
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[54], 136);
        let to = Ipv6Addr::from(<[u8; 16]>::try_from(&frame[38..54]).expect("16 bytes"));
        assert_eq!(checksum(ip, to, &frame[54..]), 0, "the sum over the sum");
    }
}
