//! Nodes and brokers that know the authority: who gets through, and who does not.

use std::sync::Arc;

use jiff::SignedDuration;
use rustls::{
    CertRevocationListError, CertificateError, Error, ServerConfig, SupportedProtocolVersion,
};

use super::wire::{Agreed, Refusal, VERSIONS, client, knows, meet, server};
use super::*;
use crate::{Particulars, Revocations, ServerIdentity};

/// A fabric with a broker and a node, both made at noon.
struct Fabric {
    authority: Authority,
    broker: ServerIdentity,
    node: (Issued, KeyPem),
}

impl Fabric {
    fn new() -> Self {
        let authority = authority();
        let reached_as = names(&["broker.local.", "192.0.2.7", "2001:db8::7"]);
        let broker = authority.issue_server(&reached_as, noon()).unwrap();
        let node = joined(&authority, "edge-a", noon());
        Self { authority, broker, node }
    }

    /// The broker's end, which lets in whom the authority vouches for.
    fn end(
        &self,
        version: &'static SupportedProtocolVersion,
        revocations: &Revocations,
        now: Timestamp,
    ) -> Arc<ServerConfig> {
        let list = self.authority.revocation_list(revocations, now).unwrap();
        let identity = (self.broker.issued.chain_pem.as_str(), &self.broker.key_pem);
        server(version, identity, Some((&self.authority.cert_pem(), Some(&list))), now)
    }

    /// `node` comes to the broker, nobody being revoked.
    fn comes(
        &self,
        version: &'static SupportedProtocolVersion,
        (issued, key): &(Issued, KeyPem),
        name: &str,
        now: Timestamp,
    ) -> Result<Agreed, Refusal> {
        let identity = Some((issued.cert_pem.as_str(), key));
        let client = client(version, knows(&self.authority.cert_pem()), identity, now);
        meet(&client, &self.end(version, &Revocations::default(), now), name)
    }
}

fn refused_by_server(met: Result<Agreed, Refusal>) -> CertificateError {
    match met {
        Err(Refusal::ByServer(Error::InvalidCertificate(error))) => error,
        other => panic!("{other:?}"),
    }
}

