//! The fabric's authority and the broker's certificate, as files.
//!
//! ```text
//! DATA/trust/authority.pem   the authority's certificate: for clients that verify the broker
//! DATA/trust/authority.key   its key: who has it can pass for anybody. Back it up, guard it
//! DATA/trust/broker.pem      the broker's certificate and the authority's
//! DATA/trust/broker.key      its key
//! ```

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use godwit_broker::listener::{Clients, TlsConfig};
use godwit_trust::{Authority, AuthorityError, Particulars};
use jiff::Timestamp;
use uuid::Uuid;

/// Why the authority or the broker's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    /// A file.
    #[error("cannot read or write {path}: does it belong to the controller, and is the disk full?")]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// What is in it, or a certificate that cannot be made.
    #[error("the fabric's authority in {path} cannot be used")]
    Authority {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: Box<AuthorityError>,
    },
}

/// The authority, and where its files are.
#[derive(Debug)]
pub struct Papers {
    directory: PathBuf,
    authority: ArcSwap<Authority>,
    names: Vec<String>,
}

impl Papers {
    /// Opens the authority of `fabric` below `data`, or makes it, and sees that the broker has a
    /// certificate for `names` (DNS names and addresses) that lasts.
    ///
    /// # Errors
    /// [`PapersError`].
    pub fn open(data: &Path, fabric: Uuid, names: Vec<String>) -> Result<Self, PapersError> {
        let directory = data.join("trust");
        fs::create_dir_all(&directory)
            .map_err(|source| PapersError::File { path: directory.clone(), source })?;
        let (certificate, key) = (directory.join("authority.pem"), directory.join("authority.key"));
        let failed =
            |source| PapersError::Authority { path: directory.clone(), source: Box::new(source) };
        let authority = if certificate.exists() {
            Authority::load(&read(&certificate)?, &read(&key)?).map_err(failed)?
        } else {
            let new = Authority::create(&fabric.to_string(), Timestamp::now()).map_err(failed)?;
            // The certificate last: it says that both are there.
            write(&key, new.key_pem().as_str())?;
            write(&certificate, &new.cert_pem())?;
            tracing::info!(fingerprint = %new.fingerprint(), "the fabric has an authority now");
            new
        };
        let papers = Self { directory, authority: ArcSwap::from_pointee(authority), names };
        papers.renew(Timestamp::now())?;
        Ok(papers)
    }

    /// The authority, as it is now.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// By what the broker is reached.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The files for the broker's listeners.
    pub fn tls(&self) -> TlsConfig {
        let file = |name| self.directory.join(name);
        let clients = Clients { authorities: file("authority.pem"), required: false };
        TlsConfig {
            certificate: file("broker.pem"),
            key: file("broker.key"),
            clients: Some(clients),
        }
    }

    /// Renews the authority when the last third of its time begins, and gives the broker its next
    /// certificate where the last one ends soon, is for other names or of the authority before;
    /// true when it did.
    ///
    /// # Errors
    /// [`PapersError`]; what was there stays then.
    pub fn renew(&self, now: Timestamp) -> Result<bool, PapersError> {
        let (certificate, key) =
            (self.directory.join("broker.pem"), self.directory.join("broker.key"));
        let names = self.directory.join("broker.names");
        let wanted = self.names.join("\n");
        let failed = |source| PapersError::Authority {
            path: self.directory.clone(),
            source: Box::new(source),
        };
        let mut authority = self.authority();
        if authority.validity().needs_renewal(now) {
            authority = Arc::new(authority.renewed(now).map_err(failed)?);
            // Cut short here or below, the broker's is done again at the next start.
            write(&names, "")?;
            write(&self.directory.join("authority.pem"), &authority.cert_pem())?;
            tracing::info!(until = %authority.validity().not_after, "the authority is renewed");
            self.authority.store(authority.clone());
        }
        let is_good = || {
            let particulars = Particulars::of_pem(&fs::read_to_string(&certificate).ok()?).ok()?;
            let is_for = fs::read_to_string(&names).ok()?;
            Some(!particulars.validity.needs_renewal(now) && is_for == wanted && key.exists())
        };
        if is_good().unwrap_or(false) {
            return Ok(false);
        }
        let issued = authority.issue_server(&self.names, now).map_err(failed)?;
        // Cut short between key and certificate, it is done again at the next start.
        write(&names, "")?;
        write(&key, issued.key_pem.as_str())?;
        write(&certificate, &issued.issued.chain_pem)?;
        write(&names, &wanted)?;
        Ok(true)
    }
}

