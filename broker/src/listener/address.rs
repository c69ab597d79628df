//! Where to listen: what a person writes, and what the kernel made of it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// A place to listen as it is configured.
///
/// What has a `/` in it is the path of a Unix socket; everything else is `host:port`,
/// with IPv6 addresses in brackets. Port 0 takes a free one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// A host, by address or by name, and a port.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no [`Address`].
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no address: write host:port, [IPv6]:port or the path of a Unix socket")]
pub struct AddressError(String);

/// A place where a listener really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundAddress {
    /// An address with its real port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl BoundAddress {
    /// The address and port, unless it is a path.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let is_named = || {
            text.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains([':', '[', ']']) && port.parse::<u16>().is_ok()
            })
        };
        if text.parse::<SocketAddr>().is_ok() || is_named() {
            return Ok(Self::Tcp(text.to_owned()));
        }
        Err(AddressError(text.to_owned()))
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths_are_told_apart() {
        for text in ["127.0.0.1:1883", "[::1]:0", "[fe80::1%2]:1883", "broker.local:1883"] {
            assert_eq!(text.parse::<Address>().unwrap(), Address::Tcp(text.to_owned()));
        }
        for text in ["/run/broker.sock", "./b:1"] {
            assert_eq!(text.parse::<Address>().unwrap(), Address::Unix(text.into()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_that_are() {
        for text in ["", "1883", ":1883", "broker", "broker:port", "::1:1883", "b:70000"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("host:port"), "{text}: {error}");
        }
    }
}
