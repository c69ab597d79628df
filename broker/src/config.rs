//! What a broker may be told: where to listen, and its limits.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

/// A broker's settings; the defaults serve a site of a thousand nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where to listen; MQTT 3.1.1 and 5 share every port. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// How many clients may be connected; further ones are turned away.
    pub max_connections: usize,
    /// The largest packet that a client may send.
    pub max_packet_bytes: usize,
    /// How long a client may take from connecting to its CONNECT packet.
    pub connect_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1883))],
            max_connections: 10_000,
            max_packet_bytes: 2 << 20,
            connect_timeout_ms: 5_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let config: Config = toml::from_str("listen = ['127.0.0.1:0']").unwrap();
        assert_eq!(config.listen, ["127.0.0.1:0".parse().unwrap()]);
        assert_eq!(config.max_connections, Config::default().max_connections);
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        let error = toml::from_str::<Config>("max-conections = 3").unwrap_err();
        assert!(error.to_string().contains("max-conections"), "{error}");
    }
}
