//! What a broker may be told: where to listen, and its limits.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::listener::{self, Endpoint, TlsConfig, WebSocketConfig};

/// A broker's settings; the defaults serve a site of a thousand nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where to listen, and for what; MQTT 3.1.1 and 5 share every port. Port 0 takes a free one.
    pub listen: Vec<Endpoint>,
    /// The certificate for every endpoint that accepts TLS.
    pub tls: Option<TlsConfig>,
    /// What holds for WebSocket, secure or not.
    pub websocket: WebSocketConfig,
    /// Who comes in without an account.
    pub anonymous: Anonymous,
    /// Users and their passwords, in mosquitto's format.
    pub password_file: Option<PathBuf>,
    /// What users may do, in mosquitto's format; without it each of them may do everything.
    pub acl_file: Option<PathBuf>,
    /// The SQLite file that outlives the broker; without one all is forgotten with the process.
    pub store: Option<PathBuf>,
    /// What a message survives once it is acknowledged.
    pub durability: Durability,
    /// How many clients may be connected; further ones are turned away.
    pub max_connections: usize,
    /// The largest packet that a client may send, in bytes.
    pub max_packet_bytes: u32,
    /// How long a client may take for its TLS and WebSocket handshakes, and from there to its CONNECT
    /// packet.
    pub connect_timeout_ms: u64,
    /// How long a client may read nothing of what it is sent.
    pub write_timeout_ms: u64,
    /// How long a packet may take from its first byte to its last, and a second more for each KiB of
    /// it.
    pub packet_timeout_ms: u64,
    /// The longest that a client of MQTT 5 may be silent, whatever it asks for; 0 for any time.
    pub max_keep_alive_seconds: u16,
    /// How often what the broker says of itself in `$SYS/broker` is brought up to date; 0 for never.
    pub sys_interval_seconds: u16,
    /// Where a broker of its own answers operators and Prometheus, over HTTP and without a sign-in.
    pub admin: Option<SocketAddr>,
    /// That address may be one that other machines reach.
    pub admin_anywhere: bool,
    /// How much one client may hold, and all of them.
    pub limits: Limits,
    /// How fast accounts may send and addresses connect.
    pub rates: Rates,
}

/// Who comes in without an account; what such a client may do is said by the rules for nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Anonymous {
    /// Nobody.
    #[default]
    Never,
    /// Processes of this machine.
    Loopback,
    /// Everybody: for a closed network, or none at all.
    Anyone,
}

/// What a message survives once it is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// The death of the broker at any moment.
    #[default]
    Process,
    /// The loss of the machine's power as well; each commit waits for the disk.
    Power,
}

/// How much one client may hold, and all of them. What is beyond is refused or dropped, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Messages of QoS 1 and 2 under way to a client; its own receive maximum may be lower.
    pub max_in_flight: u16,
    /// The same, in bytes; one message may be larger.
    pub max_in_flight_bytes: usize,
    /// Messages of QoS 2 that a client may publish before it releases the first.
    pub receive_max: u16,
    /// Messages that wait for one client; the newest are dropped.
    pub max_queued: usize,
    /// The same, in bytes.
    pub max_queued_bytes: usize,
    /// What waits for all clients or is under way to them, counted for each: at the limit an account
    /// gets no more than its share, the limit divided by the accounts with sessions.
    pub max_total_queued_bytes: usize,
    /// What may wait to be written to one client; beyond it messages of QoS 0 are dropped, and the
    /// client is not read from.
    pub max_outbox_bytes: usize,
    /// Subscriptions of one client; further ones are refused with "quota exceeded".
    pub max_subscriptions: usize,
    /// Subscriptions of all clients, shared in the same way.
    pub max_total_subscriptions: usize,
    /// Sessions, shared in the same way; further clients are refused with "quota exceeded".
    pub max_sessions: usize,
    /// Retained messages, shared in the same way by the accounts that have some; further topics are not kept.
    pub max_retained: usize,
    /// The same, in bytes.
    pub max_retained_bytes: usize,
    /// The longest client id.
    pub max_client_id_bytes: usize,
    /// How long a session may outlive its connection; the default is for ever.
    pub max_session_expiry_seconds: u32,
}

