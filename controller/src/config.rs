//! What the controller can be told: flags, over the environment, over a file.
//!
//! Read once into checked types; every default lets the demo run.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser;
use godwit_broker::Anonymous;
use godwit_broker::listener::{Endpoint, EndpointError};
use godwit_bus::{BrokerUrl, BrokerUrlError};
use godwit_proto::overlay::STATIONS;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::service::{DEFAULT, DIRECT, Pool, PoolError, Ranges};

/// Where the file is looked for when none is named.
const FILE: &str = "/etc/godwit/controller.toml";

/// Where tenants' networks lie: private, and seldom used by anybody else.
const NETWORKS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 128, 0, 0), 9);

/// Where the embedded broker listens: to the network by TLS, to this machine as it comes.
const LISTEN: [&str; 2] = ["0.0.0.0:8883=tls+secure-websocket", "127.0.0.1:1883"];

/// The controller's command line. What is left out comes from the file, then from the
/// defaults.
#[derive(Debug, Default, Parser)]
#[command(name = "godwit-controller", version, about = "The controller of a Godwit fabric")]
pub struct Flags {
    /// A TOML file with the same settings [default: /etc/godwit/controller.toml, if there]
    #[arg(long, env = "GODWIT_CONTROLLER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log is written: text or json
    #[arg(long, env = "GODWIT_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(flatten)]
    settings: Settings,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object a line.
    Json,
}

/// Every setting, as flags and as the file has it.
#[derive(Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// Where the database and the images are [default: /var/lib/godwit/controller]
    #[arg(long, env = "GODWIT_CONTROLLER_DATA", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the REST API listens [default: 0.0.0.0:7180]
    #[arg(long, env = "GODWIT_CONTROLLER_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A broker elsewhere, mqtt://HOST[:PORT], in place of the embedded one
    #[arg(long, env = "GODWIT_BROKER", value_name = "URL")]
    broker: Option<String>,
    /// Where the embedded broker listens, and for what, as godwit-broker has it [default:
    /// 0.0.0.0:8883=tls+secure-websocket,127.0.0.1:1883]
    #[arg(long, env = "GODWIT_BROKER_LISTEN", value_name = "ENDPOINT", value_delimiter = ',')]
    broker_listen: Option<Vec<Endpoint>>,
    /// Who comes to the embedded broker without an account: never, loopback or anyone [default: never]
    #[arg(long, env = "GODWIT_ANONYMOUS", value_name = "WHO")]
    anonymous: Option<Anonymous>,
    /// A name or address by which clients reach the embedded broker, beside this machine's own; may
    /// be repeated
    #[arg(long, env = "GODWIT_BROKER_NAME", value_name = "NAME", value_delimiter = ',')]
    broker_name: Option<Vec<String>>,
    /// Addresses for containers [default: 10.77.1.0/24]
    #[arg(long, env = "GODWIT_POOL", value_name = "RANGE")]
    pool: Option<String>,
    /// The prefix length of the network that the pool lies in [default: 16]
    #[arg(long, env = "GODWIT_POOL_PREFIX", value_name = "BITS")]
    pool_prefix: Option<u8>,
    /// The containers' default route [default: none]
    #[arg(long, env = "GODWIT_POOL_GATEWAY", value_name = "ADDRESS")]
    pool_gateway: Option<Ipv4Addr>,
    /// A network of IPv6 of which each container has an address as well [default: none]
    #[arg(long, env = "GODWIT_POOL6", value_name = "NETWORK")]
    pool6: Option<Ipv6Net>,
    /// The containers' default route of IPv6 [default: none]
    #[arg(long, env = "GODWIT_POOL6_GATEWAY", value_name = "ADDRESS", requires = "pool6")]
    pool6_gateway: Option<Ipv6Addr>,
    /// The network of containers that ask for none: `tenant` for each tenant's own, over VXLAN, or
    /// `direct` for the nodes' own, where they share a layer 2 [default: tenant]
    #[arg(long, env = "GODWIT_NETWORK", value_name = "KIND")]
    network: Option<NetworkKind>,
    /// Where tenants' networks lie [default: 10.128.0.0/9]
    #[arg(long, env = "GODWIT_NETWORKS", value_name = "RANGE")]
    networks: Option<Ipv4Net>,
    /// The prefix length of each tenant's network [default: 20]
    #[arg(long, env = "GODWIT_NETWORKS_PREFIX", value_name = "BITS")]
    networks_prefix: Option<u8>,
    /// Tenants' networks have no IPv6: for nodes whose kernels lack it
    #[arg(long, env = "GODWIT_NO_IPV6", num_args = 0..=1, default_missing_value = "true")]
    no_ipv6: Option<bool>,
    /// Neither announce the fabric by mDNS nor look for nodes
    #[arg(long, env = "GODWIT_NO_MDNS", num_args = 0..=1, default_missing_value = "true")]
    no_mdns: Option<bool>,
}

