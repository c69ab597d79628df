//! What people and tokens know an authority by.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::hex;
use super::particulars::{ParticularsError, parse};

/// The SHA-256 of a certificate's public key (its SubjectPublicKeyInfo in DER), shown as 64 lowercase
/// hexadecimal digits. An authority that is renewed keeps its key, and so its fingerprint.
///
/// It is public: an authority's stands in every token and in the broker's mDNS record.
/// `openssl x509 -in authority.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum`
/// shows the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a fingerprint: 64 hexadecimal digits, as the broker shows its authority's")]
pub struct FingerprintError(String);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    ///
    /// # Errors
    /// [`ParticularsError`] for what is no certificate.
    pub fn of(certificate_der: &[u8]) -> Result<Self, ParticularsError> {
        Ok(Self::of_key(parse(certificate_der)?.public_key().raw))
    }

    fn of_key(key_der: &[u8]) -> Self {
        Self(Sha256::digest(key_der).into())
    }

    /// The 32 bytes as they are.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}
impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        hex::read(text).map(Self).ok_or_else(|| FingerprintError(text.chars().take(80).collect()))
    }
}
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_shown_as_sha256sum_shows_it_and_read_back() {
        let shown = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Fingerprint::of_key(b"abc").to_string(), shown);
        assert_eq!(shown.parse(), Ok(Fingerprint::of_key(b"abc")));
        assert_eq!(shown.to_uppercase().parse(), Ok(Fingerprint::of_key(b"abc")));
    }

    #[test]
    fn a_text_that_is_short_long_or_not_hexadecimal_is_no_fingerprint() {
        let shown = Fingerprint::of_key(b"abc").to_string();
        for text in ["", &shown[1..], &format!("{shown}0"), &shown.replace('b', "g")] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
        assert!("é".repeat(32).parse::<Fingerprint>().is_err());
    }
}
