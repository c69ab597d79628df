//! Gratuitous ARP: bridges and neighbours learn at once where an address is now.

#![expect(unsafe_code, reason = "an AF_PACKET address has no safe form")]

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use godwit_proto::container::Address;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{NetworkError, netns};

/// Sent this often, for a frame may be lost.
const TIMES: usize = 2;

/// Announces the address from inside its namespace, on the link `name`.
pub(super) async fn gratuitous_arp(
    path: &Path,
    name: &'static str,
    address: &Address,
) -> Result<(), NetworkError> {
    let frame = frame(address);
    let sent = netns::inside(path, move || {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        let to = link_address(nix::net::if_::if_nametoindex(name)?);
        for _ in 0..TIMES {
            send_to(&socket, &frame, &to)?;
        }
        Ok(())
    });
    sent.await.map_err(|source| NetworkError::Io {
        what: format!("announcing {} from {}", address.ip, path.display()),
        source,
    })
}

/// An ARP request for the address by itself: everyone who hears it updates what they know.
fn frame(address: &Address) -> Vec<u8> {
    let (mac, ip) = (address.mac, address.ip.octets());
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06]); // ARP
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]); // Ethernet, IPv4, request
    frame.extend(mac);
    frame.extend(ip);
    frame.extend([0; 6]);
    frame.extend(ip);
    frame
}

fn link_address(index: u32) -> libc::sockaddr_ll {
    // SAFETY: all bytes zero is a valid sockaddr_ll: it holds numbers only.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index.cast_signed();
    to.sll_halen = 6;
    to.sll_addr[..6].fill(0xff);
    to
}

fn send_to(socket: &impl AsRawFd, frame: &[u8], to: &libc::sockaddr_ll) -> io::Result<()> {
    // SAFETY: both pointers come from references that live through the call, with their
    // lengths; the kernel copies from them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_asks_everyone_for_its_own_address() {
        let address = Address {
            ip: [10, 77, 1, 5].into(),
            prefix: 16,
            mac: [2, 0, 0, 0, 0, 5],
            gateway: None,
        };
        let frame = frame(&address);
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 5, 8, 6]);
        assert_eq!(frame[28..32], frame[38..42], "sender and target are the same address");
    }
}
