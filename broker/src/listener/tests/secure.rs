//! TLS: certificates of either side, and their renewal.

use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::ProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::super::TlsError;
use super::certificates::{Papers, connect, shown};
use super::websockets::open_websocket;
use super::*;

fn secure(papers: &Papers, required: Option<bool>) -> Config {
    let accept = [Transport::Tls, Transport::SecureWebSocket];
    Config { tls: Some(papers.broker(required)), ..config(&accept) }
}

#[tokio::test]
async fn the_versions_of_tls_that_are_safe_are_spoken_and_mqtt_is_offered() {
    let papers = Papers::new();
    let mut hall = Hall::open(secure(&papers, None)).await;
    for (version, name) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut wish = papers.client_of(None, &[version]);
        wish.alpn_protocols = vec![b"mqtt".to_vec()];
        let mut client = connect(hall.address(), wish).await.unwrap();
        assert_eq!(client.get_ref().1.protocol_version(), Some(name));
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));
        client.write_all(HELLO).await.unwrap();
        client.flush().await.unwrap();
        let (mut stream, peer) = hall.arrival().await;
        assert_eq!(peer.identity(), None);
        read(&mut stream, HELLO.len()).await;
        converse(&mut client, &mut stream).await;
    }
    let mut wish = papers.client(None);
    wish.alpn_protocols = vec![b"smtp".to_vec()];
    connect(hall.address(), wish).await.unwrap_err();
    assert!(hall.close().await);
}

#[tokio::test]
async fn a_client_certificate_names_its_holder() {
    let papers = Papers::new();
    let mut hall = Hall::open(secure(&papers, Some(false))).await;
    for (common_name, dns_names, identity) in [
        (Some("node-7"), &["other.local"][..], Some("node-7")),
        (None, &["node-8.local", "node-9.local"], Some("node-8.local")),
        (Some(""), &["node-9.local"], Some("node-9.local")),
        (None, &[], None),
    ] {
        for version in [&TLS12, &TLS13] {
            let passport = papers.issue(common_name, dns_names);
            let wish = papers.client_of(Some(&passport), &[version]);
            let mut client = connect(hall.address(), wish).await.unwrap();
            client.write_all(HELLO).await.unwrap();
            client.flush().await.unwrap();
            let (_, peer) = hall.arrival().await;
            assert_eq!(peer.identity().as_deref(), identity);
        }
    }
    let mut anonymous = connect(hall.address(), papers.client(None)).await.unwrap();
    anonymous.write_all(HELLO).await.unwrap();
    anonymous.flush().await.unwrap();
    assert_eq!(hall.arrival().await.1.identity(), None);

    let passport = papers.issue(Some("browser"), &[]);
    let client = connect(hall.address(), papers.client(Some(&passport))).await.unwrap();
    let _websocket = open_websocket(client).await;
    let (_, peer) = hall.arrival().await;
    assert_eq!(peer.transport, Transport::SecureWebSocket);
    assert_eq!(peer.identity().as_deref(), Some("browser"));
}

#[tokio::test]
async fn a_client_that_nobody_vouches_for_stays_outside() {
    let papers = Papers::new();
    let stranger = Papers::new().issue(Some("node-7"), &[]);
    let optional = Hall::open(secure(&papers, Some(false))).await;
    let required = Hall::open(secure(&papers, Some(true))).await;
    for (hall, passport) in
        [(&optional, Some(&stranger)), (&required, Some(&stranger)), (&required, None)]
    {
        // In TLS 1.3 a client learns only by reading that it was refused.
        let mut client = connect(hall.address(), papers.client(passport)).await.unwrap();
        let _ = client.write_all(HELLO).await;
        let mut byte = [0];
        let refusal = in_time(client.read(&mut byte)).await.unwrap_err();
        assert!(refusal.to_string().contains("received fatal alert"), "{refusal}");
    }
    assert!(optional.close().await && required.close().await);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_newcomers_and_disturbs_nobody() {
    let papers = Papers::new();
    let first = papers.renew();
    let mut hall = Hall::open(secure(&papers, None)).await;
    let tls = hall.tls.clone().unwrap();
    // One configuration for all: a session that could be resumed, would be.
    let wish = papers.client(None);
    let mut old = connect(hall.address(), wish.clone()).await.unwrap();
    assert_eq!(shown(&old), first);
    old.write_all(HELLO).await.unwrap();
    old.flush().await.unwrap();
    let (mut stream, _) = hall.arrival().await;
    read(&mut stream, HELLO.len()).await;
    converse(&mut old, &mut stream).await;

    let second = papers.renew();
    let unaware = connect(hall.address(), papers.client(None)).await.unwrap();
    assert_eq!(shown(&unaware), first);
    tls.reload().unwrap();
    let new = connect(hall.address(), wish.clone()).await.unwrap();
    assert_eq!(shown(&new), second);
    converse(&mut old, &mut stream).await;

    papers.write("broker.pem", "not a certificate");
    assert!(matches!(tls.reload(), Err(TlsError::Read { .. })));
    let later = connect(hall.address(), papers.client(None)).await.unwrap();
    assert_eq!(shown(&later), second);
    converse(&mut old, &mut stream).await;
}

#[test]
fn files_that_do_not_make_a_server_are_named() {
    let papers = Papers::new();
    let stranger = papers.issue(None, &["localhost"]);
    let load = || Tls::load(papers.broker(Some(true))).unwrap_err().to_string();

    papers.write("broker.key", &stranger.key.serialize_pem());
    let error = load();
    assert!(error.contains("broker.pem") && error.contains("broker.key"), "{error}");
    papers.write("broker.key", "");
    let error = load();
    assert!(error.contains("broker.key") && error.contains("private key"), "{error}");
    papers.renew();
    papers.write("ca.pem", "");
    let error = load();
    assert!(error.contains("ca.pem") && error.contains("certificate"), "{error}");
}