/// The names and addresses by which this machine is reached.
pub fn own_names(more: &[String]) -> Vec<String> {
    let mut names: BTreeSet<String> = more.iter().cloned().collect();
    names.insert("localhost".to_owned());
    if let Ok(host) = nix::unistd::gethostname()
        && let Ok(host) = host.into_string()
        && !host.is_empty()
    {
        names.insert(host);
    }
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            names.insert(v4.ip().to_string());
        } else if let Some(v6) = address.as_sockaddr_in6()
            && !v6.ip().is_unicast_link_local()
        {
            names.insert(v6.ip().to_string());
        }
    }
    names.into_iter().collect()
}

fn read(path: &Path) -> Result<String, PapersError> {
    fs::read_to_string(path).map_err(|source| PapersError::File { path: path.to_owned(), source })
}

/// Whole or not at all, and for its owner's eyes only.
fn write(path: &Path, text: &str) -> Result<(), PapersError> {
    let new = path.with_extension("new");
    let all = || {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    all().map_err(|source| PapersError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn an_authority_is_renewed_before_it_ends_and_nobody_has_to_learn_of_it() {
        let data = tempfile::tempdir().unwrap();
        let papers = Papers::open(data.path(), Uuid::new_v4(), vec!["hub".to_owned()]).unwrap();
        let (old, shown) =
            (papers.authority(), fs::read_to_string(papers.tls().certificate).unwrap());
        let late = Timestamp::now() + SignedDuration::from_hours(24 * 365 * 8);
        assert!(papers.renew(late).unwrap());
        let new = papers.authority();
        assert_eq!(new.fingerprint(), old.fingerprint());
        assert!(new.validity().not_after > old.validity().not_after);
        let file = |name: &str| fs::read_to_string(data.path().join("trust").join(name)).unwrap();
        assert_eq!(file("authority.pem"), new.cert_pem());
        let chain = file("broker.pem");
        assert!(chain.ends_with(&new.cert_pem()) && chain != shown);
        assert!(!papers.renew(late).unwrap());
    }

    #[test]
    fn an_authority_is_made_once_and_the_brokers_certificate_in_time() {
        let data = tempfile::tempdir().unwrap();
        let fabric = Uuid::new_v4();
        let names = vec!["hub".to_owned()];
        let first = Papers::open(data.path(), fabric, names.clone()).unwrap();
        let fingerprint = first.authority().fingerprint();
        let again = Papers::open(data.path(), fabric, names.clone()).unwrap();
        assert_eq!(again.authority().fingerprint(), fingerprint);
        let now = Timestamp::now();
        assert!(!again.renew(now).unwrap(), "it is good for long");
        let late = now + SignedDuration::from_hours(24 * 80);
        assert!(again.renew(late).unwrap(), "it ends soon");
        assert!(!again.renew(late).unwrap());
        // Another key than the certificate's: a renewal that was cut short.
        fs::write(data.path().join("trust/broker.names"), "").unwrap();
        fs::write(again.tls().key, "of the next certificate").unwrap();
        assert!(again.renew(late).unwrap(), "it goes on");
        assert!(fs::read_to_string(again.tls().key).unwrap().contains("PRIVATE KEY"));
        let moved = Papers::open(data.path(), fabric, vec!["hub2".to_owned()]).unwrap();
        let shown = fs::read_to_string(moved.tls().certificate).unwrap();
        assert!(!shown.is_empty() && moved.authority().fingerprint() == fingerprint);
        let mode = fs::metadata(data.path().join("trust/authority.key")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
        assert_eq!(mode & 0o077, 0, "others may read the key");
    }
}
