//! What can go wrong with a controller as a whole.

use std::net::SocketAddr;
use std::path::PathBuf;

use godwit_broker::BrokerError;
use godwit_bus::PublishError;

use crate::accounts::PapersError;
use crate::discovery::DiscoveryError;
use crate::images::ImageError;
use crate::store::StoreError;

/// Why the controller cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory cannot be made.
    #[error("cannot make the data directory {path}: name another with --data-dir")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another controller of this data directory runs: two would overwrite each other.
    #[error("another controller runs on {path}: stop it first, or name another --data-dir")]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The images' directory cannot be opened.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The embedded broker cannot listen.
    #[error("the embedded broker cannot start")]
    Broker(#[from] BrokerError),
    /// The session with the broker cannot be opened.
    #[error("cannot open a session with the broker")]
    Session(#[from] PublishError),
    /// The REST API cannot listen.
    #[error("cannot listen on {address}: is another controller running? (--listen names another)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There is neither a broker here nor one elsewhere.
    #[error("there is no broker: name one with --broker")]
    NoBroker,
    /// The fabric's authority cannot be used.
    #[error(transparent)]
    Papers(#[from] PapersError),
    /// The system has no random bytes.
    #[error(transparent)]
    Random(#[from] godwit_trust::NoRandomness),
    /// mDNS does not work here.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// A part of it ended that should not have.
    #[error("a part of the controller broke: the log says which; it is to be started again")]
    Broken,
}
