//! Addresses for containers: their own for as long as they exist, wherever they run.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use godwit_proto::container::Interface;
use ipnet::{Ipv4Net, Ipv6Net};

/// A range of addresses, with the network that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    range: Range,
    network_prefix: u8,
    gateway: Option<Ipv4Addr>,
    six: Option<Six>,
}

/// The network's addresses of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Six {
    network: Ipv6Net,
    gateway: Option<Ipv6Addr>,
}

/// `10.77.1.0/24`: an aligned range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    prefix: u8,
}

/// Why there is no such pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not an address range.
    #[error("`{0}` is not a range of addresses: write 10.77.1.0/24, from /16 to /30")]
    Range(String),
    /// The network is smaller than the range.
    #[error("a network of /{network} does not hold a pool of /{pool}: give it a shorter prefix")]
    Network {
        /// The network's prefix.
        network: u8,
        /// The pool's.
        pool: u8,
    },
    /// No room behind the prefix.
    #[error("`{0}` has no room for an IPv4 address behind its prefix: make that /96 or shorter")]
    Narrow(Ipv6Net),
}

impl FromStr for Range {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let wrong = || PoolError::Range(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let range = Self { first: address.to_bits(), prefix };
        // Anything larger than /16 is a slip; smaller than /30 holds nothing.
        if !(16..=30).contains(&prefix) || !range.first.is_multiple_of(range.size()) {
            return Err(wrong());
        }
        Ok(range)
    }
}

impl Range {
    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }
}

impl Pool {
    /// The range `text` within a network of that prefix, with its default route.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn new(
        text: &str,
        network_prefix: u8,
        gateway: Option<Ipv4Addr>,
    ) -> Result<Self, PoolError> {
        let range: Range = text.parse()?;
        if network_prefix > range.prefix || network_prefix == 0 {
            return Err(PoolError::Network { network: network_prefix, pool: range.prefix });
        }
        Ok(Self { range, network_prefix, gateway, six: None })
    }

    /// The same with an address of that IPv6 network for each container as well.
    ///
    /// # Errors
    /// [`PoolError::Narrow`].
    pub fn with_ipv6(self, network: Ipv6Net, gateway: Option<Ipv6Addr>) -> Result<Self, PoolError> {
        if network.prefix_len() > 96 {
            return Err(PoolError::Narrow(network));
        }
        Ok(Self { six: Some(Six { network: network.trunc(), gateway }), ..self })
    }

    /// True when it lies in the network that the pool is for, or the other way round.
    pub fn overlaps(&self, network: Ipv4Net) -> bool {
        let first = Ipv4Addr::from_bits(self.range.first);
        let own = Ipv4Net::new(first, self.network_prefix).map(|own| own.trunc());
        own.is_ok_and(|own| own.contains(&network) || network.contains(&own))
    }

    /// An interface with the lowest address that is not in `used`; `None` when all are.
    ///
    /// The first and the last address of the range are never given: in a network of its
    /// own they are the network's and broadcast. The MAC and the IPv6 address follow from the
    /// IPv4 address, so that they are as unique.
    pub fn free(&self, used: impl IntoIterator<Item = Ipv4Addr>) -> Option<Interface> {
        let used: std::collections::BTreeSet<_> =
            used.into_iter().chain(self.gateway).map(Ipv4Addr::to_bits).collect();
        let last = self.range.first + (self.range.size() - 1);
        let free = (self.range.first + 1..last).find(|bits| !used.contains(bits))?;
        let ip = Ipv4Addr::from_bits(free);
        let [a, b, c, d] = ip.octets();
        // 02: locally administered, so no vendor's.
        let mac = [0x02, b'g', a, b, c, d];
        let four = Ipv4Net::new(ip, self.network_prefix).ok()?;
        let mut addresses = vec![four.into()];
        if let Some(Six { network, .. }) = self.six {
            let ip = Ipv6Addr::from_bits(network.addr().to_bits() | u128::from(free));
            addresses.push(Ipv6Net::new(ip, network.prefix_len()).ok()?.into());
        }
        let six = self.six.and_then(|six| six.gateway).map(IpAddr::from);
        let gateways = self.gateway.map(IpAddr::from).into_iter().chain(six).collect();
        Some(Interface { mac, addresses, gateways, overlay: None })
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.range.first), self.range.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_address_is_given() {
        let pool = Pool::new("10.77.1.0/29", 16, Some([10, 77, 1, 1].into())).unwrap();
        let mut used: Vec<Ipv4Addr> = Vec::new();
        let mut macs = std::collections::BTreeSet::new();
        while let Some(interface) = pool.free(used.iter().copied()) {
            assert!(macs.insert(interface.mac));
            let [ipnet::IpNet::V4(address)] = interface.addresses[..] else { panic!("one") };
            assert_eq!(address.prefix_len(), 16);
            used.push(address.addr());
        }
        let last: Vec<u8> = used.iter().map(|ip| ip.octets()[3]).collect();
        assert_eq!(last, [2, 3, 4, 5, 6], "neither the ends nor the gateway");
        used.remove(1);
        let again = pool.free(used).unwrap();
        assert_eq!(again.addresses, ["10.77.1.3/16".parse().unwrap()]);
    }

    #[test]
    fn an_address_of_either_family_is_given_where_the_network_has_both() {
        let gateway = Some("fd77::1".parse().unwrap());
        let pool = Pool::new("10.77.1.0/24", 16, None).unwrap();
        let both = pool.with_ipv6("fd77::/64".parse().unwrap(), gateway).unwrap();
        let interface = both.free([]).unwrap();
        let addresses = ["10.77.1.1/16", "fd77::a4d:101/64"].map(|text| text.parse().unwrap());
        assert_eq!(interface.addresses, addresses);
        assert_eq!(interface.gateways, ["fd77::1".parse::<IpAddr>().unwrap()]);
        let narrow = "fd77::/112".parse().unwrap();
        assert_eq!(pool.with_ipv6(narrow, None), Err(PoolError::Narrow(narrow)));
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        for bad in ["10.77.1.0", "10.77.1.1/24", "10.77.0.0/8", "10.77.1.0/31", "x/24", "1.2.3.0/z"]
        {
            assert!(matches!(Pool::new(bad, 8, None), Err(PoolError::Range(_))), "{bad}");
        }
        let narrow = Pool::new("10.77.0.0/16", 24, None);
        assert_eq!(narrow, Err(PoolError::Network { network: 24, pool: 16 }));
        Pool::new("10.255.255.0/24", 24, None).unwrap();
    }
}
