//! What the agent is told: flags over environment over file, parsed once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use godwit_bus::BrokerUrl;
use godwit_proto::id::{DeviceName, NodeId};
use serde::Deserialize;

/// Run the agent of one node.
#[derive(Debug, Clone, Parser)]
pub struct Run {
    /// The node's name in the fabric [default: the host's name]
    #[arg(long, env = "GODWIT_NODE")]
    pub node: Option<NodeId>,
    /// The broker, as `mqtts://HOST`, or `mqtt://HOST` for one without TLS, each with `:PORT` where it
    /// is not 8883 or 1883 [default: where it joined, else found by mDNS]
    #[arg(long, env = "GODWIT_BROKER")]
    pub broker: Option<BrokerUrl>,
    /// A token of `godwit node token`: joins with it unless this machine is a node already
    #[arg(long, env = "GODWIT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The bridge that containers are attached to; made when it is not there
    #[arg(long, env = "GODWIT_BRIDGE")]
    pub bridge: Option<String>,
    /// The node's address that other nodes reach it at, for tenants' networks [default: that under
    /// which it reaches the broker]
    #[arg(long, env = "GODWIT_UNDERLAY", value_name = "ADDRESS")]
    pub underlay: Option<IpAddr>,
    /// Where the ledger and checkpoints in transfer are kept
    #[arg(long, env = "GODWIT_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Sockets and what is gone after a boot; must allow programs to be run from it
    #[arg(long, env = "GODWIT_RUN_DIR")]
    pub run_dir: Option<PathBuf>,
    /// The real criu [default: /usr/sbin/criu or /usr/local/sbin/criu]
    #[arg(long, env = "GODWIT_CRIU")]
    pub criu: Option<PathBuf>,
    /// A label of the node, KEY=VALUE; may be given often
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// A device that containers may ask for by label, LABEL=PATH, a path below /dev unless it is a
    /// whole one (sensor=ttyUSB0); may be given often
    #[arg(long = "device", value_name = "LABEL=PATH", value_parser = device)]
    pub devices: Vec<(DeviceName, PathBuf)>,
    /// The most that the node sends in transfers, in bytes per second
    #[arg(long, env = "GODWIT_BWLIMIT")]
    pub bwlimit: Option<u64>,
    /// The most memory that checkpoints in transfer may take, in bytes; what does not fit goes over
    /// the disk [default: half of the machine's]
    #[arg(long, env = "GODWIT_IMAGES_BYTES")]
    pub images_bytes: Option<u64>,
    /// Hurry the kernel's grace periods while a container stands still: gaps are tens of
    /// milliseconds shorter, and every processor of the machine is interrupted for it
    #[arg(long, env = "GODWIT_EXPEDITE_RCU")]
    pub expedite_rcu: bool,
    /// A TOML file with any of the above
    #[arg(long, env = "GODWIT_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Make this machine a node of a fabric.
#[derive(Debug, Clone, Parser)]
pub struct Join {
    /// The token; `-` reads it from standard input
    #[arg(value_name = "TOKEN")]
    given: String,
    /// The same settings as for `run`
    #[command(flatten)]
    pub run: Run,
}

impl Join {
    /// The token.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn token(&self) -> std::io::Result<String> {
        match self.given.as_str() {
            "-" => std::io::read_to_string(std::io::stdin()),
            text => Ok(text.to_owned()),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    node: Option<NodeId>,
    broker: Option<String>,
    bridge: Option<String>,
    underlay: Option<IpAddr>,
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    criu: Option<PathBuf>,
    labels: BTreeMap<String, String>,
    devices: BTreeMap<DeviceName, PathBuf>,
    bwlimit: Option<u64>,
    images_bytes: Option<u64>,
    expedite_rcu: bool,
}

/// Everything that the agent runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name.
    pub node: NodeId,
    /// The broker, if it is not to be searched for.
    pub broker: Option<BrokerUrl>,
    /// What to join with, if it has not joined.
    pub token: Option<String>,
    /// The bridge for containers.
    pub bridge: String,
    /// The node's address for tenants' networks, if it is not to be found out.
    pub underlay: Option<IpAddr>,
    /// Ledger and spool.
    pub data_dir: PathBuf,
    /// Sockets and gates.
    pub run_dir: PathBuf,
    /// The real criu, if it is not where it usually is.
    pub criu: Option<PathBuf>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// The devices that containers may ask for, and where they are.
    pub devices: BTreeMap<DeviceName, PathBuf>,
    /// Limit of all transfers out, in bytes per second.
    pub bwlimit: Option<u64>,
    /// Limit of the memory for checkpoints.
    pub images_bytes: Option<u64>,
    /// Grace periods are hurried in gaps.
    pub expedite_rcu: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// The file is not the TOML that is expected.
    #[error("the configuration {path} is wrong: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        source: toml::de::Error,
    },
    /// A broker's address in the file.
    #[error(transparent)]
    Broker(#[from] godwit_bus::BrokerUrlError),
    /// The host's name is no node name.
    #[error("the host's name cannot be the node's: {0}; give one with --node")]
    Hostname(#[from] godwit_proto::id::NameError),
}

impl Run {
    /// Puts flags, environment, file and defaults together.
    ///
    /// # Errors
    /// When the file or the host's name cannot be used.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                toml::from_str(&text)
                    .map_err(|source| ConfigError::Parse { path: path.clone(), source })?
            }
        };
        let node = match self.node.or(file.node) {
            Some(node) => node,
            None => {
                let name = nix::unistd::gethostname().unwrap_or_default();
                name.to_string_lossy().to_lowercase().parse()?
            }
        };
        let broker = match (self.broker, file.broker) {
            (Some(broker), _) => Some(broker),
            (None, Some(text)) => Some(text.parse()?),
            (None, None) => None,
        };
        let mut labels = file.labels;
        labels.extend(self.labels);
        let mut devices = file.devices;
        devices.extend(self.devices);
        let devices = devices.into_iter().map(|(name, path)| (name, Path::new("/dev").join(path)));
        Ok(Config {
            node,
            broker,
            token: self.token,
            bridge: self.bridge.or(file.bridge).unwrap_or_else(|| "br0".into()),
            underlay: self.underlay.or(file.underlay),
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| "/var/lib/godwit".into()),
            run_dir: self.run_dir.or(file.run_dir).unwrap_or_else(|| "/run/godwit".into()),
            criu: self.criu.or(file.criu),
            labels,
            devices: devices.collect(),
            bwlimit: self.bwlimit.or(file.bwlimit),
            images_bytes: self.images_bytes.or(file.images_bytes),
            expedite_rcu: self.expedite_rcu || file.expedite_rcu,
        })
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

