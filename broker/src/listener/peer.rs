//! Who is at the other end of a stream, and which way it came.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Deserialize;

use super::identity::identity_of;

/// The ways to carry MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// MQTT and nothing below it.
    Mqtt,
    /// MQTT in TLS.
    Tls,
    /// MQTT in WebSocket.
    #[serde(rename = "websocket")]
    WebSocket,
    /// MQTT in WebSocket in TLS.
    #[serde(rename = "secure-websocket")]
    SecureWebSocket,
}

/// The other end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: PeerAddress,
    /// How it speaks.
    pub transport: Transport,
    /// Its certificate in DER, which TLS has verified.
    pub certificate: Option<Vec<u8>>,
}

impl Peer {
    /// Who its certificate says it is; see [`identity_of`].
    pub fn identity(&self) -> Option<String> {
        self.certificate.as_deref().and_then(identity_of)
    }
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// Across a network.
    Tcp(SocketAddr),
    /// On this machine, behind a Unix socket: the kernel vouches for it.
    Unix {
        /// The user it ran as when it connected.
        uid: u32,
        /// Its process when it connected, unless hidden from us.
        pid: Option<i32>,
    },
}

impl PeerAddress {
    /// Where rates and failures are counted; processes of this machine count as one.
    pub(crate) fn ip(&self) -> IpAddr {
        match self {
            Self::Tcp(address) => address.ip(),
            Self::Unix { .. } => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl Transport {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Mqtt, Self::Tls, Self::WebSocket, Self::SecureWebSocket];

    /// As it is written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
            Self::SecureWebSocket => "secure-websocket",
        }
    }

    /// Does it need a certificate?
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::SecureWebSocket)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid, pid: Some(pid) } => write!(f, "process {pid} of user {uid}"),
            Self::Unix { uid, pid: None } => write!(f, "a process of user {uid}"),
        }
    }
}
