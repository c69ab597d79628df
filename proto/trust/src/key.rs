//! A private key on its way to the disk.

use std::fmt;

/// A private key as PEM (PKCS #8). `Debug` hides it, and there is no `Display`: whoever
/// writes it down says so with [`KeyPem::as_str`], into a file that only its owner reads.
#[derive(Clone)]
pub struct KeyPem(String);

impl KeyPem {
    pub(super) fn of(pair: &rcgen::KeyPair) -> Self {
        Self(pair.serialize_pem())
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPem(hidden)")
    }
}
