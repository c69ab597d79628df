//! The broker's certificate, and whom it asks for theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use super::config::{Clients, TlsConfig};

/// What may be spoken in TLS. A client that names protocols must name one of these, and
/// browsers name the second for WebSocket.
const PROTOCOLS: [&[u8]; 2] = [b"mqtt", b"http/1.1"];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("cannot use {path}: may the broker read it, and is it PEM with a {wanted} in it?")]
    Read {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What went wrong.
        source: pem::Error,
    },
    /// Certificate and key do not make a server.
    #[error("{certificate} and {key} cannot be used together: do they belong to each other?")]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// An authority's certificate cannot be trusted.
    #[error("{path} has a certificate that is no authority's: remove it from the file")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// The authorities do not make a verifier.
    #[error("clients cannot be verified with {path}: it must hold their authorities")]
    Verifier {
        /// The file.
        path: PathBuf,
        /// What the TLS library said.
        source: VerifierBuilderError,
    },
}

/// A certificate to show to clients, which can be replaced while they are connected.
#[derive(Debug)]
pub struct Tls {
    files: TlsConfig,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files that `files` names.
    ///
    /// # Errors
    /// When one cannot be read, or they do not fit together.
    pub fn load(files: TlsConfig) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again, for clients that connect from now on: what is connected
    /// stays as it is, but no old session is resumed.
    ///
    /// # Errors
    /// Like [`load`](Self::load); everything then stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.show(self.next()?);
        Ok(())
    }

    /// What the files say now, not shown yet.
    pub(crate) fn next(&self) -> Result<Arc<ServerConfig>, TlsError> {
        read(&self.files).map(Arc::new)
    }

    /// Shows it to clients that connect from now on.
    pub(crate) fn show(&self, next: Arc<ServerConfig>) {
        self.current.store(next);
    }

    /// What to accept the next client with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

fn read(files: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let chain = read_certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Read {
        path: files.key.clone(),
        wanted: "private key",
        source,
    })?;
    let mismatch = |source| TlsError::Mismatch {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = match &files.clients {
        Some(clients) => verifier(clients, Arc::clone(&provider))?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(mismatch)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(mismatch)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn verifier(
    clients: &Clients,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = &clients.authorities;
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let authority = |source| TlsError::Authority { path: path.clone(), source };
        roots.add(certificate).map_err(authority)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|source| TlsError::Verifier { path: path.clone(), source })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |source| TlsError::Read { path: path.to_owned(), wanted: "certificate", source };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unusable)?;
    if certificates.is_empty() {
        return Err(unusable(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}
