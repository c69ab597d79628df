//! How a session reaches its broker and what it says there.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use godwit_proto::topic::Filter;

use crate::message::Publication;

/// Where a broker listens: `mqtt://host:port`, or `mqtts://host:port` for TLS; ports 1883 and 8883 if
/// none is given.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BrokerUrl {
    is_secure: bool,
    host: String,
    port: u16,
}

/// Why a text is not a broker's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a broker's address ({why}): write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS"
)]
pub struct BrokerUrlError {
    text: String,
    why: &'static str,
}

impl BrokerUrl {
    /// The host, an IPv6 address in its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True where TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The same place over TLS.
    pub fn over_tls(self) -> Self {
        Self { is_secure: true, ..self }
    }
}

impl From<std::net::SocketAddr> for BrokerUrl {
    fn from(address: std::net::SocketAddr) -> Self {
        let host = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { is_secure: false, host, port: address.port() }
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let wrong = |why| BrokerUrlError { text: text.to_owned(), why };
        let (is_secure, rest) = match (text.strip_prefix("mqtt://"), text.strip_prefix("mqtts://"))
        {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong("it needs mqtt:// or mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The last colon separates the port, unless it stands inside an IPv6 address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong("the port is not a number to 65535"))?)
            }
            _ => (rest, if is_secure { 8883 } else { 1883 }),
        };
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if bare_ipv6 {
            return Err(wrong("an IPv6 address stands in [brackets]"));
        }
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong("there is no host in it"));
        }
        Ok(Self { is_secure, host: host.to_owned(), port })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name and a password for the broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The account.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Everything a session needs to know before it connects.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker.
    pub broker: BrokerUrl,
    /// Unique among the broker's clients: a second session with it ends the first.
    pub client_id: String,
    /// The account, where the broker asks for one.
    pub credentials: Option<Credentials>,
    /// How a broker over TLS is believed, and what it is shown.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// How often the connection is probed; whole seconds, at least one. A broker that
    /// is silent for twice as long, or takes longer to accept one packet, is given up.
    pub keep_alive: Duration,
    /// What the broker says when this session is lost without a goodbye.
    pub will: Option<Publication>,
    /// Said anew on every connection, because a broker may forget what it retained.
    pub births: Vec<Publication>,
    /// Subscribed anew on every connection, before the births are said.
    pub subscriptions: Vec<Filter>,
    /// The largest MQTT packet, both ways. A larger publication is refused; a larger
    /// delivery ends the connection.
    pub max_packet_bytes: usize,
    /// How many deliveries wait for their reader before the socket is left unread.
    pub inbox_capacity: usize,
    /// Outbound control messages: this many bytes may wait or be unacknowledged.
    pub control_budget_bytes: usize,
    /// The same for chunks.
    pub bulk_budget_bytes: usize,
    /// How long a clean farewell may take.
    pub close_deadline: Duration,
}

impl Config {
    /// A session of `client_id` with `broker` that says and hears nothing yet.
    pub fn new(broker: BrokerUrl, client_id: impl Into<String>) -> Self {
        Self {
            broker,
            client_id: client_id.into(),
            credentials: None,
            tls: None,
            keep_alive: Duration::from_secs(10),
            will: None,
            births: Vec::new(),
            subscriptions: Vec::new(),
            max_packet_bytes: 1 << 20,
            inbox_capacity: 64,
            control_budget_bytes: 2 << 20,
            bulk_budget_bytes: 4 << 20,
            close_deadline: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_is_written_in_full() {
        for (text, printed) in [
            ("mqtt://hub", "mqtt://hub:1883"),
            ("mqtt://hub:1/", "mqtt://hub:1"),
            ("mqtts://hub", "mqtts://hub:8883"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
            ("mqtt://[fe80::1]", "mqtt://[fe80::1]:1883"),
        ] {
            assert_eq!(text.parse::<BrokerUrl>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_reason() {
        for text in ["hub:1883", "ws://hub", "mqtt://", "mqtt://:1", "mqtt://hub:x", "mqtt://::1"] {
            assert!(text.parse::<BrokerUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let account = Credentials { username: "edge-a".into(), password: "hunter2".into() };
        assert!(!format!("{account:?}").contains("hunter2"));
    }
}
