//! A joining node's first contact: it knows a fingerprint and nothing else.

use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::{CertificateError, Error};

use super::wire::{Agreed, Refusal, VERSIONS, client, meet, server};
use super::*;
use crate::{Fingerprint, PinError, PinnedVerifier};

const AT: &str = "broker.local:8883";

/// A node with a token that names `pinned` comes to a broker that shows this chain.
fn comes(pinned: Fingerprint, shown: (&str, &KeyPem), now: Timestamp) -> Result<Agreed, Refusal> {
    let [old, new] = VERSIONS.map(|version| {
        let verifier = Arc::new(PinnedVerifier::new(AT, pinned));
        let client = client(version, verifier, None, now);
        meet(&client, &server(version, shown, None, now), "broker.local")
    });
    assert_eq!(old.is_ok(), new.is_ok(), "{old:?} {new:?}");
    new
}

fn refused(met: Result<Agreed, Refusal>) -> Error {
    match met {
        Err(Refusal::ByClient(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broker_of_the_pinned_authority_is_trusted() {
    let authority = authority();
    let broker = authority.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let shown = (broker.issued.chain_pem.as_str(), &broker.key_pem);
    comes(authority.fingerprint(), shown, noon()).unwrap();
}

#[test]
fn a_broker_of_another_authority_is_refused_with_both_fingerprints_and_what_to_do() {
    let (ours, theirs) = (authority(), authority());
    let broker = theirs.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let shown = (broker.issued.chain_pem.as_str(), &broker.key_pem);
    let error = refused(comes(ours.fingerprint(), shown, noon()));
    let expected = PinError::OtherAuthority {
        broker: AT.into(),
        shown: theirs.fingerprint(),
        pinned: ours.fingerprint(),
    };
    assert_eq!(PinError::within(&error), Some(&expected));
    let told = format!(
        "the broker at {AT} shows another authority ({}) than the token names ({}): \
         wrong fabric, or somebody in between; make a new token there",
        theirs.fingerprint(),
        ours.fingerprint(),
    );
    assert!(error.to_string().ends_with(&told), "{error}");
}

#[test]
fn a_broker_that_keeps_its_authority_to_itself_is_told_so() {
    let authority = authority();
    let broker = authority.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let shown = (broker.issued.cert_pem.as_str(), &broker.key_pem);
    let error = refused(comes(authority.fingerprint(), shown, noon()));
    assert!(matches!(PinError::within(&error), Some(PinError::NoAuthority { .. })), "{error}");
}

#[test]
fn showing_the_right_authority_beside_ones_own_helps_nobody() {
    let (ours, theirs) = (authority(), authority());
    let broker = theirs.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let own = &broker.issued.cert_pem;
    let (with_own, without) = (broker.issued.chain_pem.clone(), own.clone());
    for chain in [with_own + &ours.cert_pem(), without + &ours.cert_pem()] {
        let error = refused(comes(ours.fingerprint(), (&chain, &broker.key_pem), noon()));
        assert!(matches!(PinError::within(&error), Some(PinError::Borrowed { .. })), "{error}");
    }
}

#[test]
fn copying_the_brokers_whole_chain_helps_nobody_who_has_not_its_key() {
    let authority = authority();
    let broker = authority.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let other = authority.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let shown = (broker.issued.chain_pem.as_str(), &other.key_pem);
    let error = refused(comes(authority.fingerprint(), shown, noon()));
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::BadSignature)), "{error}");
}

#[test]
fn the_authority_is_found_wherever_it_stands_in_the_chain() {
    let (ours, theirs) = (authority(), authority());
    let broker = ours.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let chain = broker.issued.chain_pem.clone() + &theirs.cert_pem();
    comes(ours.fingerprint(), (&chain, &broker.key_pem), noon()).unwrap();
}

#[test]
fn pinning_the_brokers_own_certificate_is_not_enough() {
    let authority = authority();
    let broker = authority.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let own = super::wire::chain(&broker.issued.cert_pem);
    let shown = (broker.issued.chain_pem.as_str(), &broker.key_pem);
    let error = refused(comes(Fingerprint::of(&own[0]).unwrap(), shown, noon()));
    assert!(PinError::within(&error).is_some(), "{error}");
}

#[test]
fn a_node_of_the_fabric_does_not_pass_for_its_broker() {
    let authority = authority();
    let (issued, key) = joined(&authority, "edge-a", noon());
    let error = refused(comes(authority.fingerprint(), (&issued.chain_pem, &key), noon()));
    let is_told =
        matches!(error, Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. }));
    assert!(is_told, "{error}");
}

#[test]
fn dates_count_at_the_first_contact_too() {
    let authority = authority();
    let pinned = authority.fingerprint();
    let broker = authority.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let shown = (broker.issued.chain_pem.as_str(), &broker.key_pem);
    let Error::InvalidCertificate(error) = refused(comes(pinned, shown, noon() + DAY * 91)) else {
        panic!("not a certificate error")
    };
    assert!(matches!(error, CertificateError::ExpiredContext { .. }), "{error}");
    let Error::InvalidCertificate(error) = refused(comes(pinned, shown, noon() - DAY)) else {
        panic!("not a certificate error")
    };
    assert!(matches!(error, CertificateError::NotValidYetContext { .. }), "{error}");
}

#[test]
fn a_node_that_joined_long_ago_believes_a_broker_of_the_renewed_authority() {
    let old = authority();
    let (pinned, late) = (old.fingerprint(), old.validity().not_after - DAY);
    let new = old.renewed(late).unwrap();
    let broker = new.issue_server(&names(&["broker.local"]), late).unwrap();
    let shown = (broker.issued.chain_pem.as_str(), &broker.key_pem);
    comes(pinned, shown, late).unwrap();
    comes(pinned, shown, late + DAY * 30).unwrap();
}

#[test]
fn an_authority_that_ended_is_refused_although_its_broker_claims_to_go_on() {
    let authority = authority();
    let ended = authority.validity().not_after + DAY;
    // Only whoever stole the key would sign this: the authority itself no longer does.
    let stolen = KeyPair::from_pem(authority.key_pem().as_str()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&authority.cert_pem(), stolen).unwrap();
    let params = CertificateParams::new(names(&["broker.local"])).unwrap();
    let own = authority.issue_server(&names(&["broker.local"]), noon()).unwrap();
    let pair = KeyPair::from_pem(own.key_pem.as_str()).unwrap();
    let chain = params.signed_by(&pair, &issuer).unwrap().pem() + &authority.cert_pem();
    comes(authority.fingerprint(), (&chain, &own.key_pem), ended - DAY).unwrap();
    let error = refused(comes(authority.fingerprint(), (&chain, &own.key_pem), ended));
    let is_told =
        matches!(error, Error::InvalidCertificate(CertificateError::ExpiredContext { .. }));
    assert!(is_told, "{error}");
}
