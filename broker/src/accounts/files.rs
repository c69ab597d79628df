//! Accounts from files, as mosquitto has them.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Accounts;
use crate::access::{AclFile, AclFileError, PasswordFile, PasswordFileError, Rights};
use crate::listener::identity_of;

/// Why accounts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The password file.
    #[error(transparent)]
    Passwords(#[from] PasswordFileError),
    /// The file of rules.
    #[error(transparent)]
    Rules(#[from] AclFileError),
}

/// A password file and a file of rules; without the latter everybody who signs in may do everything.
///
/// A certificate that TLS verified is a user by its name, which the password file need not have.
#[derive(Debug)]
pub struct Files {
    passwords: Option<PathBuf>,
    rules: Option<PathBuf>,
    /// There may be users who sign in with a certificate.
    are_certified: bool,
    read: ArcSwap<Read>,
}

#[derive(Debug)]
struct Read {
    passwords: Option<PasswordFile>,
    rules: Option<AclFile>,
}

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or has a mistake.
    pub fn open(
        passwords: Option<PathBuf>,
        rules: Option<PathBuf>,
        are_certified: bool,
    ) -> Result<Self, AccountsError> {
        let read = ArcSwap::from_pointee(read(&passwords, &rules)?);
        Ok(Self { passwords, rules, are_certified, read })
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// Like [`open`](Self::open); what was read before stays.
    pub fn reload(&self) -> Result<(), AccountsError> {
        self.read.store(Arc::new(read(&self.passwords, &self.rules)?));
        Ok(())
    }
}

fn read(passwords: &Option<PathBuf>, rules: &Option<PathBuf>) -> Result<Read, AccountsError> {
    Ok(Read {
        passwords: passwords.as_deref().map(PasswordFile::read).transpose()?,
        rules: rules.as_deref().map(AclFile::read).transpose()?,
    })
}

impl Accounts for Files {
    fn verify(&self, user: &str, password: &[u8]) -> bool {
        self.read.load().passwords.as_ref().is_some_and(|file| file.verify(user, password))
    }

    fn of_certificate(&self, certificate: &[u8]) -> Option<String> {
        identity_of(certificate)
    }

    fn rights(&self, user: Option<&str>, client: &str) -> Option<Rights> {
        let read = self.read.load();
        let has_password = |user| read.passwords.as_ref().is_some_and(|file| file.contains(user));
        if user.is_some_and(|user| !self.are_certified && !has_password(user)) {
            return None;
        }
        match &read.rules {
            Some(rules) => Some(rules.rights(user, client)),
            None => Some(Rights::everything()),
        }
    }
}
