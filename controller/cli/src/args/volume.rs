//! What may be said of volumes.

use clap::Subcommand;

use super::{Inspect, List};

/// Directories of containers that outlive them, and move with them.
///
/// A volume is made with the first container that asks for it (`godwit run -v`), is one container's
/// at a time, and is where that is.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// List volumes
    Ls(List),
    /// Show all there is to know of volumes
    Inspect(Inspect),
    /// Remove volumes that no container has, with all that is in them
    Rm {
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
}
