//! What may be said of networks.

use clap::Subcommand;

use super::{Inspect, List, Output};

/// Networks of containers, over whatever network the nodes have.
///
/// Containers of one network reach each other by name and address wherever they are and while they
/// move; nobody else reaches them but through published ports. `default` is there without asking.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network
    Create(NetworkCreate),
    /// List networks
    Ls(List),
    /// Show all there is to know of networks
    Inspect(Inspect),
    /// Remove networks that no container is in
    Rm {
        #[arg(required = true, value_name = "NETWORK")]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct NetworkCreate {
    #[arg(value_name = "NETWORK")]
    pub(crate) name: String,
    /// Its addresses, such as 10.200.0.0/24; the next free ones otherwise
    #[arg(long, value_name = "RANGE")]
    pub(crate) subnet: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}
