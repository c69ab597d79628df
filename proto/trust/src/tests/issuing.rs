//! What the authority makes, what it refuses, and that it survives being written down.

use rcgen::{CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::*;
use crate::{AuthorityError, Fingerprint, Particulars, RequestError};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A request that a node could have made with other tools.
fn foreign_request(change: impl FnOnce(&mut CertificateParams), pair: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "node:edge-a");
    change(&mut params);
    params.serialize_request(pair).unwrap().pem().unwrap()
}

fn refusal(csr_pem: &str) -> RequestError {
    match authority().issue_node("edge-a", csr_pem, noon()) {
        Err(AuthorityError::Request(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_authority_survives_being_written_down() {
    let made = authority();
    let loaded = Authority::load(&made.cert_pem(), made.key_pem().as_str()).unwrap();
    assert_eq!(loaded.cert_pem(), made.cert_pem());
    assert_eq!(loaded.fingerprint(), made.fingerprint());
    assert_eq!(loaded.fingerprint(), Fingerprint::of(&der(&made.cert_pem())).unwrap());
    assert_eq!(loaded.validity(), made.validity());
    let (issued, _) = joined(&loaded, "edge-a", noon());
    let (leaf, parent) = (der(&issued.cert_pem), der(&made.cert_pem()));
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let (_, parent) = X509Certificate::from_der(&parent).unwrap();
    leaf.verify_signature(Some(parent.public_key())).unwrap();
    parent.verify_signature(None).unwrap();
}

#[test]
fn a_renewed_authority_is_the_same_for_ten_years_more() {
    let old = authority();
    let late = old.validity().not_after - DAY;
    assert!(old.validity().needs_renewal(late));
    let new = old.renewed(late).unwrap();
    assert_eq!(new.fingerprint(), old.fingerprint());
    assert_ne!(new.cert_pem(), old.cert_pem());
    assert_eq!(new.key_pem().as_str(), old.key_pem().as_str());
    assert!(new.validity().covers(old.validity().not_after + DAY * 3000));
    let (old_der, new_der) = (der(&old.cert_pem()), der(&new.cert_pem()));
    let (_, old_parsed) = X509Certificate::from_der(&old_der).unwrap();
    let (_, new_parsed) = X509Certificate::from_der(&new_der).unwrap();
    assert_eq!(new_parsed.subject(), old_parsed.subject());
    assert_ne!(new_parsed.raw_serial(), old_parsed.raw_serial());
    // Written down and taken up again as any other.
    Authority::load(&new.cert_pem(), new.key_pem().as_str()).unwrap();
}

#[test]
fn key_and_certificate_of_two_authorities_are_refused() {
    let (one, other) = (authority(), authority());
    let mixed = Authority::load(&one.cert_pem(), other.key_pem().as_str());
    assert!(matches!(mixed, Err(AuthorityError::Mismatch { fingerprint })
        if fingerprint == one.fingerprint()));
}

#[test]
fn a_brokers_certificate_is_no_authority() {
    let broker = authority().issue_server(&names(&["localhost"]), noon()).unwrap();
    let loaded = Authority::load(&broker.issued.cert_pem, broker.key_pem.as_str());
    assert!(matches!(loaded, Err(AuthorityError::NotAnAuthority { .. })));
}

#[test]
fn files_that_are_not_what_they_should_be_are_told_apart() {
    let made = authority();
    let (certificate, key) = (made.cert_pem(), made.key_pem());
    let no_key = Authority::load(&certificate, &certificate);
    assert!(matches!(no_key, Err(AuthorityError::Key { .. })));
    let no_certificate = Authority::load(key.as_str(), key.as_str());
    assert!(matches!(no_certificate, Err(AuthorityError::Certificate(_))));
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    assert!(matches!(Authority::load(&certificate, &p384), Err(AuthorityError::Key { .. })));
}

#[test]
fn a_certificate_file_that_also_holds_the_key_does_not_give_it_away() {
    let made = authority();
    let both = made.key_pem().as_str().to_owned() + &made.cert_pem();
    let loaded = Authority::load(&both, &both).unwrap();
    assert_eq!(loaded.cert_pem(), made.cert_pem());
    assert!(!format!("{loaded:?} {:?}", loaded.key_pem()).contains("PRIVATE"));
}

#[test]
fn the_authority_lives_ten_years_and_what_it_issues_ninety_days() {
    let authority = authority();
    assert_eq!(authority.validity().not_before.to_string(), "2026-07-01T11:55:00Z");
    assert_eq!(authority.validity().not_after.to_string(), "2036-07-01T12:00:00Z");
    let (issued, _) = joined(&authority, "edge-a", noon());
    assert_eq!(issued.validity.not_before.to_string(), "2026-07-01T11:55:00Z");
    assert_eq!(issued.validity.not_after.to_string(), "2026-09-29T12:00:00Z");
    let read = Particulars::of_pem(&issued.cert_pem).unwrap();
    assert_eq!((read.serial, read.validity), (issued.serial, issued.validity));
    assert!(!read.validity.needs_renewal(noon() + DAY * 59));
    assert!(read.validity.needs_renewal(noon() + DAY * 60));
}

#[test]
fn what_is_issued_does_not_outlive_the_authority_and_after_its_end_nothing_is_issued() {
    let authority = authority();
    let end = authority.validity().not_after;
    let (issued, _) = joined(&authority, "edge-a", end - DAY);
    assert_eq!(issued.validity.not_after, end);
    let late = authority.issue_server(&names(&["localhost"]), end + DAY);
    assert!(matches!(late, Err(AuthorityError::Ended { at }) if at == end));
}

#[test]
fn a_nodes_certificate_says_which_node_it_is_and_a_brokers_says_none() {
    let authority = authority();
    let long = "n".repeat(63);
    for node in ["edge-a", &long] {
        let (issued, _) = joined(&authority, node, noon());
        let read = Particulars::of_pem(&issued.cert_pem).unwrap();
        assert_eq!(read.node.as_deref(), Some(node));
    }
    let broker = authority.issue_server(&names(&["localhost"]), noon()).unwrap();
    assert_eq!(Particulars::of_pem(&broker.issued.chain_pem).unwrap().node, None);
    assert_eq!(Particulars::of_pem(&authority.cert_pem()).unwrap().node, None);
}

#[test]
fn no_two_certificates_have_the_same_serial_number() {
    let authority = authority();
    let (one, _) = joined(&authority, "edge-a", noon());
    let (other, _) = joined(&authority, "edge-a", noon());
    assert_ne!(one.serial, other.serial);
}

#[test]
fn a_request_is_good_for_its_own_name_only() {
    let request = request_node("edge-b").unwrap();
    let refused = refusal(&request.csr_pem);
    assert!(matches!(refused, RequestError::Subject { asked, allowed }
        if asked == "CN=node:edge-b" && allowed == "node:edge-a"));
    assert!(matches!(request_node("Edge B"), Err(RequestError::Name(_))));
}

#[test]
fn a_request_for_more_than_its_name_is_refused() {
    let pair = KeyPair::generate().unwrap();
    let asks = [
        |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::OrganizationName, "operators");
        },
        |params: &mut CertificateParams| {
            params.distinguished_name = rcgen::DistinguishedName::new();
        },
        |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, "controller");
        },
    ];
    for ask in asks {
        let refused = refusal(&foreign_request(ask, &pair));
        assert!(matches!(refused, RequestError::Subject { .. }), "{refused}");
    }
}

