//! What a listener may be told: where to listen, for whom, and its limits.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::address::{Address, AddressError};
use super::peer::Transport;

/// The settings of all listeners; by default, plain MQTT on port 1883 of IPv4.
///
/// ```toml
/// handshake-timeout-ms = 5000
/// listen = [
///     { address = "0.0.0.0:1883", accept = ["mqtt", "websocket"] },
///     { address = "[::]:8883", accept = ["tls", "secure-websocket"] },
///     { address = "/run/godwit/broker.sock", accept = ["mqtt"] },
/// ]
/// tls = { certificate = "broker.pem", key = "broker.key", clients = { authorities = "ca.pem" } }
/// websocket = { path = "/mqtt" }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Endpoint>,
    /// How long a client may take from connecting until it is known what it speaks, and
    /// its TLS and WebSocket handshakes are done.
    pub handshake_timeout_ms: u64,
    /// The certificate for every endpoint that accepts TLS.
    pub tls: Option<TlsConfig>,
    /// What holds for WebSocket, secure or not.
    pub websocket: WebSocketConfig,
}

/// One place to listen, and what is welcome there.
///
/// As a text it is the address, and what is welcome where that is not plain MQTT alone:
/// `0.0.0.0:1883`, `[::]:8883=tls+secure-websocket`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct Endpoint {
    /// `host:port`, or the path of a Unix socket.
    pub address: Address,
    /// The transports that share the address, told apart by their first bytes.
    pub accept: BTreeSet<Transport>,
}

/// An endpoint as it may be written in a file.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "an endpoint is a text such as `0.0.0.0:8883=tls`, or a table \
    with `address` and `accept` (mqtt, tls, websocket, secure-websocket), and nothing else"
)]
enum Written {
    Short(Short),
    Long(Long),
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Short(Endpoint);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Long {
    address: Address,
    accept: BTreeSet<Transport>,
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Its address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// What should be welcome.
    #[error("`{0}` is no transport: name mqtt, tls, websocket or secure-websocket, with + between")]
    Transport(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (address, transports) = text.split_once('=').unwrap_or((text, "mqtt"));
        let transport = |name: &str| {
            Transport::ALL
                .into_iter()
                .find(|transport| transport.name() == name)
                .ok_or_else(|| EndpointError::Transport(name.to_owned()))
        };
        let accept = transports.split('+').map(transport).collect::<Result<_, _>>()?;
        Ok(Self { address: address.parse()?, accept })
    }
}

impl From<SocketAddr> for Endpoint {
    /// Plain MQTT there.
    fn from(address: SocketAddr) -> Self {
        let accept = BTreeSet::from([Transport::Mqtt]);
        Self { address: Address::Tcp(address.to_string()), accept }
    }
}

impl TryFrom<String> for Short {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse().map(Self)
    }
}

impl From<Written> for Endpoint {
    fn from(written: Written) -> Self {
        match written {
            Written::Short(Short(endpoint)) => endpoint,
            Written::Long(Long { address, accept }) => Self { address, accept },
        }
    }
}

/// Where the certificate is, and whether clients need one. All files are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsConfig {
    /// The broker's certificate, followed by the rest of its chain.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// Ask clients for certificates; by default, nobody is asked.
    pub clients: Option<Clients>,
}

/// Which client certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clients {
    /// The certificates of the authorities that vouch for clients.
    pub authorities: PathBuf,
    /// Refuse clients without a certificate. A wrong one is always refused.
    #[serde(default)]
    pub required: bool,
}

/// What WebSocket clients must know and keep to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WebSocketConfig {
    /// The path to ask for, besides `/`; every other one is answered with 404.
    pub path: String,
    /// The largest message that a client may send, in one frame or several. MQTT packets
    /// may be larger: they may span messages.
    pub max_message_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![Endpoint {
                address: Address::Tcp("0.0.0.0:1883".to_owned()),
                accept: BTreeSet::from([Transport::Mqtt]),
            }],
            handshake_timeout_ms: 5_000,
            tls: None,
            websocket: WebSocketConfig::default(),
        }
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { path: "/mqtt".to_owned(), max_message_bytes: 4 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_says_what_it_seems_to_say() {
        let config: Config = toml::from_str(
            r#"
            listen = [
                { address = "0.0.0.0:1883", accept = ["mqtt", "websocket"] },
                { address = "[::]:8883", accept = ["tls", "secure-websocket"] },
                { address = "/run/godwit/broker.sock", accept = ["mqtt"] },
            ]
            tls = { certificate = "broker.pem", key = "broker.key", clients = { authorities = "ca.pem" } }
            websocket = { path = "/bus" }
            "#,
        )
        .unwrap();
        let accepted: Vec<Vec<_>> = config
            .listen
            .iter()
            .map(|endpoint| endpoint.accept.iter().copied().collect())
            .collect();
        assert_eq!(accepted[0], [Transport::Mqtt, Transport::WebSocket]);
        assert_eq!(accepted[1], [Transport::Tls, Transport::SecureWebSocket]);
        assert_eq!(config.listen[2].address, Address::Unix("/run/godwit/broker.sock".into()));
        let clients = config.tls.unwrap().clients.unwrap();
        assert_eq!(clients, Clients { authorities: "ca.pem".into(), required: false });
        assert_eq!(config.websocket.path, "/bus");
        assert_eq!(
            config.websocket.max_message_bytes,
            WebSocketConfig::default().max_message_bytes
        );
        assert_eq!(config.handshake_timeout_ms, 5_000);
    }

    #[test]
    fn an_endpoint_can_be_written_short() {
        let config: Config =
            toml::from_str("listen = ['0.0.0.0:1883', '[::]:8883=tls+secure-websocket']").unwrap();
        assert_eq!(config.listen[0], Config::default().listen[0]);
        let accept = BTreeSet::from([Transport::Tls, Transport::SecureWebSocket]);
        assert_eq!(config.listen[1].accept, accept);
        for (text, word) in [("localhost", "localhost"), ("[::]:1=mqtt+mqtts", "mqtts")] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{word}`")), "{text}: {error}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        for (text, word) in [
            ("handshake-timeout = 3", "handshake-timeout"),
            ("listen = [{ address = '[::]:1', accept = ['mqtts'] }]", "accept"),
            ("listen = [{ address = '[::]:1', acept = ['mqtt'] }]", "accept"),
            ("tls = { certificate = 'a', key = 'b', ca = 'c' }", "ca"),
            ("websocket = { max-frame = 1 }", "max-frame"),
        ] {
            let error = toml::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{word}`")), "{text}: {error}");
        }
    }
}
