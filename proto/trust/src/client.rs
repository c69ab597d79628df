//! What a client of the fabric's broker says hello with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SignatureScheme};

use super::fingerprint::Fingerprint;
use super::pin::PinnedVerifier;

/// A node's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    /// Certificate or key is not readable.
    #[error("the node's certificate or key is damaged: join again with a new token")]
    Pem(#[from] pem::Error),
    /// They do not belong together.
    #[error("the node's certificate cannot be used: join again with a new token")]
    Tls(#[from] rustls::Error),
}

/// Shows a certificate, which can be replaced: connections from then on show the next one.
#[derive(Debug)]
pub struct Bearer(ArcSwap<CertifiedKey>);

impl Bearer {
    /// The bearer of a chain with its key, in PEM.
    ///
    /// # Errors
    /// [`BearerError`].
    pub fn new(chain: &str, key: &str) -> Result<Self, BearerError> {
        read(chain, key).map(|read| Self(ArcSwap::from_pointee(read)))
    }

    /// Shows another one from now on.
    ///
    /// # Errors
    /// [`BearerError`]; what was shown before is shown on then.
    pub fn replace(&self, chain: &str, key: &str) -> Result<(), BearerError> {
        self.0.store(Arc::new(read(chain, key)?));
        Ok(())
    }
}

fn read(chain: &str, key: &str) -> Result<CertifiedKey, BearerError> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

impl ResolvesClientCert for Bearer {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// TLS to a broker of the fabric whose authority has that fingerprint. `broker` is its address as
/// people know it, for messages; `bearer` what the client shows, if it has anything.
///
/// # Errors
/// When no version of TLS can be spoken.
pub fn client(
    broker: &str,
    authority: Fingerprint,
    bearer: Option<Arc<Bearer>>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier::new(broker, authority)));
    Ok(Arc::new(match bearer {
        Some(bearer) => builder.with_client_cert_resolver(bearer),
        None => builder.with_no_client_auth(),
    }))
}
