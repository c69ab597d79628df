//! Trusting a broker by the fingerprint of its fabric's authority, and by nothing else.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::fingerprint::Fingerprint;
use super::particulars::Particulars;

/// Why a broker is not the one that a token names. What rustls reports holds it:
/// [`PinError::within`] finds it there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Its chain has another authority.
    #[error(
        "the broker at {broker} shows another authority ({shown}) than the token names \
         ({pinned}): wrong fabric, or somebody in between; make a new token there"
    )]
    OtherAuthority {
        /// Where the broker is.
        broker: String,
        /// The last certificate of its chain.
        shown: Fingerprint,
        /// What the token names.
        pinned: Fingerprint,
    },
    /// Its chain has no authority.
    #[error(
        "the broker at {broker} does not show its authority, which should be {pinned}: let it \
         send its whole chain; or it is the wrong broker"
    )]
    NoAuthority {
        /// Where the broker is.
        broker: String,
        /// What the token names.
        pinned: Fingerprint,
    },
    /// Its chain has the right authority, which anybody can copy, and a certificate that
    /// this authority did not sign.
    #[error(
        "the broker at {broker} shows the token's authority ({pinned}), which did not sign its \
         certificate: wrong broker, or somebody in between; make a new token there"
    )]
    Borrowed {
        /// Where the broker is.
        broker: String,
        /// What the token names.
        pinned: Fingerprint,
    },
}

impl PinError {
    /// Finds it in what rustls reports.
    pub fn within(error: &Error) -> Option<&Self> {
        match error {
            Error::Other(OtherError(cause)) => cause.downcast_ref(),
            _ => None,
        }
    }
}

// Not as a certificate error: of those rustls shows people the `Debug` form.
impl From<PinError> for Error {
    fn from(error: PinError) -> Self {
        Self::Other(OtherError(Arc::new(error)))
    }
}

/// Trusts exactly those brokers whose chain has the authority that a token names.
///
/// The authority is taken from the handshake and recognised by its fingerprint; then the
/// chain is verified against it as against any other, signature, purpose and dates. Names are
/// not asked: the authority signs a server's certificate for none but the fabric's brokers,
/// and a gateway's address may change with every lease.
#[derive(Debug)]
pub struct PinnedVerifier {
    broker: String,
    pinned: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedVerifier {
    /// Trusts what `pinned` names at `broker`, the address as people know it.
    pub fn new(broker: impl Into<String>, pinned: Fingerprint) -> Self {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Self { broker: broker.into(), pinned, algorithms }
    }

    /// The certificate with the pinned fingerprint, among those that came after the broker's.
    fn authority<'a>(
        &self,
        chain: &'a [CertificateDer<'a>],
    ) -> Result<&'a CertificateDer<'a>, PinError> {
        let (broker, pinned) = (self.broker.clone(), self.pinned);
        let Some(Ok(shown)) = chain.last().map(|last| Fingerprint::of(last)) else {
            return Err(PinError::NoAuthority { broker, pinned });
        };
        let is_it = |certificate: &&CertificateDer<'_>| {
            Fingerprint::of(certificate).is_ok_and(|found| found == pinned)
        };
        chain.iter().find(is_it).ok_or(PinError::OtherAuthority { broker, shown, pinned })
    }

    /// A chain that does not lead to the authority, in words that say what that means here.
    fn explained(&self, error: Error) -> Error {
        use CertificateError::{BadSignature, UnknownIssuer};
        match error {
            Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
                PinError::Borrowed { broker: self.broker.clone(), pinned: self.pinned }.into()
            }
            other => other,
        }
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = self.authority(intermediates)?;
        counts(authority, now)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &roots,
            intermediates,
            now,
            self.algorithms.all,
        )
        .map_err(|error| self.explained(error))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Refuses an authority whose own time is over: webpki takes trust anchors without a look
/// at their dates.
fn counts(authority: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity =
        Particulars::of_der(authority).map_err(|_| CertificateError::BadEncoding)?.validity;
    let (not_before, not_after) = (unix(validity.not_before)?, unix(validity.not_after)?);
    if now < not_before {
        Err(CertificateError::NotValidYetContext { time: now, not_before }.into())
    } else if now > not_after {
        Err(CertificateError::ExpiredContext { time: now, not_after }.into())
    } else {
        Ok(())
    }
}

fn unix(at: Timestamp) -> Result<UnixTime, Error> {
    let seconds = u64::try_from(at.as_second()).map_err(|_| CertificateError::BadEncoding)?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}
