//! What may be asked of a broker.

use clap::Subcommand;

use super::{List, Output};
use crate::client::Host;

/// Looks at the broker inside the controller, or with --url at one that stands alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Broker {
    /// A broker of its own, at the address that its `--admin` names
    #[arg(long, env = "GODWIT_BROKER_URL", global = true, value_parser = parse_broker)]
    pub(crate) url: Option<Host>,
    #[command(subcommand)]
    pub(crate) command: BrokerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// List the clients that are connected
    Clients(List),
    /// List sessions, those whose client is away too
    Sessions(List),
    /// List retained messages
    Retained {
        /// Only those whose topics this filter matches
        #[arg(default_value = "#")]
        filter: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the filters that somebody is subscribed to
    Topics(List),
    /// Cut a client off; its session stays as long as it would
    Kick {
        client: String,
        /// Only this user's client of that id
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Read certificates, accounts and rules again; nobody is disconnected whose account stays
    Reload(List),
}

fn parse_broker(text: &str) -> Result<Host, String> {
    Host::with_port(text, 9883)
}