/// How fast clients may be; 0 for as fast as they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rates {
    /// Packets of an account, or of an address without one, over all of its connections. Who sends
    /// more is read more slowly.
    pub packets_per_second: u32,
    /// The same in bytes.
    pub bytes_per_second: u32,
    /// Connections from an address, ten seconds' worth of them at once; further ones are closed.
    pub connects_per_second: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { packets_per_second: 0, bytes_per_second: 0, connects_per_second: 1000 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: listener::Config::default().listen,
            tls: None,
            websocket: WebSocketConfig::default(),
            anonymous: Anonymous::Never,
            password_file: None,
            acl_file: None,
            store: None,
            durability: Durability::Process,
            max_connections: 10_000,
            max_packet_bytes: 2 << 20,
            connect_timeout_ms: 5_000,
            write_timeout_ms: 30_000,
            packet_timeout_ms: 30_000,
            max_keep_alive_seconds: 0,
            sys_interval_seconds: 10,
            admin: None,
            admin_anywhere: false,
            limits: Limits::default(),
            rates: Rates::default(),
        }
    }
}

impl Config {
    /// Everybody may come, and may do everything: for tests, and for a network that is closed.
    pub fn open_to_all(listen: SocketAddr) -> Self {
        let listen = vec![listen.into()];
        Self { listen, anonymous: Anonymous::Anyone, ..Self::default() }
    }

    /// What concerns the listeners.
    pub(crate) fn listener(&self) -> listener::Config {
        listener::Config {
            listen: self.listen.clone(),
            handshake_timeout_ms: self.connect_timeout_ms,
            tls: self.tls.clone(),
            websocket: self.websocket.clone(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            max_in_flight_bytes: 16 << 20,
            receive_max: 256,
            max_queued: 10_000,
            max_queued_bytes: 64 << 20,
            max_total_queued_bytes: 1 << 30,
            max_outbox_bytes: 16 << 20,
            max_subscriptions: 1_000,
            max_total_subscriptions: 1_000_000,
            max_sessions: 100_000,
            max_retained: 100_000,
            max_retained_bytes: 256 << 20,
            max_client_id_bytes: 256,
            max_session_expiry_seconds: u32::MAX,
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

    const EXAMPLE: &str = include_str!("../packaging/godwit-broker.toml");

    /// The names of a table's settings, as its reader lists them.
    fn settings(table: &str) -> Vec<String> {
        let error = toml::from_str::<Config>(&format!("{table}no-such = 1")).unwrap_err();
        let (_, names) = error.message().split_once("expected one of ").expect("a list");
        names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
    }

    #[test]
    fn the_example_names_every_setting_with_its_default() {
        toml::from_str::<Config>(EXAMPLE).expect("as it is");
        // Comments have one space behind their `#`, settings none or many.
        let is_comment = |line: &str| line.starts_with("# ") && !line.starts_with("#  ");
        let lines = EXAMPLE.lines().filter(|line| !is_comment(line));
        let text: Vec<_> = lines.filter_map(|line| line.strip_prefix('#')).collect();
        let text = text.join("\n");
        let config: Config = toml::from_str(&text).expect("with what is commented out");
        let default = Config::default();
        assert_eq!((config.limits, config.rates), (default.limits, default.rates));
        assert_eq!(config.websocket, default.websocket);
        let examples = Config {
            listen: config.listen.clone(),
            tls: config.tls.clone(),
            password_file: config.password_file.clone(),
            acl_file: config.acl_file.clone(),
            admin: config.admin,
            ..default
        };
        assert_eq!(config, examples, "these alone have no default, or show more than it");
        for name in
            settings("").into_iter().chain(settings("[limits]\n")).chain(settings("[rates]\n"))
        {
            let is_there = |line: &str| {
                let line = line.trim_start_matches(['#', '[']);
                line.strip_prefix(&*name).is_some_and(|rest| rest.starts_with([' ', ']']))
            };
            assert!(EXAMPLE.lines().any(is_there), "{name}");
        }
    }
}
