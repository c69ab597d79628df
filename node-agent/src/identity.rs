//! What makes this machine a node of its fabric: its certificate and key, in one file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use godwit_proto::id::NodeId;
use godwit_trust::{Bearer, BearerError, Fingerprint, Particulars};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The file, below the data directory.
const FILE: &str = "identity.json";

/// A node of a fabric.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name.
    pub node: NodeId,
    /// Its fabric.
    pub fabric: Uuid,
    /// The fingerprint of the authority by which brokers are believed.
    pub authority: String,
    /// Where the broker was when it joined.
    pub brokers: Vec<String>,
    /// Its certificate and those above it, in PEM.
    pub certificate: String,
    /// Its private key, in PEM.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.node)
            .field("fabric", &self.fabric)
            .finish_non_exhaustive()
    }
}

/// Why an identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file.
    #[error("cannot read or write {path}: is the agent run as root, and is the disk full?")]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// What is in it.
    #[error("{path} is damaged: remove it, and join again with a new token")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key.
    #[error(transparent)]
    Bearer(#[from] BearerError),
}

impl Identity {
    /// Reads it; nothing from a machine that has not joined.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        load(&data_dir.join(FILE))
    }

    /// Keeps it, in place of one that was there.
    ///
    /// # Errors
    /// [`IdentityError::File`]; what was there stays then.
    pub fn save(&self, data_dir: &Path) -> Result<(), IdentityError> {
        save(&data_dir.join(FILE), self)
    }

    /// The authority by which brokers are believed.
    ///
    /// # Errors
    /// [`IdentityError::Damaged`].
    pub fn authority(&self) -> Result<Fingerprint, IdentityError> {
        self.authority.parse().map_err(|_| IdentityError::Damaged { path: FILE.into() })
    }

    /// What it shows.
    ///
    /// # Errors
    /// [`IdentityError::Bearer`].
    pub fn bearer(&self) -> Result<Arc<Bearer>, IdentityError> {
        Ok(Arc::new(Bearer::new(&self.certificate, &self.key)?))
    }

    /// True once it should have its next certificate.
    pub fn needs_renewal(&self, now: Timestamp) -> bool {
        Particulars::of_pem(&self.certificate)
            .is_ok_and(|particulars| particulars.validity.needs_renewal(now))
    }
}

/// Reads a file that [`save`] wrote.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| IdentityError::Damaged { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.into(), source }),
    }
}

/// Writes a file whole or not at all, for its owner's eyes only.
pub(crate) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), IdentityError> {
    let new = path.with_extension("new");
    let all = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        serde_json::to_writer(&mut file, value)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    all().map_err(|source| IdentityError::File { path: path.into(), source })
}