fn refused_by_client(met: Result<Agreed, Refusal>) -> CertificateError {
    match met {
        Err(Refusal::ByClient(Error::InvalidCertificate(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn node_and_broker_know_each_other_by_any_of_the_brokers_names() {
    let fabric = Fabric::new();
    for version in VERSIONS {
        for name in ["broker.local", "192.0.2.7", "2001:db8::7"] {
            let agreed = fabric.comes(version, &fabric.node, name, noon()).unwrap();
            let read = Particulars::of_der(&agreed.client_chain[0]).unwrap();
            assert_eq!(read.node.as_deref(), Some("edge-a"));
            assert_eq!(read.serial, fabric.node.0.serial);
        }
    }
}

#[test]
fn a_clock_that_is_four_minutes_slow_is_no_obstacle() {
    let fabric = Fabric::new();
    let slow = noon() - SignedDuration::from_mins(4);
    let list = fabric.authority.revocation_list(&Revocations::default(), noon()).unwrap();
    for version in VERSIONS {
        let identity = (fabric.broker.issued.chain_pem.as_str(), &fabric.broker.key_pem);
        let authority_pem = fabric.authority.cert_pem();
        let server = server(version, identity, Some((&authority_pem, Some(&list))), slow);
        let (issued, key) = &fabric.node;
        let client = client(version, knows(&authority_pem), Some((&issued.cert_pem, key)), slow);
        meet(&client, &server, "broker.local").unwrap();
    }
}

#[test]
fn a_broker_under_another_name_is_refused() {
    let fabric = Fabric::new();
    for name in ["other.local", "192.0.2.8"] {
        let met = fabric.comes(VERSIONS[1], &fabric.node, name, noon());
        let error = refused_by_client(met);
        assert!(matches!(error, CertificateError::NotValidForNameContext { .. }), "{error:?}");
    }
}

#[test]
fn a_node_without_a_certificate_is_refused() {
    let fabric = Fabric::new();
    for version in VERSIONS {
        let client = client(version, knows(&fabric.authority.cert_pem()), None, noon());
        let server = fabric.end(version, &Revocations::default(), noon());
        let met = meet(&client, &server, "broker.local");
        assert!(matches!(met, Err(Refusal::ByServer(Error::NoCertificatesPresented))), "{met:?}");
    }
}

#[test]
fn a_node_of_another_fabric_is_refused() {
    let (ours, theirs) = (Fabric::new(), Fabric::new());
    for version in VERSIONS {
        let error = refused_by_server(ours.comes(version, &theirs.node, "broker.local", noon()));
        // The same distinguished name, another key: the signature is what gives it away.
        let is_told =
            matches!(error, CertificateError::BadSignature | CertificateError::UnknownIssuer);
        assert!(is_told, "{error:?}");
    }
}

#[test]
fn certificates_that_ended_are_refused_on_both_sides() {
    let later = noon() + DAY * 91;
    for version in VERSIONS {
        let mut fabric = Fabric::new();
        let error = refused_by_client(fabric.comes(version, &fabric.node, "broker.local", later));
        assert!(matches!(error, CertificateError::ExpiredContext { .. }), "{error:?}");
        fabric.broker = fabric.authority.issue_server(&names(&["broker.local"]), later).unwrap();
        let error = refused_by_server(fabric.comes(version, &fabric.node, "broker.local", later));
        assert!(matches!(error, CertificateError::ExpiredContext { .. }), "{error:?}");
        fabric.node = joined(&fabric.authority, "edge-a", later);
        fabric.comes(version, &fabric.node, "broker.local", later).unwrap();
    }
}

#[test]
fn neither_a_node_passes_for_a_broker_nor_a_broker_for_a_node() {
    let fabric = Fabric::new();
    let authority_pem = fabric.authority.cert_pem();
    for version in VERSIONS {
        let (issued, key) = &fabric.node;
        let posing = server(version, (&issued.chain_pem, key), None, noon());
        let visitor = client(version, knows(&authority_pem), None, noon());
        let error = refused_by_client(meet(&visitor, &posing, "broker.local"));
        assert!(matches!(error, CertificateError::InvalidPurposeContext { .. }), "{error:?}");
        let posing = (fabric.broker.issued.clone(), fabric.broker.key_pem.clone());
        let error = refused_by_server(fabric.comes(version, &posing, "broker.local", noon()));
        assert!(matches!(error, CertificateError::InvalidPurposeContext { .. }), "{error:?}");
    }
}

#[test]
fn a_revoked_node_is_refused_and_its_neighbour_is_not() {
    let fabric = Fabric::new();
    let neighbour = joined(&fabric.authority, "edge-b", noon());
    let mut revocations = Revocations::default();
    revocations.revoke(fabric.node.0.serial, noon());
    for version in VERSIONS {
        let server = fabric.end(version, &revocations, noon());
        let arrive = |(issued, key): &(Issued, KeyPem)| {
            let identity = Some((issued.cert_pem.as_str(), key));
            let client = client(version, knows(&fabric.authority.cert_pem()), identity, noon());
            meet(&client, &server, "broker.local")
        };
        assert_eq!(refused_by_server(arrive(&fabric.node)), CertificateError::Revoked);
        arrive(&neighbour).unwrap();
        // The same node with a new certificate is let in: the number is revoked, not the name.
        arrive(&joined(&fabric.authority, "edge-a", noon())).unwrap();
    }
}

#[test]
fn a_revoked_node_cannot_resume_the_session_that_it_had() {
    let fabric = Fabric::new();
    let mut revocations = Revocations::default();
    for version in VERSIONS {
        let (issued, key) = &fabric.node;
        let identity = Some((issued.cert_pem.as_str(), key));
        let client = client(version, knows(&fabric.authority.cert_pem()), identity, noon());
        let before = fabric.end(version, &Revocations::default(), noon());
        assert!(!meet(&client, &before, "broker.local").unwrap().is_resumed);
        assert!(meet(&client, &before, "broker.local").unwrap().is_resumed);
        revocations.revoke(issued.serial, noon());
        let after = fabric.end(version, &revocations, noon());
        let error = refused_by_server(meet(&client, &after, "broker.local"));
        assert_eq!(error, CertificateError::Revoked);
    }
}

#[test]
fn a_list_signed_by_another_authority_lets_nobody_in() {
    let (fabric, other) = (Fabric::new(), authority());
    let list = other.revocation_list(&Revocations::default(), noon()).unwrap();
    let identity = (fabric.broker.issued.chain_pem.as_str(), &fabric.broker.key_pem);
    let authority_pem = fabric.authority.cert_pem();
    let server = server(VERSIONS[1], identity, Some((&authority_pem, Some(&list))), noon());
    let (issued, key) = &fabric.node;
    let client = client(VERSIONS[1], knows(&authority_pem), Some((&issued.cert_pem, key)), noon());
    let met = meet(&client, &server, "broker.local");
    let bad = CertRevocationListError::BadSignature;
    assert!(
        matches!(&met, Err(Refusal::ByServer(Error::InvalidCertRevocationList(error)))
            if *error == bad),
        "{met:?}"
    );
}