/// What containers are attached to that ask for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// Their tenant's network.
    #[default]
    Tenant,
    /// The nodes' own network.
    Direct,
}

/// The broker in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Embedded {
    /// Where it listens.
    pub listen: Vec<Endpoint>,
    /// Who comes in without an account.
    pub anonymous: Anonymous,
    /// Names of it beside the machine's own.
    pub names: Vec<String>,
}

/// Which broker the fabric uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerChoice {
    /// One in this process.
    Embedded(Embedded),
    /// One elsewhere.
    External(BrokerUrl),
}

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the database and the images are.
    pub data_dir: PathBuf,
    /// Where the REST API listens.
    pub listen: SocketAddr,
    /// The broker.
    pub broker: BrokerChoice,
    /// Addresses for containers in the nodes' own network.
    pub pool: Pool,
    /// Where tenants' networks lie.
    pub ranges: Ranges,
    /// The network of containers that ask for none.
    pub network: String,
    /// Announce by mDNS, and look for nodes.
    pub has_mdns: bool,
    /// How the log is written.
    pub log_format: LogFormat,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there, or not readable.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not TOML, or has a setting that does not exist.
    #[error("the configuration {path} has an error")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        source: Box<toml::de::Error>,
    },
    /// The broker's address is none.
    #[error(transparent)]
    Broker(#[from] BrokerUrlError),
    /// Where the embedded broker is to listen.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The pool is none.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Tenants' networks do not fit where they are to lie.
    #[error(
        "networks of /{prefix} do not fit into {all}: give --networks a shorter prefix than \
         --networks-prefix, which is from 8 to 29"
    )]
    Networks {
        /// Where they are to lie.
        all: Ipv4Net,
        /// Each one's prefix.
        prefix: u8,
    },
    /// Tenants' networks lie where something else is.
    #[error(
        "--networks {0} overlaps with the pool's network or with 100.64.0.0/10, where nodes have \
         their addresses in networks: give another range"
    )]
    NetworksTaken(Ipv4Net),
    /// A broker elsewhere does not listen here.
    #[error("--broker and --broker-listen exclude each other: give one of them")]
    TwoBrokers,
}

impl Config {
    /// Completes the flags (and the environment behind them) from the file and the defaults.
    ///
    /// # Errors
    /// Every [`ConfigError`].
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None if Path::new(FILE).exists() => read(Path::new(FILE))?,
            None => Settings::default(),
        };
        let log_format = flags.log_format.unwrap_or_default();
        Self::check(flags.settings.over(file), log_format)
    }

    fn check(settings: Settings, log_format: LogFormat) -> Result<Self, ConfigError> {
        let broker = match (settings.broker, settings.broker_listen) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoBrokers),
            (Some(url), None) => BrokerChoice::External(url.parse()?),
            (None, listen) => BrokerChoice::Embedded(Embedded {
                listen: match listen {
                    Some(listen) => listen,
                    None => LISTEN.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
                },
                anonymous: settings.anonymous.unwrap_or_default(),
                names: settings.broker_name.unwrap_or_default(),
            }),
        };
        let mut pool = Pool::new(
            settings.pool.as_deref().unwrap_or("10.77.1.0/24"),
            settings.pool_prefix.unwrap_or(16),
            settings.pool_gateway,
        )?;
        if let Some(network) = settings.pool6 {
            pool = pool.with_ipv6(network, settings.pool6_gateway)?;
        }
        let ranges = Ranges {
            all: settings.networks.unwrap_or(NETWORKS).trunc(),
            prefix: settings.networks_prefix.unwrap_or(20),
            has_ipv6: !settings.no_ipv6.unwrap_or(false),
        };
        let Ranges { all, prefix, .. } = ranges;
        if !(8..=29).contains(&prefix) || prefix < all.prefix_len() {
            return Err(ConfigError::Networks { all, prefix });
        }
        let meets = |net: Ipv4Net| net.contains(&all) || all.contains(&net);
        if pool.overlaps(all) || meets(STATIONS) {
            return Err(ConfigError::NetworksTaken(all));
        }
        let network = match settings.network.unwrap_or_default() {
            NetworkKind::Tenant => DEFAULT,
            NetworkKind::Direct => DIRECT,
        };
        Ok(Self {
            ranges,
            network: network.to_owned(),
            data_dir: settings.data_dir.unwrap_or_else(|| "/var/lib/godwit/controller".into()),
            listen: settings.listen.unwrap_or((Ipv4Addr::UNSPECIFIED, 7180).into()),
            broker,
            pool,
            has_mdns: !settings.no_mdns.unwrap_or(false),
            log_format,
        })
    }
}

