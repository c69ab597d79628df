//! Authorities, certificates in files, and clients that use them.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::super::{Clients, TlsConfig};
use super::in_time;

/// An authority, and a folder with its certificate and the broker's.
pub(super) struct Papers {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(super) struct Passport {
    pub(super) certificate: rcgen::Certificate,
    pub(super) key: KeyPair,
}

impl Papers {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let papers = Self { folder: tempfile::tempdir().unwrap(), authority };
        papers.write("ca.pem", &papers.authority.pem());
        papers.renew();
        papers
    }

    /// Gives the broker another certificate.
    pub(super) fn renew(&self) -> CertificateDer<'static> {
        let passport = self.issue(None, &["localhost"]);
        self.write("broker.pem", &passport.certificate.pem());
        self.write("broker.key", &passport.key.serialize_pem());
        passport.certificate.der().clone()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(super) fn issue(&self, common_name: Option<&str>, dns_names: &[&str]) -> Passport {
        let names: Vec<_> = dns_names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        Passport { certificate, key }
    }

    /// The broker's side; `Some` if clients are asked, and whether they must answer.
    pub(super) fn broker(&self, required: Option<bool>) -> TlsConfig {
        let path = |name| self.folder.path().join(name);
        TlsConfig {
            certificate: path("broker.pem"),
            key: path("broker.key"),
            clients: required.map(|required| Clients { authorities: path("ca.pem"), required }),
        }
    }

    /// A client's side.
    pub(super) fn client(&self, passport: Option<&Passport>) -> ClientConfig {
        self.client_of(passport, tokio_rustls::rustls::DEFAULT_VERSIONS)
    }

    pub(super) fn client_of(
        &self,
        passport: Option<&Passport>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match passport {
            Some(Passport { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        }
    }
}

/// Connects and shakes hands.
pub(super) async fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    in_time(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// What the broker showed.
pub(super) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}
