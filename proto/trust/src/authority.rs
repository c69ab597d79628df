//! The fabric's own certificate authority: one key that signs for brokers and nodes.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, DnsName};

use super::fingerprint::Fingerprint;
use super::key::KeyPem;
use super::particulars::{self, Particulars, ParticularsError};
use super::random::NoRandomness;
use super::request::{self, RequestError};
use super::revocation::Revocations;
use super::serial::Serial;
use super::validity::{ClockError, Validity};

/// How long an authority counts.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3653);
/// How long what it issues counts.
pub(super) const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 90);

/// Why the authority cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The clock is plainly wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// No serial number could be drawn.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// Its certificate cannot be read.
    #[error("the authority's certificate cannot be read: put it back from a copy")]
    Certificate(#[from] ParticularsError),
    /// Its key cannot be read.
    #[error("the authority's key cannot be read (ECDSA P-256 in PKCS #8 PEM): put back a copy")]
    Key {
        /// The reader's word.
        source: rcgen::Error,
    },
    /// Key and certificate are of two authorities.
    #[error(
        "the key does not belong to the authority's certificate {fingerprint}: put both back \
         from the same copy"
    )]
    Mismatch {
        /// The certificate's fingerprint.
        fingerprint: Fingerprint,
    },
    /// The certificate is a broker's or a node's.
    #[error("the certificate {fingerprint} is not an authority's: give the fabric's own")]
    NotAnAuthority {
        /// The certificate's fingerprint.
        fingerprint: Fingerprint,
    },
    /// Its time is over.
    #[error("the authority ended at {at}: make a new one and let every node join again")]
    Ended {
        /// When it ended.
        at: Timestamp,
    },
    /// A broker's certificate needs names to be found by.
    #[error("a broker's certificate needs at least one name: give the addresses clients use")]
    NoNames,
    /// A client could never reach a broker by this name.
    #[error("`{name}` is neither a DNS name nor an IP address: give it as clients write it")]
    ServerName {
        /// The name.
        name: String,
    },
    /// The node's request is not in order.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Something could not be made or signed.
    #[error("cannot make {what}: try again")]
    Make {
        /// What it was.
        what: &'static str,
        /// The maker's word.
        source: rcgen::Error,
    },
}

/// The fabric's authority: its certificate, and the key that signs for the fabric.
///
/// Whoever has [`Authority::key_pem`] can be any node of the fabric.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    validity: Validity,
    fingerprint: Fingerprint,
}

/// A certificate that the authority signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The number by which it is revoked.
    pub serial: Serial,
    /// How long it counts.
    pub validity: Validity,
    /// The certificate alone.
    pub cert_pem: String,
    /// The certificate, then the authority's: what a TLS server must send, since a joining
    /// node knows no more of the authority than its fingerprint.
    pub chain_pem: String,
}

/// A broker's certificate and key.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    /// The certificate.
    pub issued: Issued,
    /// Its private key.
    pub key_pem: KeyPem,
}