#[test]
fn a_request_to_be_an_authority_or_a_server_makes_an_ordinary_node() {
    let pair = KeyPair::generate().unwrap();
    let greedy = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![rcgen::SanType::DnsName("broker".try_into().unwrap())];
    };
    let csr_pem = foreign_request(greedy, &pair);
    let issued = authority().issue_node("edge-a", &csr_pem, noon()).unwrap();
    let certificate = der(&issued.cert_pem);
    let (_, read) = X509Certificate::from_der(&certificate).unwrap();
    assert!(!read.is_ca());
    assert!(read.subject_alternative_name().unwrap().is_none());
    let usage = read.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!read.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn a_request_for_somebody_elses_key_is_refused() {
    let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let csr = pem::parse(foreign_request(|_| (), &mine)).unwrap().into_contents();
    let at = csr.windows(65).position(|window| window == mine.der_bytes()).unwrap();
    let forged = [&csr[..at], theirs.der_bytes(), &csr[at + 65..]].concat();
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", forged));
    assert!(matches!(refusal(&forged), RequestError::Signature));
}

#[test]
fn a_request_with_another_kind_of_key_or_none_at_all_is_refused() {
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(matches!(refusal(&foreign_request(|_| (), &p384)), RequestError::Key));
    let request = request_node("edge-a").unwrap();
    for text in ["", "node:edge-a", request.key_pem.as_str(), &authority().cert_pem()] {
        assert!(matches!(refusal(text), RequestError::Unreadable), "{text}");
    }
    let der = pem::parse(&request.csr_pem).unwrap().into_contents();
    let longer = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", [der, vec![0]].concat()));
    assert!(matches!(refusal(&longer), RequestError::Unreadable));
}

#[test]
fn a_broker_needs_a_name_that_a_client_can_use() {
    let authority = authority();
    assert!(matches!(authority.issue_server(&[], noon()), Err(AuthorityError::NoNames)));
    for name in ["", "a b", "*.example.org", "fe80::1%eth0", "mqtt://broker", "broker:8883"] {
        let refused = authority.issue_server(&names(&["localhost", name]), noon());
        assert!(matches!(refused, Err(AuthorityError::ServerName { .. })), "{name}");
    }
}

#[test]
fn a_brokers_names_stand_in_its_certificate_as_clients_compare_them() {
    let reached_as = names(&["broker.local.", "192.0.2.7", "2001:db8::7"]);
    let broker = authority().issue_server(&reached_as, noon()).unwrap();
    let certificate = der(&broker.issued.cert_pem);
    let (_, read) = X509Certificate::from_der(&certificate).unwrap();
    let held = &read.subject_alternative_name().unwrap().unwrap().value.general_names;
    let expected = [
        GeneralName::DNSName("broker.local"),
        GeneralName::IPAddress(&[192, 0, 2, 7]),
        GeneralName::IPAddress(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
    ];
    assert_eq!(held[..], expected);
}

#[test]
fn a_certificate_names_its_authoritys_key_as_strict_clients_demand() {
    let authority = authority();
    let (issued, _) = joined(&authority, "edge-a", noon());
    let (leaf, parent) = (der(&issued.cert_pem), der(&authority.cert_pem()));
    let [leaf, parent] = [&leaf, &parent].map(|der| X509Certificate::from_der(der).unwrap().1);
    let named = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.clone(),
        _ => None,
    });
    let own = parent.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.clone()),
        _ => None,
    });
    assert!(own.is_some());
    assert_eq!(named, own);
}

#[test]
fn a_board_that_thinks_it_is_1970_makes_nothing() {
    let early = Timestamp::UNIX_EPOCH;
    assert!(matches!(Authority::create("x", early), Err(AuthorityError::Clock(_))));
    let request = request_node("edge-a").unwrap();
    let issued = authority().issue_node("edge-a", &request.csr_pem, early);
    assert!(matches!(issued, Err(AuthorityError::Clock(_))));
}