fn device(text: &str) -> Result<(DeviceName, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !path.is_empty() => {
            Ok((name.parse().map_err(|error| format!("{error}"))?, path.into()))
        }
        _ => Err(format!("`{text}` is not LABEL=PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_overrules_the_file_and_the_file_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "node = \"press-7\"\nbridge = \"lan0\"\n[labels]\nhall = \"2\"\n[devices]\neye = \"/dev/v/0\"\n")
            .unwrap();
        let path = path.to_str().unwrap();
        let run = Run::parse_from([
            "run",
            "--config",
            path,
            "--bridge",
            "br9",
            "--label",
            "hall=3",
            "--device",
            "sensor=ttyUSB0",
        ]);
        let config = run.resolve().unwrap();
        assert_eq!(config.node.as_str(), "press-7");
        assert_eq!(config.bridge, "br9");
        assert_eq!(config.labels["hall"], "3");
        let devices: Vec<_> =
            config.devices.values().map(|path| path.display().to_string()).collect();
        assert_eq!(devices, ["/dev/v/0", "/dev/ttyUSB0"]);
        assert_eq!(config.run_dir, PathBuf::from("/run/godwit"));
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "brigde = \"lan0\"\n").unwrap();
        let run = Run::parse_from(["run", "--config", path.to_str().unwrap()]);
        assert!(run.resolve().unwrap_err().to_string().contains("brigde"));
    }
}
