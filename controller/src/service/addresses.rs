//! Addresses for containers: one each, for as long as it exists, wherever it runs.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use godwit_proto::container::Address;

/// A range of addresses, with the network that it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    range: Range,
    network_prefix: u8,
    gateway: Option<Ipv4Addr>,
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
        Ok(Self { range, network_prefix, gateway })
    }

    /// The lowest address that is not in `used`; `None` when all are.
    ///
    /// The first and the last address of the range are never given: in a network of its
    /// own they are the network's and broadcast. The MAC follows from the IP, so that it is
    /// as unique.
    pub fn free(&self, used: impl IntoIterator<Item = Ipv4Addr>) -> Option<Address> {
        let used: std::collections::BTreeSet<_> =
            used.into_iter().chain(self.gateway).map(Ipv4Addr::to_bits).collect();
        let last = self.range.first + (self.range.size() - 1);
        let free = (self.range.first + 1..last).find(|bits| !used.contains(bits))?;
        let ip = Ipv4Addr::from_bits(free);
        let [a, b, c, d] = ip.octets();
        // 02: locally administered, so no vendor's.
        let mac = [0x02, b'g', a, b, c, d];
        Some(Address { ip, prefix: self.network_prefix, mac, gateway: self.gateway })
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
        while let Some(address) = pool.free(used.iter().copied()) {
            assert_eq!(address.prefix, 16);
            assert!(macs.insert(address.mac));
            used.push(address.ip);
        }
        let last: Vec<u8> = used.iter().map(|ip| ip.octets()[3]).collect();
        assert_eq!(last, [2, 3, 4, 5, 6], "neither the ends nor the gateway");
        used.remove(1);
        assert_eq!(pool.free(used).unwrap().ip, Ipv4Addr::new(10, 77, 1, 3));
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
