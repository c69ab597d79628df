//! What a client of the fabric's broker says hello with.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};

use super::fingerprint::Fingerprint;
use super::pin::PinnedVerifier;

/// A client cannot use its certificate.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Certificate or key is not readable.
    #[error("the node's certificate or key is damaged: join again with a new token")]
    Pem(#[from] pem::Error),
    /// They do not belong together.
    #[error("the node's certificate cannot be used: join again with a new token")]
    Tls(#[from] rustls::Error),
}

/// TLS to a broker of the fabric whose authority has that fingerprint. `broker` is its address as
/// people know it, for messages; `bearer` is the client's chain and key in PEM, if it has one.
///
/// # Errors
/// When `bearer` cannot be used.
pub fn client(
    broker: &str,
    authority: Fingerprint,
    bearer: Option<(&str, &str)>,
) -> Result<Arc<ClientConfig>, ClientError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier::new(broker, authority)));
    let config = match bearer {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
                .collect::<Result<Vec<_>, _>>()?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(Arc::new(config))
}
