//! Gratuitous ARP: bridges and neighbours learn at once where an address is now.

use godwit_proto::container::Address;

/// An ARP request for the address by itself: everyone who hears it updates what they know.
pub(super) fn gratuitous_arp(address: &Address) -> Vec<u8> {
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
        let frame = gratuitous_arp(&address);
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 5, 8, 6]);
        assert_eq!(frame[28..32], frame[38..42], "sender and target are the same address");
    }
}