impl Settings {
    /// What is set here, else what is set in `below`.
    fn over(self, below: Self) -> Self {
        // A choice of broker here is not mixed with the file's.
        let is_broker_chosen = self.broker.is_some() || self.broker_listen.is_some();
        let (broker, broker_listen) = if is_broker_chosen {
            (self.broker, self.broker_listen)
        } else {
            (below.broker, below.broker_listen)
        };
        Self {
            data_dir: self.data_dir.or(below.data_dir),
            listen: self.listen.or(below.listen),
            broker,
            broker_listen,
            anonymous: self.anonymous.or(below.anonymous),
            broker_name: self.broker_name.or(below.broker_name),
            pool: self.pool.or(below.pool),
            pool_prefix: self.pool_prefix.or(below.pool_prefix),
            pool_gateway: self.pool_gateway.or(below.pool_gateway),
            pool6: self.pool6.or(below.pool6),
            pool6_gateway: self.pool6_gateway.or(below.pool6_gateway),
            network: self.network.or(below.network),
            networks: self.networks.or(below.networks),
            networks_prefix: self.networks_prefix.or(below.networks_prefix),
            no_ipv6: self.no_ipv6.or(below.no_ipv6),
            no_mdns: self.no_mdns.or(below.no_mdns),
        }
    }
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn load(file: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(file.as_bytes()).unwrap();
        let path = written.path().to_str().unwrap();
        let words = ["godwit-controller", "--config", path];
        Config::load(Flags::parse_from(words.iter().chain(flags)))
    }

    #[test]
    fn the_defaults_let_the_demo_run() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.listen, "0.0.0.0:7180".parse().unwrap());
        let plain = "127.0.0.1:1883".parse().unwrap();
        let listen = vec!["0.0.0.0:8883=tls+secure-websocket".parse().unwrap(), plain];
        assert_eq!(
            config.broker,
            BrokerChoice::Embedded(Embedded { listen, ..Embedded::default() })
        );
        assert!(config.has_mdns);
        assert_eq!((&*config.network, config.ranges.prefix), ("default", 20));
        let interface = config.pool.free([]).unwrap();
        assert_eq!(interface.addresses, ["10.77.1.1/16".parse().unwrap()]);
    }

    #[test]
    fn flags_outrank_the_file() {
        let file = "listen = '127.0.0.1:1'\ndata-dir = '/tmp/x'\nno-mdns = true\n\
                    broker-listen = ['127.0.0.1:2']";
        let config = load(file, &["--listen", "127.0.0.1:9", "--broker", "mqtt://hub"]).unwrap();
        assert_eq!(config.listen, "127.0.0.1:9".parse().unwrap());
        assert_eq!(config.data_dir, Path::new("/tmp/x"));
        assert_eq!(config.broker, BrokerChoice::External("mqtt://hub".parse().unwrap()));
        assert!(!config.has_mdns);
        assert!(!load("", &["--no-mdns"]).unwrap().has_mdns);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |file: &str, flags: &[&str]| load(file, flags).unwrap_err().to_string();
        assert!(refused("lisen = 1", &[]).contains("has an error"));
        assert!(refused("pool = '10.77.1.5/24'", &[]).contains("10.77.1.5/24"));
        assert!(refused("broker = 'hub'", &[]).contains("mqtt://"));
        assert!(refused("networks = '10.0.0.0/24'", &[]).contains("--networks-prefix"));
        assert!(refused("networks-prefix = 30", &[]).contains("8 to 29"));
        assert!(refused("networks = '10.0.0.0/8'", &[]).contains("overlaps"));
        assert!(refused("networks = '100.0.0.0/8'", &[]).contains("overlaps"));
        let two = ["--broker", "mqtt://hub", "--broker-listen", "127.0.0.1:1"];
        assert!(refused("", &two).contains("exclude"));
        assert!(matches!(
            Config::load(Flags::parse_from(["godwit-controller", "--config", "/no/such/file"])),
            Err(ConfigError::Read { .. })
        ));
    }
}