impl Authority {
    /// Makes an authority for the fabric of this id: ECDSA P-256, good for ten years.
    ///
    /// # Errors
    /// [`AuthorityError::Clock`], [`AuthorityError::Random`] and [`AuthorityError::Make`].
    pub fn create(fabric: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| AuthorityError::Make { what: "the authority's key", source })?;
        Self::sign_itself(named(&format!("godwit fabric {fabric}")), pair, now)
    }

    /// The same authority for ten years more: its name, key and fingerprint stay, and what it has
    /// issued counts on. Whoever trusts its certificate itself, and not its fingerprint, needs the
    /// new one before the old one ends.
    ///
    /// # Errors
    /// [`AuthorityError::Clock`], [`AuthorityError::Random`] and [`AuthorityError::Make`].
    pub fn renewed(&self, now: Timestamp) -> Result<Self, AuthorityError> {
        let pair = KeyPair::from_pem(self.key_pem().as_str())
            .map_err(|source| AuthorityError::Key { source })?;
        let parsed = particulars::parse(&self.certificate)?;
        let name = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok());
        Self::sign_itself(named(name.unwrap_or_default()), pair, now)
    }

    fn sign_itself(
        name: DistinguishedName,
        pair: KeyPair,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let validity = Validity::starting(now, AUTHORITY_LIFE)?;
        let mut params = blank(name, Serial::random()?, validity)?;
        // It signs brokers and nodes, never another authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let failed = |source| AuthorityError::Make { what: "the authority", source };
        let certificate = params.self_signed(&pair).map_err(failed)?;
        Self::assemble(certificate.into(), pair)
    }

    /// Takes up an authority that was made before.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`], [`AuthorityError::Key`],
    /// [`AuthorityError::Mismatch`] and [`AuthorityError::NotAnAuthority`].
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let pair = KeyPair::from_pkcs8_pem_and_sign_algo(key_pem, &PKCS_ECDSA_P256_SHA256)
            .map_err(|source| AuthorityError::Key { source })?;
        Self::assemble(particulars::certificate(cert_pem)?, pair)
    }

    fn assemble(
        certificate: CertificateDer<'static>,
        pair: KeyPair,
    ) -> Result<Self, AuthorityError> {
        let fingerprint = Fingerprint::of(&certificate)?;
        let parsed = particulars::parse(&certificate)?;
        if !parsed.is_ca() {
            return Err(AuthorityError::NotAnAuthority { fingerprint });
        }
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(AuthorityError::Mismatch { fingerprint });
        }
        let validity = Particulars::of_der(&certificate)?.validity;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair)
            .map_err(|source| AuthorityError::Make { what: "an issuer of it", source })?;
        Ok(Self { issuer, certificate, validity, fingerprint })
    }

    /// Its certificate, for everybody.
    pub fn cert_pem(&self) -> String {
        pem(&self.certificate)
    }

    /// Its private key, for the file that only the controller reads.
    pub fn key_pem(&self) -> KeyPem {
        KeyPem::of(self.issuer.key())
    }

    /// What tokens and the mDNS record name it by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// How long it counts.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Issues a broker's certificate with a new key, for the DNS names and IP addresses by
    /// which clients reach it; good for 90 days.
    ///
    /// # Errors
    /// [`AuthorityError::NoNames`], [`AuthorityError::ServerName`],
    /// [`AuthorityError::Ended`] and those of [`Authority::create`].
    pub fn issue_server(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<ServerIdentity, AuthorityError> {
        if names.is_empty() {
            return Err(AuthorityError::NoNames);
        }
        let alternatives = names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| AuthorityError::Make { what: "a broker's key", source })?;
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let issued = self.issue(named("godwit broker"), alternatives, usage, &pair, now)?;
        Ok(ServerIdentity { issued, key_pem: KeyPem::of(&pair) })
    }

    /// Issues a node's certificate for the key in its request; good for 90 days.
    ///
    /// The caller has made sure that whoever sent the request may be `node`: it redeemed an
    /// invitation, or speaks with that node's certificate.
    ///
    /// # Errors
    /// [`AuthorityError::Request`], [`AuthorityError::Ended`] and those of
    /// [`Authority::create`].
    pub fn issue_node(
        &self,
        node: &str,
        csr_pem: &str,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let key = request::accept(csr_pem, node)?;
        let subject = request::common_name(node).map_err(RequestError::from)?;
        self.issue(subject, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, &key, now)
    }

    /// Signs the list of revoked certificates, as PEM.
    ///
    /// A server that takes it up must also forget its TLS sessions (a new session store and
    /// ticketer): a resumed session shows no certificate, so no list is asked. Connections
    /// that stand are the caller's to cut.
    ///
    /// # Errors
    /// [`AuthorityError::Clock`] and [`AuthorityError::Make`].
    pub fn revocation_list(
        &self,
        revocations: &Revocations,
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        let failed = |source| AuthorityError::Make { what: "a revocation list", source };
        revocations.list(now)?.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(failed)
    }

    fn issue(
        &self,
        subject: DistinguishedName,
        alternatives: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        key: &impl PublicKeyData,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        if now > self.validity.not_after {
            return Err(AuthorityError::Ended { at: self.validity.not_after });
        }
        let serial = Serial::random()?;
        let validity = Validity::starting(now, LEAF_LIFE)?.within(self.validity);
        let mut params = blank(subject, serial, validity)?;
        params.subject_alt_names = alternatives;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(|source| AuthorityError::Make { what: "a certificate", source })?;
        let cert_pem = pem(certificate.der());
        let chain_pem = cert_pem.clone() + &self.cert_pem();
        Ok(Issued { serial, validity, cert_pem, chain_pem })
    }
}

/// What every certificate has.
fn blank(
    subject: DistinguishedName,
    serial: Serial,
    validity: Validity,
) -> Result<CertificateParams, ClockError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    (params.not_before, params.not_after) = validity.ends()?;
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// One name by which a broker is reached. `DnsName` drops the closing dot that mDNS writes:
/// names in certificates have none.
fn alternative(name: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let refused = || AuthorityError::ServerName { name: name.chars().take(80).collect() };
    let dns = DnsName::try_from(name).map_err(|_| refused())?;
    Ok(SanType::DnsName(dns.as_ref().try_into().map_err(|_| refused())?))
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let line_ending = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.to_vec()), line_ending)
}
