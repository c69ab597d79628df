//! Two TLS ends that hand each other their bytes, at a time that the test chooses.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};

use crate::KeyPem;

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A clock that stands still.
#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Which end gave up, and why.
#[derive(Debug)]
pub(super) enum Refusal {
    ByClient(Error),
    ByServer(Error),
}

/// What stood at the end of a handshake.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) client_chain: Vec<CertificateDer<'static>>,
    pub(super) is_resumed: bool,
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(super) fn roots(cert_pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cert_pem.as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

pub(super) fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn key(pem: &KeyPem) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_str().as_bytes()).unwrap()
}

/// A server that asks every client for a certificate when `clients` names an authority (and
/// its revocation list), and nobody otherwise.
pub(super) fn server(
    version: &'static SupportedProtocolVersion,
    (chain_pem, key_pem): (&str, &KeyPem),
    clients: Option<(&str, Option<&str>)>,
    now: Timestamp,
) -> Arc<ServerConfig> {
    let verifier = match clients {
        None => Arc::new(NoClientAuth),
        Some((authority_pem, list)) => {
            let lists = list
                .map(|pem| CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap());
            WebPkiClientVerifier::builder_with_provider(roots(authority_pem), provider())
                .with_crls(lists)
                .build()
                .unwrap()
        }
    };
    // Not `with_single_cert`, which would notice a key that belongs to another certificate.
    let signing = provider().key_provider.load_private_key(key(key_pem)).unwrap();
    let certified = CertifiedKey::new(chain(chain_pem), signing);
    let config = ServerConfig::builder_with_details(provider(), Arc::new(At(now)))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Arc::new(config)
}

/// Trusts the authority as a node does that has joined.
pub(super) fn knows(authority_pem: &str) -> Arc<dyn ServerCertVerifier> {
    WebPkiServerVerifier::builder_with_provider(roots(authority_pem), provider()).build().unwrap()
}

pub(super) fn client(
    version: &'static SupportedProtocolVersion,
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<(&str, &KeyPem)>,
    now: Timestamp,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(At(now)))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((chain_pem, key_pem)) => {
            builder.with_client_auth_cert(chain(chain_pem), key(key_pem)).unwrap()
        }
    })
}

/// Shakes hands and says a word in each direction.
pub(super) fn meet(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Agreed, Refusal> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    client.writer().write_all(b"ping").unwrap();
    server.writer().write_all(b"pong").unwrap();
    loop {
        let mut to_server = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        let mut rest = &to_server[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Refusal::ByServer)?;
        }
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let mut rest = &to_client[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Refusal::ByClient)?;
        }
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
    }
    let mut word = [0; 4];
    server.reader().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ping");
    client.reader().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
    let client_chain = server.peer_certificates().unwrap_or_default();
    Ok(Agreed {
        client_chain: client_chain.iter().map(|one| one.clone().into_owned()).collect(),
        is_resumed: server.handshake_kind() == Some(HandshakeKind::Resumed),
    })
}
