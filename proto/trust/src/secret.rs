//! The one-time secret of a token, and what the controller keeps of it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::hex;
use super::random::{self, NoRandomness};

/// 32 random bytes that let one node in, once. `Debug` hides them.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// The SHA-256 of a secret: all that is stored, so that a stolen database lets nobody in.
///
/// A plain hash is enough, since a secret is random and cannot be guessed by trying.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

/// A text is not the hash of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored hash of a token's secret is not 64 hexadecimal digits: delete that token")]
pub struct SecretHashError;

impl Secret {
    /// A new one, which nobody could have foretold.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn random() -> Result<Self, NoRandomness> {
        random::bytes().map(Self)
    }

    /// What to store of it, and to find its invitation by.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0).into())
    }

    /// The bytes, for the one message that shows them to the broker.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Secret {
    /// As a password, for the one who signs in with it: 64 hexadecimal digits.
    pub fn reveal(&self) -> String {
        struct Shown<'a>(&'a [u8]);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex::write(f, self.0)
            }
        }
        Shown(&self.0).to_string()
    }

    /// Reads what [`reveal`](Self::reveal) wrote; `None` for anything else.
    pub fn read(text: &str) -> Option<Self> {
        hex::read(text).map(Self)
    }
}

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl SecretHash {
    /// True when it is this secret's, found out in a time that tells nothing about either.
    pub fn is_of(&self, secret: &Secret) -> bool {
        self.0.ct_eq(&secret.hash().0).into()
    }
}

impl FromStr for SecretHash {
    type Err = SecretHashError;
    fn from_str(text: &str) -> Result<Self, SecretHashError> {
        hex::read(text).map(Self).ok_or(SecretHashError)
    }
}
impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_secret_only_also_after_being_written_down() {
        let (secret, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        let hash: SecretHash = secret.hash().to_string().parse().unwrap();
        assert!(hash.is_of(&secret));
        assert!(!hash.is_of(&other));
        let again = Secret::read(&secret.reveal()).unwrap();
        assert!(hash.is_of(&again));
        assert!(Secret::read("stale").is_none());
        assert_eq!("stale".parse::<SecretHash>(), Err(SecretHashError));
    }

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        assert_eq!(format!("{:?}", Secret::from([7; 32])), "Secret(hidden)");
    }
}
