//! What a node asks the authority for: its private key stays where it was made.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::key::KeyPem;
use super::name::{self, NodeNameError};

/// A node's new key and the request that goes with it.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// The private key, which never leaves the node.
    pub key_pem: KeyPem,
    /// The request (PKCS #10, PEM) that the node sends.
    pub csr_pem: String,
}

/// Why a node's request is not made, or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The name is not a node's.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// The key or the request could not be made.
    #[error("cannot make a key and a request for node `{node}`: try again")]
    Make {
        /// The node.
        node: String,
        /// The maker's word.
        source: rcgen::Error,
    },
    /// It is not a request at all.
    #[error("the request is not a readable PKCS #10 in PEM: let the node make a new one")]
    Unreadable,
    /// Its key is not of the kind that the fabric uses.
    #[error("the request's key is not ECDSA P-256: let the node make its key with godwit")]
    Key,
    /// Its sender does not have its key.
    #[error("the request is not signed by its own key: let the node make a new one")]
    Signature,
    /// It asks to be somebody else.
    #[error("the request is for `{asked}`, but only `{allowed}` is allowed: join under that name")]
    Subject {
        /// What the request says.
        asked: String,
        /// What the token, or the certificate in use, allows.
        allowed: String,
    },
}

/// Makes a key pair for a node, and the request to certify it.
///
/// # Errors
/// [`RequestError::Name`] and [`RequestError::Make`].
pub fn request_node(node: &str) -> Result<NodeRequest, RequestError> {
    let subject = common_name(node)?;
    let made = || {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        let csr_pem = params.serialize_request(&pair)?.pem()?;
        Ok(NodeRequest { key_pem: KeyPem::of(&pair), csr_pem })
    };
    made().map_err(|source| RequestError::Make { node: node.to_owned(), source })
}

/// The key that a request wants certified for `node`, when the request is in order.
///
/// Of the request only the key and the subject count: whatever else it asks for, such as
/// other names or to be an authority, is not even read.
///
/// # Errors
/// [`RequestError`], except [`RequestError::Make`].
pub(super) fn accept(csr_pem: &str, node: &str) -> Result<SubjectPublicKeyInfo, RequestError> {
    let allowed = name::common_name(node)?;
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| RequestError::Unreadable)?;
    let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
        return Err(RequestError::Unreadable);
    };
    let info = &request.certification_request_info;
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
        .ok()
        .filter(|key| key.algorithm() == &PKCS_ECDSA_P256_SHA256)
        .ok_or(RequestError::Key)?;
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    if sole_common_name(&info.subject) != Some(&allowed) {
        let asked = info.subject.to_string().chars().take(80).collect();
        return Err(RequestError::Subject { asked, allowed });
    }
    Ok(key)
}

/// The distinguished name of a node: its common name and nothing else.
pub(super) fn common_name(node: &str) -> Result<DistinguishedName, NodeNameError> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name::common_name(node)?);
    Ok(subject)
}

fn sole_common_name<'a>(subject: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = subject.iter_common_name();
    let common = names.next()?.as_str().ok()?;
    (subject.iter_attributes().count() == 1).then_some(common)
}
