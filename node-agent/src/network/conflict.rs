//! Two machines with one address: seen before a container gets its own, and as soon as the other
//! says something to everyone.
//!
//! What is asked and heard is that of RFC 5227 (IPv4) and RFC 4862, 5.4 (IPv6), with less patience:
//! a probe there takes seconds, and whoever is on the same bridge answers within a millisecond. A
//! container on the move is no conflict: it has one hardware address, wherever it is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use godwit_proto::container::Interface;
use nix::libc::{self, sock_filter};
use tokio::io::unix::AsyncFd;

use super::announce::{ICMPV6, checksum};
use super::hold::{ADVERTISEMENT, Bridge, IF_EQUAL, LOAD_BYTE, LOAD_HALF, RETURN, jump, statement};
use super::packet::{PacketSocket, Receive};

/// How often it is asked, for a frame may be lost, and how long an answer is awaited each time.
const PROBES: usize = 2;
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer than what is read of any answer.
const ANSWER_BYTES: usize = 128;

/// Somebody who says that an address is his.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The address.
    pub ip: IpAddr,
    /// His hardware address.
    pub mac: [u8; 6],
}

/// Hears who says which addresses are his.
#[derive(Debug)]
pub struct Neighbours {
    frames: AsyncFd<PacketSocket>,
    bridge: Bridge,
}

impl Neighbours {
    /// Listens at a bridge from now on. Must be called inside a runtime.
    pub(super) fn at(bridge: Bridge) -> io::Result<Self> {
        let socket = PacketSocket::open()?;
        socket.filter(&answers())?;
        socket.bind(bridge.index, Receive::Filtered)?;
        Ok(Self { frames: socket.awaited()?, bridge })
    }

    /// The next one who says so. Cancel-safe. Errors: of the socket.
    pub async fn next(&self) -> io::Result<Holder> {
        let mut frame = [0; ANSWER_BYTES];
        loop {
            let mut ready = self.frames.readable().await?;
            match self.frames.get_ref().receive(&mut frame) {
                Ok(None) => ready.clear_ready(),
                Ok(Some(length)) => {
                    if let Some(holder) = holder(&frame[..length.min(ANSWER_BYTES)]) {
                        return Ok(holder);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks who has the interface's addresses, and answers with one who is not the interface itself.
    pub async fn other_holder(&self, interface: &Interface) -> io::Result<Option<Holder>> {
        let ips: Vec<_> = interface.addresses.iter().map(ipnet::IpNet::addr).collect();
        for _ in 0..PROBES {
            for ip in &ips {
                self.frames.get_ref().send(&probe(self.bridge.mac, *ip))?;
            }
            let other = async {
                loop {
                    let heard = self.next().await?;
                    if ips.contains(&heard.ip) && heard.mac != interface.mac {
                        return Ok::<_, io::Error>(heard);
                    }
                }
            };
            if let Ok(other) = tokio::time::timeout(PATIENCE, other).await {
                return other.map(Some);
            }
        }
        Ok(None)
    }
}

/// Asks everyone who has the address, as somebody who has none yet.
fn probe(mac: [u8; 6], ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp_probe(mac, ip),
        IpAddr::V6(ip) => solicitation(mac, ip),
    }
}

fn arp_probe(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let request = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]; // ARP: Ethernet, IPv4, request
    [&[0xff; 6][..], &mac, &request, &mac, &[0; 10], &ip.octets()].concat()
}

fn solicitation(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = ip.octets();
    let nobody = Ipv6Addr::UNSPECIFIED;
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
    let mut body = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &ip.octets()].concat();
    let sum = checksum(nobody, group.into(), &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, ICMPV6, 255];
    [&[0x33, 0x33, 0xff, a, b, c][..], &mac, &header, &nobody.octets(), &group, &body].concat()
}

/// Who says in this frame that an address is his.
fn holder(frame: &[u8]) -> Option<Holder> {
    let mac = |at: usize| frame.get(at..at + 6)?.try_into().ok();
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let ip = Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(28..32)?).ok()?);
            (!ip.is_unspecified()).then_some(Holder { ip: ip.into(), mac: mac(22)? })
        }
        [0x86, 0xdd] => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(62..78)?).ok()?);
            // Where the option with his hardware address is missing, the frame's is his.
            let at = if frame.get(78) == Some(&2) { 80 } else { 6 };
            Some(Holder { ip: ip.into(), mac: mac(at)? })
        }
        _ => None,
    }
}

/// Passes ARP, and advertisements of IPv6.
fn answers() -> [sock_filter; 9] {
    let protocol = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL).cast_unsigned();
    [
        statement(LOAD_HALF, protocol),
        jump(IF_EQUAL, libc::ETH_P_ARP.cast_unsigned(), 5, 0),
        jump(IF_EQUAL, libc::ETH_P_IPV6.cast_unsigned(), 0, 5),
        statement(LOAD_BYTE, 14 + 6),
        jump(IF_EQUAL, u32::from(ICMPV6), 0, 3),
        statement(LOAD_BYTE, 14 + 40),
        jump(IF_EQUAL, ADVERTISEMENT, 0, 1),
        statement(RETURN, u32::MAX),
        statement(RETURN, 0),
    ]
}
