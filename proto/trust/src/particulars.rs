//! What a certificate says about itself.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer as _;

use super::name;
use super::serial::Serial;
use super::validity::Validity;

/// The little of a certificate that the fabric acts on.
///
/// Reading proves nothing: what is believed must have been verified against the authority
/// before, as TLS does it for a connection's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Particulars {
    /// The number by which it is revoked.
    pub serial: Serial,
    /// The node that it makes its bearer; `None` for a broker's or the authority's own.
    pub node: Option<String>,
    /// How long it counts.
    pub validity: Validity,
}

/// A certificate cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParticularsError {
    /// There is no certificate in the text.
    #[error("there is no readable certificate in the text: expected `BEGIN CERTIFICATE` (PEM)")]
    Pem {
        /// What the reader stumbled over.
        source: pem::Error,
    },
    /// The bytes are not a certificate.
    #[error("the certificate is damaged: put it back from a copy, or have a new one issued")]
    Damaged {
        /// What the reader stumbled over.
        source: x509_parser::nom::Err<X509Error>,
    },
    /// It is not one of this fabric's.
    #[error("the certificate was not made by a fabric ({what}): use one that its authority issued")]
    Foreign {
        /// What gave it away.
        what: &'static str,
    },
}

impl Particulars {
    /// Reads the first certificate in a PEM text.
    ///
    /// # Errors
    /// [`ParticularsError`].
    pub fn of_pem(text: &str) -> Result<Self, ParticularsError> {
        Self::of_der(&certificate(text)?)
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`ParticularsError::Damaged`] and [`ParticularsError::Foreign`].
    pub fn of_der(der: &[u8]) -> Result<Self, ParticularsError> {
        let foreign = |what| ParticularsError::Foreign { what };
        let certificate = parse(der)?;
        let at = |time: i64| Timestamp::from_second(time).map_err(|_| foreign("its dates"));
        let common_name = certificate.subject().iter_common_name().next();
        let node = common_name
            .and_then(|name| name.as_str().ok())
            .and_then(name::node_of)
            .map(str::to_owned);
        Ok(Self {
            serial: Serial::of_der(certificate.raw_serial()).ok_or(foreign("its serial number"))?,
            node,
            validity: Validity {
                not_before: at(certificate.validity().not_before.timestamp())?,
                not_after: at(certificate.validity().not_after.timestamp())?,
            },
        })
    }
}

/// The first certificate in a PEM text.
pub(super) fn certificate(text: &str) -> Result<CertificateDer<'static>, ParticularsError> {
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|source| ParticularsError::Pem { source })
}

/// A certificate, and nothing after it.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, ParticularsError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(ParticularsError::Foreign { what: "bytes after its end" }),
        Err(source) => Err(ParticularsError::Damaged { source }),
    }
}
